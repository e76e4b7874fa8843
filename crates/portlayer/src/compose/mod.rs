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
