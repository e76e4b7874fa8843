//! Ending a process in stages.

use std::time::Duration;

use super::node::{Board, Cause, Node};
use super::patience::patiently;
use crate::element::ElementId;
use crate::runtime::{Delivery, ProcessId, RuntimeError, SignalScope};
use crate::task::ExitReason;

/// A process to stop and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stop {
    /// Its executor.
    pub(crate) executor: ElementId,
    /// The process.
    pub(crate) process: ProcessId,
    /// First of its container.
    pub(crate) primary: bool,
    /// First signal.
    pub(crate) signal: i32,
    /// Milliseconds until SIGKILL.
    pub(crate) grace_ms: u64,
    /// What its exit record will say.
    pub(crate) reason: ExitReason,
}

pub(crate) const SIGKILL: i32 = 9;

/// How long a commit waits after SIGKILL: a process in an uninterruptible call (a hung network mount) may never end.
/// Shorter in tests, which have no such process.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

impl Stop {
    /// Sends the first signal. When it cannot be delivered for a fault of the engine, SIGKILL follows at once.
    pub(crate) async fn begin(&self, node: &Node, board: &Board) -> Result<Delivery, RuntimeError> {
        let cause = Cause::Stopped(self.reason);
        board.note(&self.process, cause);
        let first = patiently(|| self.signal(node, self.signal)).await;
        let delivery = match first {
            Err(_) if self.signal != SIGKILL => self.signal(node, SIGKILL).await,
            other => other,
        };
        if !matches!(delivery, Ok(Delivery::Delivered)) {
            board.forget(&self.process, cause);
        }
        delivery
    }

    /// After [`Stop::begin`] delivered: waits for the end, and kills when the grace is over.
    pub(crate) async fn finish(&self, node: &Node) {
        let end = node.runtime.wait_process(&self.process, self.primary);
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(self.grace_ms), end).await {
            return;
        }
        let mut pause = Duration::from_millis(50);
        // An engine that is away for a moment must not let a task outlive its stop.
        while let Err(error) = self.signal(node, SIGKILL).await {
            tracing::warn!(process = %self.process.name, %error, "killing a task that outlived its grace failed");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Both stages.
    pub(crate) async fn run(&self, node: &Node, board: &Board) -> Result<Delivery, RuntimeError> {
        let delivery = self.begin(node, board).await?;
        if delivery == Delivery::Delivered {
            self.finish(node).await;
        }
        Ok(delivery)
    }

    async fn signal(&self, node: &Node, signal: i32) -> Result<Delivery, RuntimeError> {
        let runtime = &node.runtime;
        let delivery = runtime
            .signal(&self.process, self.primary, signal, SignalScope::Process)
            .await?;
        if signal == SIGKILL && delivery == Delivery::Delivered {
            node.note_thawed(&self.executor).await;
        }
        Ok(delivery)
    }
}
