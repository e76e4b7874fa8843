//! What commit answers.

use std::collections::BTreeMap;

use super::StepError;
use crate::element::ElementId;

/// What a commit did, element by element.
#[derive(Debug)]
pub struct CommitResult {
    /// The executor.
    pub executor: ElementId,
    /// Its revision after the commit; unchanged when all was a no-op.
    pub revision: u64,
    /// Every element the handle names or changes, the executor included.
    pub elements: BTreeMap<ElementId, ElementResult>,
    /// The runs that were started, in the order of their binds; the first of a new container is its primary process.
    pub runs: Vec<RunId>,
}

impl CommitResult {
    /// Whether some element failed. Only what cannot be undone fails alone (the stop of a task that cannot be killed,
    /// an unmount from a running container); everything else fails the commit.
    pub fn is_error(&self) -> bool {
        let mut results = self.elements.values();
        results.any(|result| matches!(result, ElementResult::Error(_)))
    }
}

/// What a commit did about one element.
#[derive(Debug)]
pub enum ElementResult {
    /// It is now as the handle says.
    Success,
    /// It was so before.
    NoOp,
    /// It stayed as it was.
    Error(StepError),
}

/// One run of a task in its executor.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct RunId {
    /// The task.
    pub task: ElementId,
    /// Number of the run, from 1.
    pub run: u32,
}
