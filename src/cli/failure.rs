//! What went wrong, for people and for scripts: one line and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use portlayer::element::ElementId;
use portlayer::error::{Error, ErrorKind};
use portlayer_client::wire::Fault;
use portlayer_node::CloseError;
use portlayer_node::config::ConfigError;
use portlayer_runtime::EngineError;

use super::output::escape::escape_message;

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

    /// As if this signal had ended us.
    pub(crate) fn of_signal(number: i32) -> Self {
        Exit(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }
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
    /// Somebody else has the data directory open.
    in_use: bool,
}

impl Failure {
    /// The command line asks for something that cannot be (exit code 2).
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self {
            error: anyhow::anyhow!("{text}"),
            exit: 2,
            hint: None,
            in_use: false,
        }
    }

    /// A failure of this class.
    pub(crate) fn new(kind: ErrorKind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            exit: exit_code(kind),
            hint: None,
            in_use: false,
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

    /// Whether somebody else has the data directory open.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// Somebody closed our standard output: no failure of ours to talk about. A daemon that closed its socket is one.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let called =
            |cause: &(dyn std::error::Error + 'static)| cause.is::<portlayer_client::Error>();
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
        };
        !self.error.chain().any(called) && self.error.chain().any(closed)
    }

    /// The refusal of the port layer, if it is one.
    fn fault(&self) -> Option<&Fault> {
        let mut causes = self.error.chain();
        causes.find_map(|cause| cause.downcast_ref::<portlayer_client::Error>()?.fault())
    }

    /// As a failure of a command that mirrors a task's exit code: 125, unless the program is to blame.
    #[must_use]
    pub(crate) fn of_own(mut self) -> Self {
        if ![NOT_EXECUTABLE, NOT_FOUND].contains(&self.exit) {
            self.exit = OWN_FAILURE;
        }
        self
    }

    /// One line: what, which id, why, what to do; with `debug` a line for every cause and for everything the error
    /// knows.
    pub(crate) fn text(&self, debug: bool) -> String {
        let mut text = if debug {
            let causes = self.error.chain();
            let mut lines = causes.map(|cause| escape_message(&cause.to_string()));
            let first = lines.next().unwrap_or_default();
            let mut text = lines.fold(first, |text, cause| text + "\n  because " + &cause);
            for (name, value) in self.fault().map(facts).unwrap_or_default() {
                text.push_str(&format!("\n  {name}: {}", escape_message(&value)));
            }
            text
        } else {
            let mut parts: Vec<String> = Vec::new();
            for cause in self.error.chain() {
                let text = cause.to_string();
                // A transparent cause repeats its wrapper.
                if parts.last().is_none_or(|last| !last.ends_with(&text)) {
                    parts.push(text);
                }
                // It says what there is to say; its causes are the transport's.
                if cause.is::<portlayer_client::Error>() {
                    break;
                }
            }
            let said = self.fault().and_then(|fault| fault.details.get("engine"));
            parts.extend(said.cloned());
            parts.join(": ").replace('\n', " ")
        };
        if let Some(hint) = &self.hint {
            text.push_str(if debug { "\n  " } else { "; " });
            text.push_str(hint);
        }
        text
    }
}

/// Everything a refusal knows besides its text, by name.
fn facts(fault: &Fault) -> Vec<(&str, String)> {
    let mut facts = vec![("reason", fault.reason.clone())];
    facts.extend(fault.element.iter().map(|id| ("element", id.to_string())));
    facts.extend(fault.field.iter().map(|field| ("field", field.clone())));
    let details = fault.details.iter();
    facts.extend(details.map(|(name, value)| (name.as_str(), value.clone())));
    facts
}

/// What the port layer in this process refused, as its server would tell it.
pub(crate) fn refused<E>(error: E) -> Failure
where
    Error: From<E>,
{
    portlayer_client::Error::from(Fault::of(Error::from(error))).into()
}

impl From<portlayer_client::Error> for Failure {
    fn from(error: portlayer_client::Error) -> Self {
        use portlayer_client::Error as Call;
        let hint = match &error {
            Call::Refused(fault) => hint(&fault.reason, fault.element.as_ref()),
            Call::Lost(_) | Call::Deadline { .. } | Call::Short(_) => {
                Some("whether it was done is not known: look before you repeat it".to_owned())
            }
            Call::Answer(_) | Call::Status(_) => {
                Some("`portlayer version` shows the versions of both sides".to_owned())
            }
            _ => None,
        };
        let in_use = error.reason() == IN_USE;
        let mut failure = Failure::new(error.kind(), error);
        failure.hint = hint;
        failure.in_use = in_use;
        failure
    }
}

/// The reason of a ledger another process has open.
const IN_USE: &str = "ledger_locked";
/// What to do then, when it is no daemon.
const WAIT: &str = "another portlayer process has this data directory open; wait for it to end";

/// What a person can do about a refusal, where that is not plain from its text.
fn hint(reason: &str, element: Option<&ElementId>) -> Option<String> {
    let text = match (reason, element) {
        ("unknown_location" | "location_kind", _) => "`portlayer info` lists the locations",
        ("already_exists", Some(id)) => {
            return Some(format!(
                "see it with `portlayer show {id}` or choose another name"
            ));
        }
        ("not_found" | "unknown_parent", Some(id)) => {
            return Some(format!("`portlayer {} ls` lists what is there", id.kind()));
        }
        ("in_use", _) => "remove those first, or take it out of their composition",
        ("stale", _) => "open the executor again and repeat the edits",
        ("no_root", _) => "join an image, or image://builtin/scratch for an empty root",
        (IN_USE, _) => WAIT,
        ("quarantined", _) => "`portlayer verify` lists what is damaged",
        ("draining", _) => "the daemon is about to end; repeat when it is back",
        _ => return None,
    };
    Some(text.to_owned())
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
            Open::PortLayer(error) => refused(error),
            Open::Engine(error) => error.into(),
            Open::Runtime(error) => refused(error),
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
            EngineError::InUse(_) => Some(WAIT),
            EngineError::PathTooLong(_) => Some("choose a shorter --data-dir"),
            EngineError::Program { .. } => Some(
                "install containerd and runc, or name them with PORTLAYER_CONTAINERD and PORTLAYER_RUNC",
            ),
            EngineError::Ended { .. }
            | EngineError::Silent { .. }
            | EngineError::Networks { .. }
            | EngineError::Io { .. } => None,
        };
        let in_use = matches!(error, EngineError::InUse(_));
        let mut failure = Failure::new(ErrorKind::Unavailable, error);
        failure.hint = hint.map(str::to_owned);
        failure.in_use = in_use;
        failure
    }
}

impl From<io::Error> for Failure {
    /// An error in the middle of a stream of the client's is the client's.
    fn from(error: io::Error) -> Self {
        match error.downcast::<portlayer_client::Error>() {
            Ok(error) => error.into(),
            Err(error) => Failure::new(ErrorKind::Internal, error),
        }
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
    use portlayer::error::{DeleteError, ReadError};

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
    fn refusals_have_codes_hints_and_facts() {
        let id: ElementId = "image://images/x".parse().unwrap();
        let missing = refused(ReadError::NotFound { id: id.clone() });
        assert_eq!(missing.code(), 3);
        assert_eq!(
            missing.text(false),
            "image://images/x does not exist; `portlayer image ls` lists what is there"
        );
        let used = refused(DeleteError::InUse {
            id: id.clone(),
            by: vec![id],
        });
        assert_eq!(used.code(), 5);
        assert!(used.text(false).contains("in use by image://images/x"));
        let facts = used.text(true);
        for fact in ["reason: in_use", "element: image://images/x", "by_count: 1"] {
            assert!(facts.lines().any(|line| line.trim() == fact), "{facts}");
        }
    }

    #[test]
    fn a_stream_that_breaks_says_what_the_other_side_said() {
        let id: ElementId = "image://images/x".parse().unwrap();
        let refused = portlayer_client::Error::from(Fault::of(ReadError::NotFound { id }));
        let failure = Failure::from(io::Error::from(refused));
        assert_eq!(failure.code(), 3);
        assert!(!failure.is_broken_pipe());
    }

    #[test]
    fn a_closed_pipe_is_known() {
        let closed: Failure = std::io::Error::from(std::io::ErrorKind::BrokenPipe).into();
        assert!(closed.is_broken_pipe());
        assert!(!Failure::usage("x").is_broken_pipe());
    }
}
