//! Composition: elements become a running container.
//!
//! [`Handle`] is a value: join, bind, unbind and leave only add operations to it. Commit is the only call that
//! changes the node: fold the operations over what is committed, validate all of it, compute the difference, run
//! the steps with their undos.

mod composition;
mod error;
mod handle;

pub use composition::{Composition, Joined, Role, Run, RunState};
pub use error::{CommitError, ComposeError, StepError};
pub use handle::{BindHow, Handle, HandleError, JoinHow, Op, TaskBind};

use crate::PortLayer;
use crate::element::Record;
use crate::runtime::{ContainerId, RuntimeError};

impl PortLayer {
    /// Removes what a deleted executor left in the engine: its last container, root and logs. Called by Delete after
    /// the record is gone, never for one that runs. Idempotent.
    pub(crate) async fn remove_executor_remains(
        &self,
        record: &Record,
    ) -> Result<(), RuntimeError> {
        let crate::element::Body::Executor(executor) = &record.body else {
            return Ok(());
        };
        if executor.composition.generation > 0 {
            let container = ContainerId::new(&record.id, executor.composition.generation);
            self.shared.runtime.purge(&container).await?;
        }
        self.shared.runtime.remove_logs(&record.id).await
    }
}
