//! What the verbs of composition can refuse.

use thiserror::Error;

use crate::element::{ElementId, Kind, State};
use crate::error::{LocationError, ReadError};
use crate::ledger::LedgerError;
use crate::runtime::RuntimeError;
use crate::store::StoreError;

/// Open, join, bind, unbind or leave refused. They look and edit; nothing on the node changed.
#[derive(Debug, Error)]
pub enum ComposeError {
    /// The element cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The element's location cannot be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// Only executors can be opened.
    #[error("{id} is no executor")]
    NotAnExecutor {
        /// The id.
        id: ElementId,
    },
    /// The role does not fit the kind of the element.
    #[error("{id} cannot be joined as {how}")]
    WrongRole {
        /// The id.
        id: ElementId,
        /// Kind the role is for.
        how: Kind,
    },
    /// The bind settings do not fit the kind of the element.
    #[error("{id}: these bind settings are for another kind")]
    WrongBind {
        /// The id.
        id: ElementId,
    },
    /// It takes part already.
    #[error("{id} is already joined to {executor}")]
    AlreadyJoined {
        /// The id.
        id: ElementId,
        /// The executor.
        executor: ElementId,
    },
    /// It does not take part.
    #[error("{id} is not joined to {executor}")]
    NotJoined {
        /// The id.
        id: ElementId,
        /// The executor.
        executor: ElementId,
    },
    /// It is bound already.
    #[error("{id} is already bound")]
    AlreadyBound {
        /// The id.
        id: ElementId,
    },
    /// Leave needs an unbind first.
    #[error("{id} is still bound")]
    StillBound {
        /// The id.
        id: ElementId,
    },
    /// Two joined elements cannot be together.
    #[error("{id} conflicts with {other}: {why}")]
    ConflictsWith {
        /// The new one.
        id: ElementId,
        /// The one that is there.
        other: ElementId,
        /// Why.
        why: &'static str,
    },
    /// A field of the role or settings breaks a rule.
    #[error("{id}: field {field}: {rule}")]
    InvalidField {
        /// The element.
        id: ElementId,
        /// Path of the field.
        field: String,
        /// The rule.
        rule: String,
    },
}

/// Commit refused or failed. Up to and including `Stale` nothing was touched.
#[derive(Debug, Error)]
pub enum CommitError {
    /// An edit of the handle cannot be applied.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// An element the handle touches changed since.
    #[error("{executor}: {element} changed from revision {expected} to {actual} by {changed_by}")]
    Stale {
        /// The executor.
        executor: ElementId,
        /// What changed.
        element: ElementId,
        /// Revision the handle was made over.
        expected: u64,
        /// Revision now; 0 = deleted.
        actual: u64,
        /// Operation that changed it, from the audit log.
        changed_by: String,
    },
    /// A task is bound and no image is joined at `/` (seed 003's last question).
    #[error("{executor}: no root: {task} is bound and no image is joined at /")]
    NoRoot {
        /// The executor.
        executor: ElementId,
        /// The bound task.
        task: ElementId,
    },
    /// Something a joined element requires is provided by nothing.
    #[error("{executor}: {element} requires {requirement}")]
    UnresolvedRequirement {
        /// The executor.
        executor: ElementId,
        /// What requires it.
        element: ElementId,
        /// What it requires.
        requirement: String,
    },
    /// A field of a composed element breaks a rule only seen in the whole.
    #[error("{executor}: {element}: field {field}: {rule}")]
    Invalid {
        /// The executor.
        executor: ElementId,
        /// The element.
        element: ElementId,
        /// Path of the field.
        field: String,
        /// The rule.
        rule: String,
    },
    /// Possible only with a restart of the executor: unbind its tasks, commit, bind again.
    #[error("{executor} is {}: {element} needs a restart: {why}", state.as_str())]
    NeedsRestart {
        /// The executor.
        executor: ElementId,
        /// What cannot be changed live.
        element: ElementId,
        /// Its state.
        state: State,
        /// Why not live.
        why: &'static str,
    },
    /// A step failed; everything this commit did was undone. Steps whose undo failed too are named and left to
    /// recovery.
    #[error("{executor}: {element}: {step} failed")]
    Step {
        /// The executor.
        executor: ElementId,
        /// The element the step was for.
        element: ElementId,
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: StepError,
        /// What could not be undone.
        undo_failures: Vec<(String, StepError)>,
    },
    /// The result could not be recorded.
    #[error("recording the commit of {executor} failed")]
    Ledger {
        /// The executor.
        executor: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// Why a step of a commit failed.
#[derive(Debug, Error)]
pub enum StepError {
    /// The engine.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task outlived its stop, SIGKILL included; it is still being killed in the background and its end will be
    /// recorded.
    #[error("{task} still runs {after_ms} ms after its stop began")]
    StillRunning {
        /// The task.
        task: ElementId,
        /// Milliseconds it was waited for: its grace and the time SIGKILL was given.
        after_ms: u64,
    },
}
