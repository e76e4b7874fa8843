//! What went wrong, for people and for scripts: one line and an exit code.

use std::fmt;
use std::process::ExitCode;

use portlayer::error::ErrorKind;
use portlayer_node::config::ConfigError;

/// Exit code of `run`, `exec`, `attach` and `wait` for failures of our own, as docker and podman have it.
pub(crate) const OWN_FAILURE: u8 = 125;
/// Exit code of a program that cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a program that is not there.
pub(crate) const NOT_FOUND: u8 = 127;
/// Exit code when the deadline ended the task, as GNU timeout has it.
pub(crate) const DEADLINE: u8 = 124;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// All is well.
    pub(crate) const OK: Exit = Exit(0);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.0)
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

/// A failed command: the error with its causes, the class, and what to do about it where we know.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    exit: u8,
    hint: Option<String>,
}

impl Failure {
    /// The command line asks for something that cannot be (exit code 2).
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self {
            error: anyhow::anyhow!("{text}"),
            exit: 2,
            hint: None,
        }
    }

    /// A failure of this class.
    pub(crate) fn new(kind: ErrorKind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            exit: exit_code(kind),
            hint: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Says what was tried.
    #[must_use]
    pub(crate) fn context(mut self, text: String) -> Self {
        self.error = self.error.context(text);
        self
    }

    /// With this exit code.
    #[must_use]
    pub(crate) fn exit(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.exit
    }

    /// Somebody closed our standard output: no failure of ours to talk about.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }

    /// One line: what, which id, why, what to do; with `debug` a line for every cause instead of the short why.
    pub(crate) fn text(&self, debug: bool) -> String {
        let mut text = if debug {
            let mut causes = self.error.chain();
            let mut lines = causes.next().map(ToString::to_string).unwrap_or_default();
            for cause in causes {
                lines.push_str("\n  because ");
                lines.push_str(&super::output::escape::escape_message(&cause.to_string()));
            }
            lines
        } else {
            let mut parts: Vec<String> = Vec::new();
            for cause in self.error.chain().map(ToString::to_string) {
                // A transparent cause repeats its wrapper.
                if parts.last().is_none_or(|last| !last.ends_with(&cause)) {
                    parts.push(cause);
                }
            }
            parts.join(": ").replace('\n', " ")
        };
        if let Some(hint) = &self.hint {
            text.push_str(if debug { "\n  " } else { "; " });
            text.push_str(hint);
        }
        text
    }
}

/// The class of an error as an exit code. 1 is for all that is not a caller's to mend.
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Internal => 1,
        ErrorKind::InvalidArgument => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::AlreadyExists => 4,
        ErrorKind::FailedPrecondition => 5,
        ErrorKind::Aborted => 6,
        ErrorKind::PermissionDenied => 7,
        ErrorKind::ResourceExhausted => 8,
        ErrorKind::Unavailable => 9,
        ErrorKind::Unimplemented => 10,
        ErrorKind::DeadlineExceeded => 11,
        ErrorKind::DataLoss => 12,
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(ErrorKind::Internal, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::new(ErrorKind::InvalidArgument, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_and_why_and_what_to_do() {
        let cause = std::io::Error::other("disk\nis gone");
        let failure = Failure::new(ErrorKind::NotFound, cause)
            .context("reading image://images/x failed".to_owned())
            .hint("list images with `portlayer image ls`");
        assert_eq!(
            failure.text(false),
            "reading image://images/x failed: disk is gone; list images with `portlayer image ls`"
        );
        assert_eq!(failure.text(true).lines().count(), 3);
        assert_eq!(failure.code(), 3);
    }

    #[test]
    fn a_closed_pipe_is_known() {
        let closed: Failure = std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        assert!(closed.is_broken_pipe());
        assert!(!Failure::usage("x").is_broken_pipe());
    }
}
