//! From what containerd and the kernel say to [`RuntimeError`].

use std::io;

use containerd_client::tonic::{Code, Status, TimeoutExpired};
use portlayer::runtime::{RuntimeError, RuntimeErrorKind};

/// Turns a refusal of containerd into an error of ours: `call().await.map_err(refused("create container", id))`.
pub(crate) fn refused(
    verb: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(Status) -> RuntimeError {
    move |status| RuntimeError::new(kind_of(&status), verb, object, status.message())
}

/// Turns a failed system call into an error of ours.
pub(crate) fn failed(
    verb: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => RuntimeErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => RuntimeErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RuntimeErrorKind::NoSpace,
            io::ErrorKind::ResourceBusy => RuntimeErrorKind::Busy,
            io::ErrorKind::TimedOut => RuntimeErrorKind::Timeout,
            io::ErrorKind::Unsupported => RuntimeErrorKind::Unsupported,
            _ => RuntimeErrorKind::Internal,
        };
        RuntimeError::new(kind, verb, object, error.to_string())
    }
}

/// True when containerd says the object is not there, which every deleting call takes for success.
pub(crate) fn is_missing(status: &Status) -> bool {
    status.code() == Code::NotFound
}

/// Whether it was made on this side because the connection broke. A deadline of ours that passed is told in the same way.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| !source.is::<TimeoutExpired>())
}

/// containerd passes what runc and the kernel said as code Unknown and text; the text is looked at here and nowhere else
/// (texts of containerd 1.6 to 2.3 and runc 1.1 to 1.3).
fn kind_of(status: &Status) -> RuntimeErrorKind {
    let text = status.message();
    match status.code() {
        // What containerd says has no cause on this side: the connection broke, with it or before its answer.
        Code::Unknown | Code::Internal | Code::Cancelled if is_broken(status) => {
            RuntimeErrorKind::Unavailable
        }
        Code::NotFound => RuntimeErrorKind::NotFound,
        Code::AlreadyExists => RuntimeErrorKind::AlreadyExists,
        Code::FailedPrecondition => RuntimeErrorKind::State,
        Code::Unavailable => RuntimeErrorKind::Unavailable,
        // A deadline of ours is reported as Cancelled by tonic, one of the server as DeadlineExceeded.
        Code::DeadlineExceeded | Code::Cancelled => RuntimeErrorKind::Timeout,
        Code::Unimplemented => RuntimeErrorKind::Unsupported,
        _ if text.contains("no space left on device") => RuntimeErrorKind::NoSpace,
        _ if text.contains("executable file not found") => RuntimeErrorKind::ExecutableNotFound,
        _ if text.contains("exec: ") && text.contains("no such file or directory") => {
            RuntimeErrorKind::ExecutableNotFound
        }
        _ if text.contains("exec: ") && text.contains("permission denied") => {
            RuntimeErrorKind::NotExecutable
        }
        _ if text.contains("exec format error") => RuntimeErrorKind::NotExecutable,
        _ if text.contains("process already finished") || text.contains("not running") => {
            RuntimeErrorKind::State
        }
        _ if text.contains("cannot exec in a") || text.contains("container is not created") => {
            RuntimeErrorKind::State
        }
        _ => RuntimeErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_arrives_as_text() {
        let status = Status::unknown("write /x/meta.db: no space left on device");
        assert_eq!(
            refused("create", "x")(status).kind,
            RuntimeErrorKind::NoSpace
        );
    }

    #[test]
    fn texts_of_runc() {
        let missing = Status::unknown(
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": executable file not found in $PATH: unknown",
        );
        assert_eq!(kind_of(&missing), RuntimeErrorKind::ExecutableNotFound);
        let forbidden = Status::unknown(
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/etc/passwd\": permission denied: unknown",
        );
        assert_eq!(kind_of(&forbidden), RuntimeErrorKind::NotExecutable);
        assert_eq!(
            kind_of(&Status::unknown("something else")),
            RuntimeErrorKind::Internal
        );
    }
}
