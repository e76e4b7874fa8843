//! The names the port layer gives to things in the engine: derived from elements, so that a repeated call finds what
//! the first made.

use serde::{Deserialize, Serialize};

use crate::element::ElementId;

/// Digits of the executor's digest in the name of a container.
const DIGITS: usize = 20;

/// The engine's name of one start of an executor: `<executor digest, 20 hex digits>-<generation>`. Deterministic,
/// and short enough for containerd (76 characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// The name of the `generation`th start of this executor.
    pub fn new(executor: &ElementId, generation: u32) -> Self {
        Self(format!("{}-{generation}", &executor.digest_hex()[..DIGITS]))
    }

    /// Reads a name back from the engine; whether it is one of ours is for the labels to say.
    pub fn from_engine(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Reads a name that has the form of ours; `None` for any other, also of a lease or a snapshot of something else.
    pub fn parse(name: &str) -> Option<Self> {
        let (digest, generation) = name.split_once('-')?;
        let ours = digest.len() == DIGITS
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !generation.is_empty()
            && generation.bytes().all(|byte| byte.is_ascii_digit());
        ours.then(|| Self(name.to_owned()))
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

/// The lease that protects what one commit makes until a record in the engine does.
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

    /// The container a lease of this name is for; `None` when it is no commit's.
    pub fn container_of(lease: &str) -> Option<ContainerId> {
        let (container, revision) = lease.strip_prefix("pl-")?.rsplit_once("-r")?;
        let number = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_digit());
        ContainerId::parse(container).filter(|_| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_its_container() {
        let executor = "executor://x/a".parse().unwrap();
        let container = ContainerId::new(&executor, 12);
        let scope = Scope::new(&container, 7);
        assert_eq!(Scope::container_of(scope.as_str()), Some(container));
        for other in [
            "pl-image-00",
            "pl-export-r1",
            "x-1-r1",
            "pl-00112233445566778899-1",
            "pl-00112233445566778899--r1",
            "",
        ] {
            assert_eq!(Scope::container_of(other), None, "{other}");
        }
    }
}
