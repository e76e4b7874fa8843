//! What operations on tasks refuse, with Diego's texts and types.

use portlayer::element::IdError;
use portlayer::error::{CreateError, DeleteError, ReadError, UpdateError};
use thiserror::Error;

use super::record::State;
use crate::diego::Invalid;

/// A request that can never be served.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The definition.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none.
    #[error("Invalid field: task_definition")]
    NoDefinition,
    /// The definition cannot be written down.
    #[error("the definition cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// No element can be made for it.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Why an operation on a task was refused or failed.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is a task of that guid.
    #[error("the requested resource already exists")]
    Exists {
        /// Its guid.
        guid: String,
    },
    /// There is no task of that guid.
    #[error("the requested resource could not be found")]
    NotFound {
        /// The guid.
        guid: String,
    },
    /// Its state does not allow it.
    #[error("Cannot transition from {from} to {to}")]
    Transition {
        /// The state it is in.
        from: State,
        /// The state that was wanted.
        to: State,
    },
    /// The record could not be made.
    #[error("recording the task failed")]
    Create(#[source] CreateError),
    /// The record could not be changed.
    #[error("recording the change of the task failed")]
    Update(#[source] UpdateError),
    /// The record could not be removed.
    #[error("removing the record of the task failed")]
    Delete(#[source] DeleteError),
    /// Records could not be read.
    #[error("reading the records of tasks failed")]
    Read(#[source] ReadError),
    /// A record is not one of ours.
    #[error("the record of {element} is damaged: {what}")]
    Damaged {
        /// The element.
        element: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl TaskError {
    /// Diego's number of the class (`bbs:models/error.proto`).
    pub fn diego_type(&self) -> i32 {
        match self {
            TaskError::Request(_) => 4,
            TaskError::Transition { .. } => 9,
            TaskError::Exists { .. } => 12,
            TaskError::NotFound { .. } => 13,
            TaskError::Create(_)
            | TaskError::Update(_)
            | TaskError::Delete(_)
            | TaskError::Read(_)
            | TaskError::Damaged { .. } => 0,
        }
    }
}

impl From<IdError> for TaskError {
    fn from(error: IdError) -> Self {
        TaskError::Request(RequestError::Id(error))
    }
}
