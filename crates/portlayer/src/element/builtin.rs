//! The elements every node has: the empty image, the host's networks and the file log.
//!
//! They live in two locations that no configuration can take: `builtin`, and `node`, where callers make networks and logs of
//! their own beside them.

use std::collections::BTreeMap;

use super::{Body, ElementId, ImageBody, Kind, LogBody, Metadata, NetworkBody, Record, State};
use crate::PortLayer;
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb};
use crate::network::NetworkSpec;
use crate::store::{Location, Policy};
use crate::time::Timestamp;

/// The empty image; as a root file system it is read-only.
pub(crate) const SCRATCH: &str = "image://builtin/scratch";
/// A fresh network name space with only a loopback; the default.
pub(crate) const NO_NETWORK: &str = "network://node/none";
/// The host's own network name space.
pub(crate) const HOST_NETWORK: &str = "network://node/host";
/// The node's bounded files.
pub(crate) const FILE_LOG: &str = "log://node/file";

/// The location of networks and logs.
pub(crate) const NODE: &str = "node";

/// The locations of the built-in elements.
pub(crate) fn locations() -> Vec<Location> {
    let location = |name: &str, kinds: &[Kind], policy| Location {
        name: name.to_owned(),
        kinds: kinds.to_vec(),
        policy,
        store: None,
    };
    vec![
        location("builtin", &[Kind::Image], Policy::ReadOnly),
        location(NODE, &[Kind::Network, Kind::Log], Policy::ReadWrite),
    ]
}

/// Whether every node has it from us.
pub(crate) fn is_built_in(id: &ElementId) -> bool {
    id.location() == "builtin" || matches!(id.as_str(), NO_NETWORK | HOST_NETWORK | FILE_LOG)
}

/// The id of the network that is only a loopback.
pub(crate) fn no_network() -> ElementId {
    let id = NO_NETWORK.parse();
    id.expect("the ids of built-in elements are well-formed")
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

/// The setting by which an element says that the node's configuration made it; callers cannot give it.
const ORIGIN: &str = "origin";
const CONFIGURATION: &str = "configuration";

/// How a configured network is, for those who read the element.
fn settings(network: &NetworkSpec) -> BTreeMap<String, String> {
    let origin = (ORIGIN.to_owned(), CONFIGURATION.to_owned());
    network.settings().into_iter().chain([origin]).collect()
}

/// Whether the configuration made it: then it alone changes and removes it.
pub(crate) fn is_configured(record: &Record) -> bool {
    match &record.body {
        Body::Network(body) => body
            .settings
            .get(ORIGIN)
            .is_some_and(|by| by == CONFIGURATION),
        _ => false,
    }
}

/// A network that a caller made, as it is to be. `None` for built-in, configured and other elements.
pub(crate) fn made_network(record: &Record) -> Option<NetworkSpec> {
    let Body::Network(body) = &record.body else {
        return None;
    };
    // Neither built-in nor configured ones read back: the former have no subnet, the latter one setting more.
    NetworkSpec::of_settings(record.id.name(), &body.settings).ok()
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
                    || !is_configured(&record)
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
