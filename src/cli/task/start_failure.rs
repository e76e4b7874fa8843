//! Failed starts as exit codes: 127 and 126 are about the program, 125 is about us.

use portlayer_client::Error;

use crate::cli::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE};

/// A commit that was to start a task.
pub(super) fn of(error: Error) -> Failure {
    let code = match error.reason() {
        "executable_not_found" => NOT_FOUND,
        "not_executable" => NOT_EXECUTABLE,
        _ => OWN_FAILURE,
    };
    Failure::from(error).exit(code)
}
