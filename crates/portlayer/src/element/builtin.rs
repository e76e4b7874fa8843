//! The elements every node has: the empty image, the host's networks and the file log.
//!
//! They live in two read-only locations that no configuration can take: `builtin` and `node`.

use std::collections::BTreeMap;

use super::{Body, ElementId, ImageBody, Kind, LogBody, Metadata, NetworkBody, Record, State};
use crate::PortLayer;
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb};
use crate::network::{EgressDefault, NetworkSpec};
use crate::store::{Location, Policy};
use crate::time::Timestamp;

/// The empty image; as a root file system it is read-only.
pub(crate) const SCRATCH: &str = "image://builtin/scratch";
/// A fresh network name space with only a loopback; the default.
pub(crate) const NO_NETWORK: &str = "network://node/none";
/// The host's own network name space.
pub(crate) const HOST_NETWORK: &str = "network://node/host";
const FILE_LOG: &str = "log://node/file";

const LOCATIONS: [&str; 2] = ["builtin", "node"];

/// The locations of the built-in elements.
pub(crate) fn locations() -> Vec<Location> {
    let location = |name: &str, kinds: &[Kind]| Location {
        name: name.to_owned(),
        kinds: kinds.to_vec(),
        policy: Policy::ReadOnly,
        store: None,
    };
    vec![
        location("builtin", &[Kind::Image]),
        location("node", &[Kind::Network, Kind::Log]),
    ]
}

/// Whether the id is in a location only we fill.
pub(crate) fn is_built_in(id: &ElementId) -> bool {
    LOCATIONS.contains(&id.location())
}

/// Whether this is the empty image: as a parent it stands for nothing, its children start from an empty tree.
pub(crate) fn is_scratch(id: &ElementId) -> bool {
    id.as_str() == SCRATCH
}

fn bodies() -> [(&'static str, Body); 4] {
    [
        (SCRATCH, Body::Image(Box::<ImageBody>::default())),
        (NO_NETWORK, Body::Network(NetworkBody::default())),
        (HOST_NETWORK, Body::Network(NetworkBody::default())),
        (FILE_LOG, Body::Log(LogBody::default())),
    ]
}

fn fresh(id: &ElementId, body: Body, now: Timestamp) -> Record {
    Record {
        hidden: is_scratch(id),
        id: id.clone(),
        parent: None,
        owner: None,
        checksum: None,
        size: 0,
        ro: Metadata::new(),
        rw: BTreeMap::new(),
        revision: 1,
        created: now,
        modified: now,
        state: State::Ready,
        body,
    }
}

/// How a network is configured, for those who read the element.
fn settings(network: &NetworkSpec) -> BTreeMap<String, String> {
    let list = |values: Vec<String>| (!values.is_empty()).then(|| values.join(" "));
    let all = [
        ("subnet4", network.subnet4.map(|subnet| subnet.to_string())),
        ("subnet6", network.subnet6.map(|subnet| subnet.to_string())),
        (
            "dns",
            list(network.dns.iter().map(ToString::to_string).collect()),
        ),
        ("mtu", Some(network.mtu.to_string())),
        (
            "egress",
            Some(
                if network.egress == EgressDefault::Allow {
                    "allow"
                } else {
                    "deny"
                }
                .to_owned(),
            ),
        ),
        (
            "never",
            list(network.never.iter().map(ToString::to_string).collect()),
        ),
        (
            "ports",
            Some(format!("{}-{}", network.ports.first, network.ports.last)),
        ),
        ("neighbours", Some(network.neighbours.to_string())),
        ("masquerade", Some(network.masquerade.to_string())),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

impl PortLayer {
    /// Makes the elements of the configured networks as the configuration has them. One that is not configured any more
    /// goes, unless an executor still names it: then it stays and cannot be used. Idempotent.
    pub(crate) async fn set_networks(
        &self,
        networks: BTreeMap<ElementId, NetworkSpec>,
    ) -> Result<(), LedgerError> {
        let known = self
            .shared
            .ledger
            .list("network://node/", None, usize::MAX, |_| true)?;
        let by = self.operation();
        let write = move |txn: &mut Txn<'_>| -> Result<(), LedgerError> {
            for record in known.records {
                let id = &record.id;
                let built_in = matches!(id.as_str(), NO_NETWORK | HOST_NETWORK);
                if built_in
                    || networks.contains_key(id)
                    || !txn.linked(Index::References, id)?.is_empty()
                {
                    continue;
                }
                txn.remove(id);
                txn.audit(&by, id, AuditEntry::done(Verb::Delete, record.revision, 0))?;
                txn.emit(id, record.revision, Change::Deleted);
            }
            for (id, network) in &networks {
                let body = Body::Network(NetworkBody {
                    settings: settings(network),
                });
                match txn.get(id)? {
                    Some(record) if record.body == body => {}
                    Some(mut record) => {
                        record.body = body;
                        record.modified = txn.now();
                        record.revision += 1;
                        let (before, after) = (record.revision - 1, record.revision);
                        txn.put(&record)?;
                        txn.audit(&by, id, AuditEntry::done(Verb::Update, before, after))?;
                        let keys = vec!["settings".to_owned()];
                        txn.emit(id, after, Change::Modified { keys });
                    }
                    None => {
                        txn.put(&fresh(id, body, txn.now()))?;
                        txn.audit(&by, id, AuditEntry::done(Verb::Create, 0, 1))?;
                        txn.emit(id, 1, Change::Created);
                    }
                }
            }
            Ok(())
        };
        self.shared.ledger.write(write).await
    }

    /// Makes the built-in elements that are not there yet. Idempotent.
    pub(crate) async fn add_built_in(&self) -> Result<(), LedgerError> {
        let by = self.operation();
        self.shared
            .ledger
            .write(move |txn| {
                for (text, body) in bodies() {
                    let id: ElementId = text
                        .parse()
                        .expect("the ids of built-in elements are well-formed");
                    if txn.get(&id)?.is_some() {
                        continue;
                    }
                    txn.put(&fresh(&id, body, txn.now()))?;
                    txn.audit(&by, &id, AuditEntry::done(Verb::Create, 0, 1))?;
                    txn.emit(&id, 1, Change::Created);
                }
                Ok(())
            })
            .await
    }
}
