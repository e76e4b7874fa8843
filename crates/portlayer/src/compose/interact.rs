//! What can be done with running tasks: wait, interrupt, exec, logs, attach, resize. None of it is configuration: it
//! waits for no commit and no commit waits for it.

mod inside;
mod interrupt;
mod stats;
mod streams;
mod wait;

use thiserror::Error;

pub use interrupt::{Interrupt, Interrupted};
pub use streams::Attached;

use super::{ComposeError, Composition, Run};
use crate::element::ElementId;
use crate::ledger::LedgerError;
use crate::runtime::{ContainerId, ProcessId, RuntimeError};

/// What reaching for a task can refuse.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The executor or task is not there or not what it must be.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The task, or that run of it, was never started in the executor.
    #[error("{task} was never started in {executor}")]
    NeverStarted {
        /// The executor.
        executor: ElementId,
        /// The task.
        task: ElementId,
    },
    /// The task does not run now.
    #[error("{task} does not run in {executor}")]
    NotRunning {
        /// The executor.
        executor: ElementId,
        /// The task.
        task: ElementId,
    },
    /// The executor does not run now.
    #[error("{executor} does not run")]
    Idle {
        /// The executor.
        executor: ElementId,
    },
    /// The engine.
    #[error("reaching {task} in {executor} failed")]
    Runtime {
        /// The executor.
        executor: ElementId,
        /// The task; for an executor its own id.
        task: ElementId,
        /// Cause.
        #[source]
        source: RuntimeError,
    },
    /// The ledger.
    #[error("the records of {executor} cannot be used")]
    Ledger {
        /// The executor.
        executor: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// A run that is not recorded as ended.
struct Running {
    process: ProcessId,
    primary: bool,
}

fn find(executor: &ElementId, composition: &Composition, task: &ElementId) -> Option<Running> {
    let run: &Run = composition.runs.get(task)?;
    if run.state == super::RunState::Ended {
        return None;
    }
    let container = ContainerId::new(executor, run.generation);
    Some(Running {
        process: ProcessId::new(container, task, run.run),
        primary: run.primary,
    })
}

fn never(executor: &ElementId, task: &ElementId) -> TaskError {
    TaskError::NeverStarted {
        executor: executor.clone(),
        task: task.clone(),
    }
}

fn runtime(executor: &ElementId, task: &ElementId, source: RuntimeError) -> TaskError {
    TaskError::Runtime {
        executor: executor.clone(),
        task: task.clone(),
        source,
    }
}

fn ledger(executor: &ElementId, source: LedgerError) -> TaskError {
    TaskError::Ledger {
        executor: executor.clone(),
        source,
    }
}
