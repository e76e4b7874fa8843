//! Events: what changed, in one order for the whole node.
//!
//! An event gets its sequence in the ledger transaction that makes the change and is delivered after that
//! transaction is durable: there is no event for what a restart would forget and no change without its event.

use serde::{Deserialize, Serialize};

use crate::element::ElementId;
use crate::task::ExitRecord;
use crate::time::Timestamp;

/// Place of an event in the node's order; the first is 1.
pub type Sequence = u64;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Place in the order; gapless except where a [`Change::Gap`] says otherwise.
    pub sequence: Sequence,
    /// Wall clock; for people, never for ordering.
    pub time: Timestamp,
    /// The element it is about.
    pub id: ElementId,
    /// The element's revision after the change.
    pub revision: u64,
    /// Learned by looking after a restart or reconnect, not by seeing it happen.
    pub reconciled: bool,
    /// What changed.
    pub change: Change,
}

/// The id gap events carry: they are about no element, only about the stream.
const GAP_ID: &str = "log://node/events";

impl Event {
    /// The event that stands in for those from `from` to `to`. Its sequence is `to`.
    pub fn gap(from: Sequence, to: Sequence) -> Self {
        Self {
            sequence: to,
            time: Timestamp::now(),
            id: GAP_ID.parse().expect("a constant id that a test parses"),
            revision: 0,
            reconciled: false,
            change: Change::Gap { from, to },
        }
    }
}

/// The kinds of change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The element was created.
    Created,
    /// Its mutable metadata or configuration changed; names of the keys, never values.
    Modified {
        /// Names of the changed keys.
        keys: Vec<String>,
    },
    /// The element was deleted.
    Deleted,
    /// The element, a parent, gained this child.
    Inherited {
        /// The new child.
        child: ElementId,
    },
    /// The element now takes part in the executor.
    Joined {
        /// The executor.
        executor: ElementId,
    },
    /// The element no longer takes part in the executor.
    Left {
        /// The executor.
        executor: ElementId,
    },
    /// The element was activated: a volume mounted, a task or an executor started.
    Bound {
        /// The executor.
        executor: ElementId,
    },
    /// The element was deactivated; for a task with its exit record.
    Unbound {
        /// The executor.
        executor: ElementId,
        /// How the run ended (tasks only).
        exit: Option<Box<ExitRecord>>,
    },
    /// A location became usable or unusable. `id` is any element of it or `image://<location>/_`.
    LocationHealth {
        /// The location.
        location: String,
        /// Usable now.
        available: bool,
        /// Why not, for people.
        reason: String,
    },
    /// Events from..=to were not delivered (reader too slow) or are no longer stored (reader too late):
    /// read the state again.
    Gap {
        /// First missing sequence.
        from: Sequence,
        /// Last missing sequence.
        to: Sequence,
    },
}

impl Change {
    /// The name used in filters and output. A task's or executor's start and stop have their seed 003 names
    /// `started` and `stopped` as aliases in filters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Modified { .. } => "modified",
            Change::Deleted => "deleted",
            Change::Inherited { .. } => "inherited",
            Change::Joined { .. } => "joined",
            Change::Left { .. } => "left",
            Change::Bound { .. } => "bound",
            Change::Unbound { .. } => "unbound",
            Change::LocationHealth { .. } => "location-health",
            Change::Gap { .. } => "gap",
        }
    }

    /// The executor the change happened in, where there is one.
    pub fn executor(&self) -> Option<&ElementId> {
        match self {
            Change::Joined { executor }
            | Change::Left { executor }
            | Change::Bound { executor }
            | Change::Unbound { executor, .. } => Some(executor),
            _ => None,
        }
    }
}
