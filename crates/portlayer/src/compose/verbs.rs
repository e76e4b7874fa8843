//! The verbs of composition on [`PortLayer`]. All but commit only look and edit a value.

use tokio::sync::oneshot;

use super::diff::Plan;
use super::draft::fold;
use super::driver::Command;
use super::fields;
use super::{BindHow, CommitError, CommitResult, ComposeError, Handle, JoinHow, Op};
use crate::PortLayer;
use crate::element::{ElementId, Record};
use crate::ledger::LedgerError;
use crate::runtime::{ContainerId, RuntimeError};

impl PortLayer {
    /// Opens a handle on an executor as it is now. Errors: `Read`, `NotAnExecutor`.
    pub async fn compose(&self, executor: &ElementId) -> Result<Handle, ComposeError> {
        let (record, _) = self.shared.composer.node.executor(executor)?;
        Ok(Handle {
            executor: executor.clone(),
            revision: record.revision,
            ops: Vec::new(),
        })
    }

    /// Lets an element take part in a role. What takes part in the same role already is no change.
    ///
    /// Errors: `Read` (unknown element or executor), `WrongRole`, `InvalidField`, `AlreadyJoined` (in another role),
    /// `ConflictsWith` (a second root, network, or volume at one target).
    pub async fn join(
        &self,
        handle: Handle,
        id: &ElementId,
        how: JoinHow,
    ) -> Result<Handle, ComposeError> {
        let revision = match how.kind() == id.kind() {
            true => self.record(id)?.revision,
            // The fold says what is wrong.
            false => 0,
        };
        let op = Op::Join {
            id: id.clone(),
            how,
            revision,
        };
        self.edit(handle, op)
    }

    /// A short form: opens a handle on an executor, lets every part join it in this order and binds all that takes part.
    /// Only commit acts on it.
    ///
    /// Errors: as [`PortLayer::compose`], [`PortLayer::join`] and [`PortLayer::bind`].
    pub async fn composed(
        &self,
        executor: &ElementId,
        parts: impl IntoIterator<Item = (&ElementId, JoinHow)> + Send,
    ) -> Result<Handle, ComposeError> {
        let parts: Vec<_> = parts.into_iter().collect();
        let mut handle = self.compose(executor).await?;
        for (id, how) in parts {
            handle = self.join(handle, id, how).await?;
        }
        self.bind(handle, None, BindHow::Plain).await
    }

    /// Activates what takes part; `None` = everything. A task that ended is started again by binding it again. With the
    /// executor's own id its limits are set. What is bound already is no change.
    ///
    /// Errors: `NotJoined`, `WrongBind`, `InvalidField`, `AlreadyBound` (with other settings).
    pub async fn bind(
        &self,
        handle: Handle,
        id: Option<&ElementId>,
        how: BindHow,
    ) -> Result<Handle, ComposeError> {
        let checked = match &how {
            BindHow::Plain => Ok(()),
            BindHow::Task(bind) => fields::check_bind(bind),
            BindHow::Executor(limits) => crate::element::fields::check_limits("limits", limits),
        };
        checked.map_err(|error| ComposeError::InvalidField {
            id: id.unwrap_or(&handle.executor).clone(),
            field: error.field,
            rule: error.rule,
        })?;
        let id = id.cloned();
        self.edit(handle, Op::Bind { id, how })
    }

    /// Deactivates what takes part; `None` = everything, the executor's own id = all its tasks. A running task is
    /// stopped in stages at commit. What is not bound is no change. Errors: `NotJoined`.
    pub async fn unbind(
        &self,
        handle: Handle,
        id: Option<&ElementId>,
    ) -> Result<Handle, ComposeError> {
        let id = id.cloned();
        self.edit(handle, Op::Unbind { id })
    }

    /// Ends an element's part. Errors: `NotJoined`, `StillBound`.
    pub async fn leave(&self, handle: Handle, id: &ElementId) -> Result<Handle, ComposeError> {
        self.edit(handle, Op::Leave { id: id.clone() })
    }

    fn edit(&self, mut handle: Handle, op: Op) -> Result<Handle, ComposeError> {
        let node = &self.shared.composer.node;
        let (_, body) = node.executor(&handle.executor)?;
        handle.ops.push(op);
        fold(
            &handle.executor,
            &body.composition,
            &handle.ops,
            node.as_ref(),
        )?;
        Ok(handle)
    }

    /// What commit would do now, step by step. Nothing is touched. Errors: as commit before its first step.
    pub async fn plan(&self, handle: &Handle) -> Result<Plan, CommitError> {
        let prepared = self.shared.composer.node.prepare(handle)?;
        let difference = &prepared.difference;
        let generation = prepared.body.composition.generation;
        let fresh = matches!(difference.action, super::diff::Action::Start(_));
        let container = ContainerId::new(&handle.executor, generation + u32::from(fresh));
        let untouched = prepared
            .draft
            .touched
            .iter()
            .map(|id| (id.clone(), Vec::new()));
        let mut elements: std::collections::BTreeMap<_, _> = untouched.collect();
        elements.extend(difference.changes.clone());
        Ok(Plan {
            executor: handle.executor.clone(),
            revision: prepared.record.revision,
            steps: difference.steps(&prepared.resolved, container.as_str()),
            elements,
        })
    }

    /// Makes it so. Runs to its end whatever the caller does; a caller that goes away finds the outcome by reading.
    ///
    /// Errors: see [`CommitError`]; up to `Stale` and with `NeedsRestart` nothing was touched, with `Step` everything
    /// done was undone. Committing the same handle again is a no-op or `Stale`.
    pub async fn commit(&self, handle: Handle) -> Result<CommitResult, CommitError> {
        let executor = handle.executor.clone();
        // Also tells early that there is no such executor, before a driver is made for it.
        self.shared.composer.node.executor(&executor)?;
        let closed = || CommitError::Ledger {
            executor: executor.clone(),
            source: LedgerError::Closed,
        };
        let (reply, answer) = oneshot::channel();
        let operation = self.operation();
        let command = Command::Commit {
            handle,
            operation,
            span: tracing::Span::current(),
            reply,
        };
        self.shared
            .composer
            .send(&executor, command)
            .await
            .ok_or_else(closed)?;
        answer.await.map_err(|_| closed())?
    }

    /// Waits until every container whose tasks have ended is taken down. What runs goes on.
    pub async fn settle(&self) {
        for executor in self.shared.composer.live() {
            self.settle_executor(&executor).await;
        }
    }

    /// A container that just ended may still be being taken down.
    async fn settle_executor(&self, executor: &ElementId) {
        let composer = &self.shared.composer;
        if composer.live_seat(executor).is_none() {
            return;
        }
        let (reply, answer) = oneshot::channel();
        if composer
            .send(executor, Command::Settle { reply })
            .await
            .is_some()
        {
            // A driver that went away has nothing left to settle.
            let _ = answer.await;
        }
    }

    /// Removes what a deleted executor left in the engine: its last container, root and logs. Called by Delete after
    /// the record is gone, never for one that runs. Idempotent.
    pub(crate) async fn remove_executor_remains(
        &self,
        record: &Record,
    ) -> Result<(), RuntimeError> {
        let crate::element::Body::Executor(executor) = &record.body else {
            return Ok(());
        };
        self.settle_executor(&record.id).await;
        let generation = executor.composition.generation;
        let purged = match generation {
            0 => Ok(()),
            _ => {
                let container = ContainerId::new(&record.id, generation);
                self.shared.runtime.purge(&container).await
            }
        };
        // Recovery finds a container without its record, but no output: that is removed whatever became of the rest.
        let removed = self.shared.runtime.remove_logs(&record.id).await;
        purged.and(removed)
    }
}
