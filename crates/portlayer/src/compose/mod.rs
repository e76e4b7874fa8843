//! Composition: elements become a running container.
//!
//! [`Handle`] is a value: join, bind, unbind and leave only add operations to it. Commit is the only call that
//! changes the node: fold the operations over what is committed, validate all of it, compute the difference, run
//! the steps with their undos.

mod adopt;
mod capabilities;
mod commit;
mod composition;
mod diff;
mod documents;
mod draft;
mod driver;
mod error;
mod fields;
mod handle;
mod intent;
mod interact;
mod live;
mod network;
mod node;
mod oci;
mod output;
mod patience;
mod prepare;
mod record;
mod result;
mod seccomp;
mod security;
mod steps;
mod stop;
mod validate;
mod verbs;

#[doc(hidden)]
pub use documents::documents;

pub use composition::{Composition, Joined, Role, Run, RunState};
pub use diff::{Change, Plan, Step};
pub use error::{CommitError, ComposeError, StepError};
pub use handle::{BindHow, Handle, HandleError, JoinHow, Op, TaskBind};
pub use interact::{Attached, Interrupt, Interrupted, TaskError};
pub use result::{CommitResult, ElementResult, RunId};
pub use security::Security;

pub(crate) use fields::check_absolute;
pub(crate) use intent::Intent;
#[cfg(test)]
pub(crate) use intent::Rest;
pub(crate) use node::Composer;
pub(crate) use patience::patiently;
pub(crate) use record::unclaim;

#[cfg(test)]
mod tests;
