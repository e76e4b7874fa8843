//! The committed composition of an executor: what is joined, what is bound, and the runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JoinHow, TaskBind};
use crate::element::{Checksum, ElementId};
use crate::network::NetworkLease;
use crate::task::{Limits, TaskSpec};
use crate::time::{Moment, Timestamp};

/// Everything committed about one executor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// What takes part, by id, in no order (mount order follows from the targets).
    pub joined: BTreeMap<ElementId, Joined>,
    /// Limits set by binding the executor itself; win over its spec.
    pub limits: Option<Limits>,
    /// Revision of the executor at which `limits` changed last.
    pub limits_changed: u64,
    /// The runs of each task, newest state only; exit records are kept by the ledger.
    pub runs: BTreeMap<ElementId, Run>,
    /// Addresses and host ports, from the first start with a network to its unbind.
    pub lease: Option<NetworkLease>,
    /// Counts starts of the container; names its engine objects so that a late call for an old one hits nothing.
    pub generation: u32,
}

/// One element that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// How it takes part.
    pub role: Role,
    /// Activated: mounted or to be run.
    pub bound: bool,
    /// Revision of the element when it was joined.
    pub revision: u64,
    /// Revision of the executor at which this entry, or the run of this task, changed last. A handle made over an
    /// older revision may not change it: it is stale.
    pub changed: u64,
}

/// The role of a joined element. Tasks are copied in, so that the executor outlives its template (seed 003).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Image or volume or network or log, as joined.
    Part(JoinHow),
    /// A task with the definition it had when joined and the settings of its bind.
    Task {
        /// Definition as joined.
        spec: Box<TaskSpec>,
        /// Sum of the task's data stream when joined.
        checksum: Option<Checksum>,
        /// The storage element the task is stored with: its paths are below that element's target.
        owner: Option<ElementId>,
        /// Settings of the bind.
        bind: TaskBind,
    },
}

/// Newest run of a task in an executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Number of the run, from 1.
    pub run: u32,
    /// Where it stands.
    pub state: RunState,
    /// When it was started.
    pub started: Timestamp,
    /// Restarts so far under its restart policy.
    pub restarts: u32,
    /// First process of the container (the others are execs in it).
    pub primary: bool,
    /// The container's generation it was started in.
    pub generation: u32,
    /// Milliseconds of deadline as committed.
    pub deadline_ms: Option<u64>,
    /// When it was started on the clock nobody sets: after a restart of ours the deadline is measured from there, after one
    /// of the machine from `started`. Not told to clients.
    pub clock: Option<Moment>,
}

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Its start was committed to but not yet acknowledged by the engine.
    Starting,
    /// It runs.
    Running,
    /// It ended; the ledger has its exit record.
    Ended,
}
