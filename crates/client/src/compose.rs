//! What a commit answers over the wire, and edits as values.

use std::collections::BTreeMap;

use portlayer::compose::{BindHow, CommitResult, ElementResult, JoinHow, RunId};
use portlayer::element::ElementId;

use crate::wire::Fault;

/// One edit of a handle, for calls that compose and commit in one.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Take part.
    Join {
        /// What.
        id: ElementId,
        /// In which role.
        how: JoinHow,
    },
    /// Activate; `None` = everything joined.
    Bind {
        /// What.
        id: Option<ElementId>,
        /// Settings.
        how: BindHow,
    },
    /// Deactivate; `None` = everything bound.
    Unbind {
        /// What.
        id: Option<ElementId>,
    },
    /// No longer take part.
    Leave {
        /// What.
        id: ElementId,
    },
}

/// What a commit did; as [`CommitResult`], with errors as they come over a wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The executor.
    pub executor: ElementId,
    /// Its revision after the commit; unchanged when all was a no-op.
    pub revision: u64,
    /// Every element the handle names or changes, the executor included.
    pub elements: BTreeMap<ElementId, ElementOutcome>,
    /// The runs that were started, in the order of their binds.
    pub runs: Vec<RunId>,
}

/// What a commit did about one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementOutcome {
    /// It is now as the handle says.
    Success,
    /// It was so before.
    NoOp,
    /// It stayed as it was.
    Error(Fault),
}

impl Committed {
    /// Whether some element failed; see [`CommitResult::is_error`].
    pub fn is_error(&self) -> bool {
        let mut outcomes = self.elements.values();
        outcomes.any(|outcome| matches!(outcome, ElementOutcome::Error(_)))
    }
}

impl From<CommitResult> for Committed {
    fn from(result: CommitResult) -> Self {
        let CommitResult {
            executor,
            revision,
            elements,
            runs,
        } = result;
        let elements = elements.into_iter().map(|(id, result)| {
            let outcome = match result {
                ElementResult::Success => ElementOutcome::Success,
                ElementResult::NoOp => ElementOutcome::NoOp,
                ElementResult::Error(error) => ElementOutcome::Error(Fault::of_step(error)),
            };
            (id, outcome)
        });
        Committed {
            executor,
            revision,
            elements: elements.collect(),
            runs,
        }
    }
}
