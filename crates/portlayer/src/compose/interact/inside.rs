//! The file system of a running executor.

use super::{TaskError, runtime};
use crate::PortLayer;
use crate::element::ElementId;
use crate::runtime::{ContainerId, Inside};

impl PortLayer {
    /// Opens the file system of a running executor as its tasks see it, volumes included: for what is put into it and
    /// taken out of it from outside. Whatever is in it belongs to the tasks and is not to be trusted.
    ///
    /// Errors: `Compose` (no such executor), `Runtime` (`NotFound`, `State`: it does not run).
    pub async fn inside(&self, executor: &ElementId) -> Result<Inside, TaskError> {
        let (_, body) = self.shared.composer.node.executor(executor)?;
        let container = ContainerId::new(executor, body.composition.generation);
        let inside = self.shared.runtime.inside(&container).await;
        inside.map_err(|source| runtime(executor, executor, source))
    }
}
