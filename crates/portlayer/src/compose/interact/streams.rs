//! Exec, logs, attach, resize.

use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::{Running, TaskError, find, runtime};
use crate::PortLayer;
use crate::compose::{BindHow, CommitError, ComposeError, JoinHow, Role, RunId, TaskBind};
use crate::element::ElementId;
use crate::runtime::{LogProgress, LogQuery, LogReader, LogStreams, RuntimeError};

/// A running task's streams.
pub struct Attached {
    /// Its output as it is stored; ends when the task ended and all is read.
    pub output: LogReader,
    /// Its standard input; dropping it closes the input. `None` when the task has none.
    pub input: Option<DuplexStream>,
    /// Tells how feeding the input ended; `Busy` at once when someone else feeds it.
    pub input_ended: Option<oneshot::Receiver<Result<(), RuntimeError>>>,
}

impl PortLayer {
    /// Starts one more task in an executor: join, bind and commit in one. A task that takes part already and ended is
    /// started again. Returns the run; errors as of commit.
    pub async fn exec(
        &self,
        executor: &ElementId,
        task: &ElementId,
        bind: TaskBind,
    ) -> Result<RunId, CommitError> {
        let handle = self.compose(executor).await?;
        let handle = self.join(handle, task, JoinHow::Task).await?;
        let handle = self.bind(handle, Some(task), BindHow::Task(bind)).await?;
        let result = self.commit(handle).await?;
        let started = result.runs.into_iter().find(|run| run.task == *task);
        started.ok_or_else(|| ComposeError::AlreadyBound { id: task.clone() }.into())
    }

    /// Stored output. Errors: `Compose` (no such executor, the task never took part), `Runtime`.
    pub async fn logs(&self, query: &LogQuery) -> Result<LogReader, TaskError> {
        let (executor, task) = (&query.executor, &query.task);
        self.has_taken_part(executor, task)?;
        let reader = self.shared.runtime.logs(query).await;
        reader.map_err(|source| runtime(executor, task, source))
    }

    /// How far the logs have got that a task's output is sent on to (journald, syslog), and what was dropped on the way; in the
    /// order of their ids. Errors: `Compose` (no such executor, the task never took part), `Runtime`.
    pub async fn log_progress(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> Result<Vec<LogProgress>, TaskError> {
        self.has_taken_part(executor, task)?;
        let progress = self.shared.runtime.log_progress(executor, task).await;
        progress.map_err(|source| runtime(executor, task, source))
    }

    fn has_taken_part(&self, executor: &ElementId, task: &ElementId) -> Result<(), TaskError> {
        let (_, body) = self.shared.composer.node.executor(executor)?;
        let known =
            body.composition.joined.contains_key(task) || body.composition.runs.contains_key(task);
        if !known {
            self.last_run(executor, task)?;
        }
        Ok(())
    }

    /// Attaches to a running task: output from now on (with `replay` from its stored beginning), and its input when
    /// `stdin` is wanted and the task has one. Any number may read; one may write.
    ///
    /// Errors: `Compose`, `NotRunning`, `Runtime`.
    pub async fn attach(
        &self,
        executor: &ElementId,
        task: &ElementId,
        replay: bool,
        stdin: bool,
    ) -> Result<Attached, TaskError> {
        let (running, interactive) = self.running_process(executor, task)?;
        let query = LogQuery {
            executor: executor.clone(),
            task: task.clone(),
            streams: LogStreams::Both,
            since: None,
            tail: (!replay).then_some(0),
            follow: true,
        };
        let output = self.logs(&query).await?;
        if !(stdin && interactive) {
            return Ok(Attached {
                output,
                input: None,
                input_ended: None,
            });
        }
        let (input, read) = tokio::io::duplex(64 * 1024);
        let (ended, input_ended) = oneshot::channel();
        let runtime = self.shared.runtime.clone();
        tokio::spawn(async move {
            let fed = runtime
                .write_stdin(&running.process, running.primary, Box::pin(read))
                .await;
            // Nobody needs to ask.
            let _ = ended.send(fed);
        });
        Ok(Attached {
            output,
            input: Some(input),
            input_ended: Some(input_ended),
        })
    }

    /// Sets the size of a running task's terminal. Errors: `Compose`, `NotRunning`, `Runtime` (`State`: no terminal).
    pub async fn resize(
        &self,
        executor: &ElementId,
        task: &ElementId,
        columns: u16,
        rows: u16,
    ) -> Result<(), TaskError> {
        let (running, _) = self.running_process(executor, task)?;
        let resized = self
            .shared
            .runtime
            .resize(&running.process, running.primary, columns, rows)
            .await;
        resized.map_err(|source| runtime(executor, task, source))
    }

    fn running_process(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> Result<(Running, bool), TaskError> {
        let (_, body) = self.shared.composer.node.executor(executor)?;
        let running =
            find(executor, &body.composition, task).ok_or_else(|| TaskError::NotRunning {
                executor: executor.clone(),
                task: task.clone(),
            })?;
        let interactive = match body.composition.joined.get(task).map(|joined| &joined.role) {
            Some(Role::Task { spec, .. }) => spec.interaction.stdin,
            _ => false,
        };
        Ok((running, interactive))
    }
}
