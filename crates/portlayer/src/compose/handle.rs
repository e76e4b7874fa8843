//! The handle: an owned, serialisable list of edits over an executor as it was at one revision.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::element::{ElementId, Kind};
use crate::network::NetworkUse;
use crate::store::Access;
use crate::task::{Limits, LogChoice, RestartPolicy, StopSpec};

/// A composition being edited. Nothing on the node knows of it: it can be kept, copied, sent over a wire and
/// thrown away. Committing it twice is harmless: the second commit finds nothing to do or is [stale].
///
/// [stale]: crate::compose::CommitError::Stale
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handle {
    /// The executor being composed.
    pub(crate) executor: ElementId,
    /// Its revision when the handle was opened.
    pub(crate) revision: u64,
    /// The edits, in order.
    pub(crate) ops: Vec<Op>,
}

/// One edit, with the revision the element had when the edit was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Take part.
    Join {
        /// What.
        id: ElementId,
        /// In which role.
        how: JoinHow,
        /// Revision seen.
        revision: u64,
    },
    /// Activate; `None` = everything joined.
    Bind {
        /// What.
        id: Option<ElementId>,
        /// Settings.
        how: BindHow,
    },
    /// Deactivate; `None` = everything bound.
    Unbind {
        /// What.
        id: Option<ElementId>,
    },
    /// No longer take part.
    Leave {
        /// What.
        id: ElementId,
    },
}

/// The role an element takes; must match its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinHow {
    /// An image as root file system. `target` must be `/`.
    Image {
        /// Where; only `/`.
        target: String,
        /// Read-only roots get a snapshot view and refuse missing mount points at commit.
        access: Access,
    },
    /// A volume at a path.
    Volume {
        /// Absolute path inside the executor.
        target: String,
        /// Read-write or read-only.
        access: Access,
        /// A directory below the volume's root to mount instead of it; resolved inside the volume.
        sub_path: Option<String>,
        /// Before the first mount, fill an empty volume with what the image has at the target.
        copy_up: bool,
        /// Non-persistent use: a fresh tmpfs of at most this many bytes instead of the volume's bytes (0 = default
        /// size). `None` = the volume itself.
        tmpfs_bytes: Option<u64>,
    },
    /// A task; its definition is copied at join.
    Task,
    /// A network, and what the executor asks of it.
    Network(NetworkUse),
    /// A log destination; streams that name none go to every bound one.
    Log,
}

impl JoinHow {
    /// An image at `/`, writable.
    pub fn root() -> Self {
        JoinHow::Image {
            target: "/".into(),
            access: Access::ReadWrite,
        }
    }

    /// An image at `/`, read-only.
    pub fn read_only_root() -> Self {
        JoinHow::Image {
            target: "/".into(),
            access: Access::ReadOnly,
        }
    }

    /// A volume at `target`, writable.
    pub fn volume(target: impl Into<String>) -> Self {
        JoinHow::Volume {
            target: target.into(),
            access: Access::ReadWrite,
            sub_path: None,
            copy_up: false,
            tmpfs_bytes: None,
        }
    }

    /// A volume at `target`, read-only.
    pub fn read_only_volume(target: impl Into<String>) -> Self {
        JoinHow::Volume {
            target: target.into(),
            access: Access::ReadOnly,
            sub_path: None,
            copy_up: false,
            tmpfs_bytes: None,
        }
    }

    /// A network as it is configured, with nothing published.
    pub fn network() -> Self {
        JoinHow::Network(NetworkUse::default())
    }

    /// The kind this role is for.
    pub fn kind(&self) -> Kind {
        match self {
            JoinHow::Image { .. } => Kind::Image,
            JoinHow::Volume { .. } => Kind::Volume,
            JoinHow::Task => Kind::Task,
            JoinHow::Network(_) => Kind::Network,
            JoinHow::Log => Kind::Log,
        }
    }
}

/// Settings of a bind; must match the kind of what is bound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindHow {
    /// Nothing to say.
    #[default]
    Plain,
    /// Of a task.
    Task(TaskBind),
    /// Of the executor itself: limits.
    Executor(Limits),
}

/// What a bind may set about a task; `None` keeps what the definition says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskBind {
    /// Working directory.
    pub cwd: Option<String>,
    /// User, as in `TaskSpec::user`.
    pub user: Option<String>,
    /// Deadline in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Restart policy.
    pub restart: Option<RestartPolicy>,
    /// Stop signal and grace.
    pub stop: Option<StopSpec>,
    /// Standard output.
    pub stdout: Option<LogChoice>,
    /// Standard error.
    pub stderr: Option<LogChoice>,
}

/// A token that is no handle.
#[derive(Debug, Error)]
#[error("the handle token cannot be read")]
pub struct HandleError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Handle {
    /// The executor being composed.
    pub fn executor(&self) -> &ElementId {
        &self.executor
    }

    /// The executor's revision the edits are made over.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The edits, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// An opaque token for a wire or a file.
    pub fn to_token(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a handle holds only strings, numbers and lists")
    }

    /// Reads a token back. The ids in it are checked again; whether it can be committed is commit's to say.
    pub fn from_token(token: &[u8]) -> Result<Self, HandleError> {
        serde_json::from_slice(token).map_err(|source| HandleError(Box::new(source)))
    }
}
