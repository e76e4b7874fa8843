//! The elements every node has: the empty image, the host's networks and the file log.
//!
//! They live in two read-only locations that no configuration can take: `builtin` and `node`.

use std::collections::BTreeMap;

use super::{Body, ElementId, ImageBody, Kind, LogBody, Metadata, NetworkBody, Record, State};
use crate::PortLayer;
use crate::event::Change;
use crate::ledger::{AuditEntry, LedgerError, Verb};
use crate::store::{Location, Policy};

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

impl PortLayer {
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
                    let now = txn.now();
                    txn.put(&Record {
                        hidden: is_scratch(&id),
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
                    })?;
                    txn.audit(&by, &id, AuditEntry::done(Verb::Create, 0, 1))?;
                    txn.emit(&id, 1, Change::Created);
                }
                Ok(())
            })
            .await
    }
}
