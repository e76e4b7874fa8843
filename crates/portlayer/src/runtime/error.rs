//! What the engine can refuse.

use thiserror::Error;

/// What the engine or the kernel said, by what a caller can do about it. The engine's own text is in `text` and
/// for people only.
#[derive(Debug, Clone, Error)]
#[error("{verb} {object}: {kind}")]
pub struct RuntimeError {
    /// Class.
    pub kind: RuntimeErrorKind,
    /// What was tried.
    pub verb: &'static str,
    /// On what.
    pub object: String,
    /// The engine's or kernel's words.
    pub text: String,
}

impl RuntimeError {
    /// An error of this class.
    pub fn new(
        kind: RuntimeErrorKind,
        verb: &'static str,
        object: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            verb,
            object: object.into(),
            text: text.into(),
        }
    }
}

/// Classes of [`RuntimeError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuntimeErrorKind {
    /// The engine does not know the object.
    #[error("not found")]
    NotFound,
    /// The object is there already.
    #[error("already exists")]
    AlreadyExists,
    /// Not possible in the object's state.
    #[error("not possible in this state")]
    State,
    /// Someone else uses it.
    #[error("busy")]
    Busy,
    /// The engine cannot be reached.
    #[error("the engine is unavailable")]
    Unavailable,
    /// The engine did not answer in time; what it did is unknown until reconciled.
    #[error("the engine did not answer in time")]
    Timeout,
    /// A disk is full.
    #[error("no space left")]
    NoSpace,
    /// Kernel or engine cannot do it.
    #[error("not supported here")]
    Unsupported,
    /// The program of a task is not in its root file system.
    #[error("executable not found")]
    ExecutableNotFound,
    /// The program is there and cannot be executed.
    #[error("executable cannot be executed")]
    NotExecutable,
    /// The user or group is not known in the image.
    #[error("user or group not known in the image")]
    UnknownUser,
    /// A mount target is missing in a read-only root or is not what it must be.
    #[error("mount target {target}: {rule}")]
    MountTarget {
        /// The target.
        target: String,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The rules of an executor's network cannot be loaded: nothing of it may run.
    #[error("the firewall refused the rules")]
    Firewall,
    /// A log that is required cannot be reached, or the node's owner does not allow it.
    #[error("the log cannot be reached")]
    LogUnavailable,
    /// A program of the host listens on a port that is to be published.
    #[error("port {port} of the host is in use")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The image has something unsafe where the container's own mounts go (`/dev`, `/proc`, `/sys`).
    #[error("unsafe image: {path} is not a directory")]
    UnsafeImage {
        /// The path.
        path: &'static str,
    },
    /// Anything else; a bug of ours or of the engine.
    #[error("engine failure")]
    Internal,
}
