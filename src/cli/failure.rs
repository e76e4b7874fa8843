//! What went wrong, for people and for scripts: one line and an exit code.

use std::fmt;
use std::process::ExitCode;

use portlayer::OpenError;
use portlayer::compose::{CommitError, ComposeError, StepError};
use portlayer::error::{
    CreateError, DeleteError, Error, ErrorKind, LocationError, ReadError, UpdateError,
};
use portlayer::ledger::LedgerError;
use portlayer::runtime::RuntimeError;
use portlayer_node::CloseError;
use portlayer_node::config::ConfigError;
use portlayer_runtime::EngineError;

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

    /// The words of the engine or kernel, where it failed.
    fn engine_said(&self) -> Option<&str> {
        self.error
            .chain()
            .find_map(|cause| {
                let any = cause.downcast_ref::<Error>().and_then(|error| match error {
                    Error::Runtime(runtime) => Some(runtime),
                    Error::Commit(CommitError::Step {
                        source: StepError::Runtime(runtime),
                        ..
                    }) => Some(runtime),
                    _ => None,
                });
                any.or_else(|| cause.downcast_ref::<RuntimeError>())
                    .or_else(|| match cause.downcast_ref::<StepError>() {
                        Some(StepError::Runtime(runtime)) => Some(runtime),
                        _ => None,
                    })
            })
            .map(|runtime| runtime.text.as_str())
            .filter(|text| !text.is_empty())
    }

    /// As a failure of a command that mirrors a task's exit code: 125, unless the program is to blame.
    #[must_use]
    pub(crate) fn of_own(mut self) -> Self {
        if ![NOT_EXECUTABLE, NOT_FOUND].contains(&self.exit) {
            self.exit = OWN_FAILURE;
        }
        self
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
            if let Some(said) = self.engine_said() {
                lines.push_str("\n  engine: ");
                lines.push_str(&super::output::escape::escape_message(said));
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
            parts.extend(self.engine_said().map(str::to_owned));
            parts.join(": ").replace('\n', " ")
        };
        if let Some(hint) = &self.hint {
            text.push_str(if debug { "\n  " } else { "; " });
            text.push_str(hint);
        }
        text
    }
}

/// A failed call of the port layer, with what to do about it.
pub(crate) fn fail<E>(error: E) -> Failure
where
    Error: From<E>,
{
    let error = Error::from(error);
    let kind = error.kind();
    let hint = hint(&error);
    let mut failure = Failure::new(kind, error);
    failure.hint = hint;
    failure
}

/// What a person can do about an error, where that is not plain from its text.
fn hint(error: &Error) -> Option<String> {
    let location = |error: &LocationError| match error {
        LocationError::Unknown { .. } | LocationError::WrongKind { .. } => {
            Some("`portlayer info` lists the locations".to_owned())
        }
        LocationError::Policy { .. } | LocationError::Unavailable { .. } => None,
    };
    match error {
        Error::Location(error)
        | Error::Create(CreateError::Location(error))
        | Error::Read(ReadError::Location(error))
        | Error::Update(UpdateError::Location(error))
        | Error::Delete(DeleteError::Location(error)) => location(error),
        Error::Create(CreateError::AlreadyExists { id, .. }) => Some(format!(
            "see it with `portlayer show {id}` or choose another name"
        )),
        Error::Create(CreateError::UnknownParent { parent: id, .. })
        | Error::Read(ReadError::NotFound { id })
        | Error::Update(UpdateError::NotFound { id })
        | Error::Delete(DeleteError::NotFound { id })
        | Error::Compose(ComposeError::Read(ReadError::NotFound { id })) => {
            Some(format!("`portlayer {} ls` lists what is there", id.kind()))
        }
        Error::Delete(DeleteError::InUse { .. }) => {
            Some("remove those first, or take it out of their composition".to_owned())
        }
        Error::Delete(DeleteError::InvalidState { id, .. }) => Some(format!(
            "stop it first (`portlayer stop {id}`) or use --force"
        )),
        Error::Commit(CommitError::Stale { .. }) => {
            Some("open the executor again and repeat the edits".to_owned())
        }
        Error::Commit(CommitError::NoRoot { .. }) => {
            Some("join an image, or image://builtin/scratch for an empty root".to_owned())
        }
        Error::Open(OpenError::Ledger(LedgerError::Locked { .. }))
        | Error::Ledger(LedgerError::Locked { .. }) => {
            Some("another portlayer command runs on this node; wait for it to end".to_owned())
        }
        Error::Read(ReadError::Quarantined { .. })
        | Error::Update(UpdateError::Quarantined { .. }) => {
            Some("`portlayer verify` lists what is damaged".to_owned())
        }
        _ => None,
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

impl From<portlayer_node::OpenError> for Failure {
    fn from(error: portlayer_node::OpenError) -> Self {
        use portlayer_node::OpenError as Open;
        match error {
            Open::PortLayer(error) => fail(error),
            Open::Engine(error) => error.into(),
            Open::Runtime(error) => fail(error),
            Open::Location { .. } => Failure::new(ErrorKind::Unavailable, error),
        }
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::Engine(error) => error.into(),
            error @ CloseError::InUse(_) => Failure::new(ErrorKind::Internal, error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let hint = match &error {
            EngineError::InUse(_) => {
                Some("another portlayer command runs on this node; wait for it to end")
            }
            EngineError::PathTooLong(_) => Some("choose a shorter --data-dir"),
            EngineError::Program { .. } => Some(
                "install containerd and runc, or name them with PORTLAYER_CONTAINERD and PORTLAYER_RUNC",
            ),
            EngineError::Ended { .. }
            | EngineError::Silent { .. }
            | EngineError::Networks { .. }
            | EngineError::Io { .. } => None,
        };
        let mut failure = Failure::new(ErrorKind::Unavailable, error);
        failure.hint = hint.map(str::to_owned);
        failure
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
    fn errors_of_the_port_layer_have_codes_and_hints() {
        let id: portlayer::element::ElementId = "image://images/x".parse().expect("an id");
        let missing = fail(ReadError::NotFound { id: id.clone() });
        assert_eq!(missing.code(), 3);
        assert_eq!(
            missing.text(false),
            "image://images/x does not exist; `portlayer image ls` lists what is there"
        );
        let used = fail(DeleteError::InUse {
            id: id.clone(),
            by: vec![id],
        });
        assert_eq!(used.code(), 5);
        assert!(used.text(false).contains("in use by image://images/x"));
    }

    #[test]
    fn a_closed_pipe_is_known() {
        let closed: Failure = std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        assert!(closed.is_broken_pipe());
        assert!(!Failure::usage("x").is_broken_pipe());
    }
}
