//! The intent of a commit: what is in the ledger before the first call to the engine, so that whoever comes after a
//! crash knows what to undo - or, from the record on that cannot be taken back, what to finish.

use serde::{Deserialize, Serialize};

use super::Change;
use crate::element::ElementId;
use crate::network::NetworkLease;

/// Written before the first step, removed in the transaction that records the commit or its failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// Revision of the executor the commit was computed over.
    pub(crate) revision: u64,
    /// Generation of the container being started or changed.
    pub(crate) generation: u32,
    /// The commit starts a new container; otherwise it changes a running one.
    pub(crate) fresh: bool,
    /// Elements that are claimed for the first time: their references go when the commit is undone.
    pub(crate) claims: Vec<ElementId>,
    /// Volumes that are attached, with their targets.
    pub(crate) attaches: Vec<(ElementId, String)>,
    /// Addresses and ports the executor has when the commit is done.
    pub(crate) lease: Option<NetworkLease>,
    /// Runs that are started: task and number.
    pub(crate) runs: Vec<(ElementId, u32)>,
    /// The steps are done and recorded: this is what follows. Nothing of such an intent is undone.
    pub(crate) rest: Option<Rest>,
}

/// What of a commit cannot be undone and is done after its record: tasks are stopped, then volumes unmounted, then what that
/// makes possible is recorded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// Tasks to stop.
    pub(crate) stops: Vec<ElementId>,
    /// Volumes to unmount, with their targets, children first.
    pub(crate) detaches: Vec<(ElementId, String)>,
    /// The bridge to be taken from.
    pub(crate) disconnects: Option<ElementId>,
    /// Changes that are recorded when it is done.
    pub(crate) deferred: Vec<(ElementId, Change)>,
}
