//! What a running executor uses.

use super::{TaskError, runtime};
use crate::PortLayer;
use crate::element::{ElementId, State};
use crate::runtime::{ContainerId, ContainerStats};

impl PortLayer {
    /// What a running executor uses now. Errors: `Compose` (no such executor), `Idle`, `Runtime`.
    pub async fn stats(&self, executor: &ElementId) -> Result<ContainerStats, TaskError> {
        let (record, body) = self.shared.composer.node.executor(executor)?;
        if !matches!(record.state, State::Running | State::Paused) {
            return Err(TaskError::Idle {
                executor: executor.clone(),
            });
        }
        let container = ContainerId::new(executor, body.composition.generation);
        let stats = self.shared.runtime.stats(&container).await;
        stats.map_err(|source| runtime(executor, executor, source))
    }
}
