//! The names the port layer gives to things in the engine: derived from elements, so that a repeated call finds what
//! the first made.

use serde::{Deserialize, Serialize};

use crate::element::ElementId;

/// The engine's name of one start of an executor: `<executor digest, 20 hex digits>-<generation>`. Deterministic,
/// and short enough for containerd (76 characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// The name of the `generation`th start of this executor.
    pub fn new(executor: &ElementId, generation: u32) -> Self {
        Self(format!("{}-{generation}", &executor.digest_hex()[..20]))
    }

    /// Reads a name back from the engine; whether it is one of ours is for the labels to say.
    pub fn from_engine(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One run of a task: its container and a name within it, `<task digest, 16 hex digits>-<run>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The container.
    pub container: ContainerId,
    /// Name within the container; for the primary process only our name, the engine knows it as the container.
    pub name: String,
}

impl ProcessId {
    /// The name of one run of a task.
    pub fn new(container: ContainerId, task: &ElementId, run: u32) -> Self {
        Self {
            container,
            name: format!("{}-{run}", &task.digest_hex()[..16]),
        }
    }
}

/// The lease that protects what one commit makes until its record is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope(String);

impl Scope {
    /// The scope of one commit of an executor.
    pub fn new(container: &ContainerId, revision: u64) -> Self {
        Self(format!("pl-{}-r{revision}", container.as_str()))
    }

    /// The name of the lease.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
