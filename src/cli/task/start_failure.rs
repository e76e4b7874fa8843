//! Failed starts as exit codes: 127 and 126 are about the program, 125 is about us.

use portlayer::compose::{CommitError, StepError};
use portlayer::runtime::RuntimeErrorKind;

use crate::cli::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE, fail};

/// A commit that was to start a task.
pub(super) fn of(error: CommitError) -> Failure {
    let kind = match &error {
        CommitError::Step {
            source: StepError::Runtime(runtime),
            ..
        } => Some(&runtime.kind),
        _ => None,
    };
    let code = match kind {
        Some(RuntimeErrorKind::ExecutableNotFound) => NOT_FOUND,
        Some(RuntimeErrorKind::NotExecutable) => NOT_EXECUTABLE,
        _ => OWN_FAILURE,
    };
    fail(error).exit(code)
}
