//! The node: what it is, how it is, what its checks found.

use std::path::PathBuf;

use portlayer::ledger::{BrokenChain, Dangling, Report};
use portlayer::runtime::{DiskBound, Finding, HostIsolation, IdMapping, RuntimeInfo};
use portlayer::{AuditReport, Audited};
use portlayer_proto::v1;

use super::{
    Wire, WireError, all, all_into, choice, id, name_of, named, optional, optional_id, read_time,
    required, time,
};
use crate::node::{Diagnostics, LocationInfo, NodeInfo, Swept};

impl Wire for RuntimeInfo {
    type Message = v1::EngineInfo;

    fn into_wire(self) -> v1::EngineInfo {
        let RuntimeInfo {
            engine,
            oci_runtime,
            kernel,
            cgroups,
            favordynmods,
            snapshotter,
            namespace,
            live_attach,
            isolation,
            warnings,
        } = self;
        let HostIsolation {
            capabilities,
            ids,
            disk,
            apparmor,
        } = isolation;
        v1::EngineInfo {
            engine,
            oci_runtime,
            kernel,
            cgroups,
            favordynmods,
            snapshotter,
            namespace,
            live_attach,
            warnings,
            isolation: Some(v1::HostIsolation {
                capabilities,
                ids: ids.as_str().to_owned(),
                disk: disk.as_str().to_owned(),
                apparmor,
            }),
        }
    }

    fn from_wire(message: v1::EngineInfo) -> Result<Self, WireError> {
        let v1::EngineInfo {
            engine,
            oci_runtime,
            kernel,
            cgroups,
            favordynmods,
            snapshotter,
            namespace,
            live_attach,
            warnings,
            isolation,
        } = message;
        let v1::HostIsolation {
            capabilities,
            ids,
            disk,
            apparmor,
        } = isolation.unwrap_or_default();
        Ok(RuntimeInfo {
            engine,
            oci_runtime,
            kernel,
            cgroups,
            favordynmods,
            snapshotter,
            namespace,
            live_attach,
            isolation: HostIsolation {
                capabilities,
                ids: match ids.as_str() {
                    "mapped" => IdMapping::Mapped,
                    "copied" => IdMapping::Copied,
                    _ => IdMapping::None,
                },
                disk: match disk.as_str() {
                    "block-file" => DiskBound::BlockFile,
                    "btrfs-pool" => DiskBound::Pool,
                    _ => DiskBound::None,
                },
                apparmor,
            },
            warnings,
        })
    }
}

impl Wire for NodeInfo {
    type Message = v1::InfoResponse;

    fn into_wire(self) -> v1::InfoResponse {
        let NodeInfo {
            version,
            data_dir,
            engine,
            locations,
            counts,
            last_sequence,
        } = self;
        let counts = counts.into_iter().map(|(kind, count)| v1::KindCount {
            kind: kind.into_wire().into(),
            count,
        });
        v1::InfoResponse {
            version,
            data_dir: data_dir.to_string_lossy().into_owned(),
            engine: Some(engine.into_wire()),
            locations: all_into(locations),
            counts: counts.collect(),
            last_sequence,
        }
    }

    fn from_wire(message: v1::InfoResponse) -> Result<Self, WireError> {
        let counts = message.counts.into_iter();
        let counts = counts.map(|count| Ok((choice("counts.kind", count.kind)?, count.count)));
        Ok(NodeInfo {
            version: message.version,
            data_dir: PathBuf::from(message.data_dir),
            engine: required("engine", message.engine)?,
            locations: all("locations", message.locations)?,
            counts: counts.collect::<Result<_, WireError>>()?,
            last_sequence: message.last_sequence,
        })
    }
}

impl Wire for LocationInfo {
    type Message = v1::LocationInfo;

    fn into_wire(self) -> v1::LocationInfo {
        let LocationInfo {
            name,
            kinds,
            policy,
            backing,
        } = self;
        v1::LocationInfo {
            name,
            kinds: kinds.into_iter().map(|k| k.into_wire().into()).collect(),
            policy: name_of(policy),
            backing,
        }
    }

    fn from_wire(message: v1::LocationInfo) -> Result<Self, WireError> {
        let kinds = message.kinds.into_iter().map(|kind| choice("kinds", kind));
        Ok(LocationInfo {
            name: message.name,
            kinds: kinds.collect::<Result<_, _>>()?,
            policy: named("policy", &message.policy)?,
            backing: message.backing,
        })
    }
}

impl Wire for Diagnostics {
    type Message = v1::DiagnosticsResponse;

    fn into_wire(self) -> v1::DiagnosticsResponse {
        let Diagnostics {
            started,
            pid,
            descriptors,
            threads,
            memory_bytes,
            calls,
            subscriptions,
            engine_available,
            draining,
            places,
        } = self;
        v1::DiagnosticsResponse {
            started: Some(time(started)),
            pid,
            descriptors,
            threads,
            memory_bytes,
            calls,
            subscriptions,
            engine_available,
            draining,
            places,
        }
    }

    fn from_wire(message: v1::DiagnosticsResponse) -> Result<Self, WireError> {
        Ok(Diagnostics {
            started: read_time("started", message.started)?,
            pid: message.pid,
            descriptors: message.descriptors,
            threads: message.threads,
            memory_bytes: message.memory_bytes,
            calls: message.calls,
            subscriptions: message.subscriptions,
            engine_available: message.engine_available,
            draining: message.draining,
            places: message.places,
        })
    }
}

impl Wire for Report {
    type Message = v1::VerifyResponse;

    fn into_wire(self) -> v1::VerifyResponse {
        let clean = self.is_clean();
        let Report {
            records,
            audit_rows,
            chains,
            events,
            damaged,
            broken_chains,
            dangling,
            heads_match,
        } = self;
        let broken = broken_chains
            .into_iter()
            .map(|BrokenChain { id, row }| v1::BrokenChain { id, row });
        v1::VerifyResponse {
            clean,
            records,
            audit_rows,
            chains,
            events,
            damaged,
            broken_chains: broken.collect(),
            dangling: all_into(dangling),
            heads_match,
        }
    }

    fn from_wire(message: v1::VerifyResponse) -> Result<Self, WireError> {
        let broken = message
            .broken_chains
            .into_iter()
            .map(|v1::BrokenChain { id, row }| BrokenChain { id, row });
        Ok(Report {
            records: message.records,
            audit_rows: message.audit_rows,
            chains: message.chains,
            events: message.events,
            damaged: message.damaged,
            broken_chains: broken.collect(),
            dangling: all("dangling", message.dangling)?,
            heads_match: message.heads_match,
        })
    }
}

impl Wire for Dangling {
    type Message = v1::DanglingLink;

    fn into_wire(self) -> v1::DanglingLink {
        let Dangling {
            index,
            first,
            second,
            missing,
        } = self;
        v1::DanglingLink {
            index: index.to_owned(),
            first: first.to_string(),
            second: second.to_string(),
            missing: missing.to_string(),
        }
    }

    fn from_wire(message: v1::DanglingLink) -> Result<Self, WireError> {
        let known = ["child", "reference", "owned"].into_iter();
        let index = known.into_iter().find(|name| *name == message.index);
        Ok(Dangling {
            index: index.ok_or_else(|| WireError::Unknown {
                field: "index".to_owned(),
                value: message.index.clone(),
            })?,
            first: id("first", &message.first)?,
            second: id("second", &message.second)?,
            missing: id("missing", &message.missing)?,
        })
    }
}

impl Wire for AuditReport {
    type Message = v1::AuditResponse;

    fn into_wire(self) -> v1::AuditResponse {
        let clean = self.is_clean();
        let AuditReport { found, away } = self;
        v1::AuditResponse {
            clean,
            found: all_into(found),
            away,
        }
    }

    fn from_wire(message: v1::AuditResponse) -> Result<Self, WireError> {
        Ok(AuditReport {
            found: all("found", message.found)?,
            away: message.away,
        })
    }
}

impl Wire for Audited {
    type Message = v1::Audited;

    fn into_wire(self) -> v1::Audited {
        let Audited { finding, owner } = self;
        let Finding {
            class,
            name,
            owner: said,
        } = finding;
        v1::Audited {
            class: name_of(class),
            name,
            said_owner: said,
            owner: owner.map(|id| id.to_string()),
        }
    }

    fn from_wire(message: v1::Audited) -> Result<Self, WireError> {
        Ok(Audited {
            finding: Finding {
                class: named("class", &message.class)?,
                name: message.name,
                owner: message.said_owner,
            },
            owner: optional_id("owner", message.owner.as_deref())?,
        })
    }
}

impl Wire for Swept {
    type Message = v1::Swept;

    fn into_wire(self) -> v1::Swept {
        let Swept {
            location,
            removed,
            fault,
        } = self;
        v1::Swept {
            location,
            removed,
            fault: fault.map(Wire::into_wire),
        }
    }

    fn from_wire(message: v1::Swept) -> Result<Self, WireError> {
        Ok(Swept {
            location: message.location,
            removed: message.removed,
            fault: optional("fault", message.fault)?,
        })
    }
}
