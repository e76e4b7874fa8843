//! What can be done with running tasks: wait, interrupt, exec, logs, attach, resize. None of it is configuration: it
//! waits for no commit and no commit waits for it.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::diff::running;
use super::driver::Command;
use super::node::{Board, Cause};
use super::stop::Stop;
use super::{
    BindHow, CommitError, ComposeError, Composition, JoinHow, Role, Run, RunId, TaskBind, record,
};
use crate::PortLayer;
use crate::element::{ElementId, Record, fields};
use crate::ledger::LedgerError;
use crate::runtime::{
    ContainerId, Delivery, LogQuery, LogReader, LogStreams, ProcessId, RuntimeError, SignalScope,
};
use crate::task::{ExitReason, ExitRecord, StopSpec};

/// How a running task or executor is disturbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupt {
    /// One signal, 1 to 64.
    Signal {
        /// Its number.
        signal: i32,
        /// For whom: with `All` it goes to every process of the container.
        scope: SignalScope,
    },
    /// The task's stop signal, after its grace SIGKILL. Its exit record says cancelled.
    Stop {
        /// Instead of the task's own settings.
        how: Option<StopSpec>,
    },
    /// Freeze (executors only).
    Pause,
    /// Thaw (executors only).
    Resume,
}

/// What became of an interrupt, told from our own records where the engine cannot tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// It reached a living process.
    Delivered,
    /// The task had ended; how. An executor: `None`.
    AlreadyExited(Option<Box<ExitRecord>>),
    /// It was never started.
    NotRunning,
}

/// What reaching for a task can refuse.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The executor or task is not there or not what it must be.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The task, or that run of it, was never started in the executor.
    #[error("{task} was never started in {executor}")]
    NeverStarted {
        /// The executor.
        executor: ElementId,
        /// The task.
        task: ElementId,
    },
    /// The task does not run now.
    #[error("{task} does not run in {executor}")]
    NotRunning {
        /// The executor.
        executor: ElementId,
        /// The task.
        task: ElementId,
    },
    /// The engine.
    #[error("reaching {task} in {executor} failed")]
    Runtime {
        /// The executor.
        executor: ElementId,
        /// The task; for an executor its own id.
        task: ElementId,
        /// Cause.
        #[source]
        source: RuntimeError,
    },
    /// The ledger.
    #[error("the records of {executor} cannot be used")]
    Ledger {
        /// The executor.
        executor: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// A running task's streams.
pub struct Attached {
    /// Its output as it is stored; ends when the task ended and all is read.
    pub output: LogReader,
    /// Its standard input; dropping it closes the input. `None` when the task has none.
    pub input: Option<DuplexStream>,
    /// Tells how feeding the input ended; `Busy` at once when someone else feeds it.
    pub input_ended: Option<oneshot::Receiver<Result<(), RuntimeError>>>,
}

/// A run that is not recorded as ended.
struct Running {
    process: ProcessId,
    primary: bool,
}

impl PortLayer {
    /// Waits until a run of a task ended and its exit record is durable: the given one, else the newest one at the time of the
    /// call. Past runs answer at once. Safe to drop and to call often.
    ///
    /// Errors: `Compose` (no such executor), `NeverStarted`, `Ledger`.
    pub async fn wait(
        &self,
        executor: &ElementId,
        task: &ElementId,
        run: Option<u32>,
    ) -> Result<ExitRecord, TaskError> {
        let mut wanted = run;
        loop {
            // Subscribed before the look, so that no end between look and wait is missed.
            let seat = self.shared.composer.live_seat(executor);
            let mark = seat.map(|seat| seat.board.exits.subscribe());
            let composition = match self.shared.composer.node.executor(executor) {
                Ok((_, body)) => Some(body.composition),
                // A deleted executor's exit records outlive it.
                Err(error) if wanted.is_none() => return Err(error.into()),
                Err(_) => None,
            };
            let newest = composition
                .as_ref()
                .and_then(|composition| composition.runs.get(task));
            let run = match wanted.or(newest.map(|run| run.run)) {
                Some(run) => run,
                None => self.last_run(executor, task)?,
            };
            wanted = Some(run);
            let found = self.shared.ledger.exit(executor, task, run);
            if let Some(exit) = found.map_err(|source| ledger(executor, source))? {
                return Ok(exit);
            }
            if newest.is_none_or(|newest| newest.run != run) {
                return Err(never(executor, task));
            }
            match mark {
                // The driver ended: look again.
                Some(mut mark) => drop(mark.changed().await),
                None => self.adopt(executor).await?,
            }
        }
    }

    fn last_run(&self, executor: &ElementId, task: &ElementId) -> Result<u32, TaskError> {
        let exits = self.shared.ledger.exits(executor, Some(task));
        let exits = exits.map_err(|source| ledger(executor, source))?;
        exits
            .last()
            .map(|exit| exit.run)
            .ok_or_else(|| never(executor, task))
    }

    /// Lets the driver of an executor take over what runs. Returns when all is watched.
    pub(crate) async fn adopt(&self, executor: &ElementId) -> Result<(), TaskError> {
        let (reply, answer) = oneshot::channel();
        let closed = || ledger(executor, LedgerError::Closed);
        let sent = self
            .shared
            .composer
            .send(executor, Command::Adopt { reply })
            .await;
        sent.ok_or_else(closed)?;
        answer.await.map_err(|_| closed())
    }

    /// Disturbs one task of an executor, or the executor with all its tasks. A staged stop returns after its first
    /// signal; wait tells when it is over.
    ///
    /// Errors: `Compose` (`NotJoined`, `InvalidField`, no such executor), `Runtime`, `Ledger`.
    pub async fn interrupt(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
        how: Interrupt,
    ) -> Result<Interrupted, TaskError> {
        let (record, body) = self.shared.composer.node.executor(executor)?;
        let composition = &body.composition;
        check(executor, task, &how)?;
        if let Some(task) = task
            && !composition.joined.contains_key(task)
            && !composition.runs.contains_key(task)
        {
            let (id, executor) = (task.clone(), executor.clone());
            return Err(ComposeError::NotJoined { id, executor }.into());
        }
        let of =
            |id: &ElementId| find(executor, composition, id).map(|running| (id.clone(), running));
        let targets: Vec<_> = match task {
            Some(task) => of(task).into_iter().collect(),
            None => running(composition).filter_map(of).collect(),
        };
        if targets.is_empty() {
            return self.not_running(executor, task, composition);
        }
        let seat = match self.shared.composer.live_seat(executor) {
            // Past its queue: a commit in flight is no obstacle.
            Some(seat) => seat,
            None => {
                self.adopt(executor).await?;
                self.shared.composer.seat(executor)
            }
        };
        let delivered = match how {
            Interrupt::Pause => self.pause(&record, composition, true).await?,
            Interrupt::Resume => self.pause(&record, composition, false).await?,
            Interrupt::Signal { signal, scope } => {
                self.signal(executor, &seat.board, &targets, signal, scope)
                    .await?
            }
            Interrupt::Stop { how } => {
                self.stop(executor, composition, &seat.board, targets, how)
                    .await?
            }
        };
        match delivered {
            true => Ok(Interrupted::Delivered),
            false => match task {
                // It ended just now; its record is about to come.
                Some(id) => self
                    .wait(executor, id, None)
                    .await
                    .map(|exit| Interrupted::AlreadyExited(Some(Box::new(exit)))),
                None => Ok(Interrupted::AlreadyExited(None)),
            },
        }
    }

    fn not_running(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
        composition: &Composition,
    ) -> Result<Interrupted, TaskError> {
        let Some(task) = task else {
            let ended = composition.runs.values().next().is_some();
            return Ok(if ended {
                Interrupted::AlreadyExited(None)
            } else {
                Interrupted::NotRunning
            });
        };
        let Some(run) = composition.runs.get(task) else {
            return Ok(Interrupted::NotRunning);
        };
        let exit = self.shared.ledger.exit(executor, task, run.run);
        let exit = exit.map_err(|source| ledger(executor, source))?;
        Ok(exit.map_or(Interrupted::NotRunning, |exit| {
            Interrupted::AlreadyExited(Some(Box::new(exit)))
        }))
    }

    async fn signal(
        &self,
        executor: &ElementId,
        board: &Board,
        targets: &[(ElementId, Running)],
        signal: i32,
        scope: SignalScope,
    ) -> Result<bool, TaskError> {
        let cause = Cause::Signal(signal);
        let mut delivered = false;
        // One call reaches every process; it may name any living one.
        let named = if scope == SignalScope::All {
            &targets[..1]
        } else {
            targets
        };
        for (_, target) in targets {
            board.note(&target.process, cause);
        }
        for (task, target) in named {
            let sent = self
                .shared
                .runtime
                .signal(&target.process, target.primary, signal, scope)
                .await;
            let reached = matches!(sent, Ok(Delivery::Delivered));
            delivered |= reached;
            if !reached {
                board.forget(&target.process, cause);
            }
            sent.map_err(|source| runtime(executor, task, source))?;
        }
        Ok(delivered)
    }

    async fn stop(
        &self,
        executor: &ElementId,
        composition: &Composition,
        board: &std::sync::Arc<Board>,
        targets: Vec<(ElementId, Running)>,
        how: Option<StopSpec>,
    ) -> Result<bool, TaskError> {
        let mut delivered = false;
        for (task, target) in targets {
            let settings = how.clone().unwrap_or_else(|| stop_spec(composition, &task));
            let stop = Stop {
                process: target.process,
                primary: target.primary,
                signal: settings
                    .signal
                    .or_else(|| self.image_stop_signal(composition))
                    .unwrap_or(15),
                grace_ms: settings.grace_ms,
                reason: ExitReason::Cancelled,
            };
            let node = self.shared.composer.node.clone();
            let begun = stop.begin(&node, board).await;
            let begun = begun.map_err(|source| runtime(executor, &task, source))?;
            if begun == Delivery::Delivered {
                delivered = true;
                // Ends with the process, which always ends by then.
                tokio::spawn(async move { stop.finish(&node).await });
            }
        }
        Ok(delivered)
    }

    fn image_stop_signal(&self, composition: &Composition) -> Option<i32> {
        let images = composition
            .joined
            .keys()
            .filter(|id| id.kind() == crate::element::Kind::Image);
        let mut records = images.filter_map(|id| self.record(id).ok());
        match records.next()?.body {
            crate::element::Body::Image(image) => image.defaults.stop_signal,
            _ => None,
        }
    }

    async fn pause(
        &self,
        record: &Record,
        composition: &Composition,
        pause: bool,
    ) -> Result<bool, TaskError> {
        let executor = &record.id;
        let container = ContainerId::new(executor, composition.generation);
        let set = self.shared.runtime.set_paused(&container, pause).await;
        let delivery = set.map_err(|source| runtime(executor, executor, source))?;
        if delivery != Delivery::Delivered {
            return Ok(false);
        }
        let (id, operation) = (executor.clone(), self.operation());
        let written: Result<(), record::TxnError> = self
            .shared
            .ledger
            .write(move |txn| record::paused(txn, &operation, &id, pause))
            .await;
        match written {
            Ok(()) | Err(record::TxnError::Changed(..)) => Ok(true),
            Err(record::TxnError::Ledger(source)) => Err(ledger(executor, source)),
        }
    }

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
        let executor = &query.executor;
        let (_, body) = self.shared.composer.node.executor(executor)?;
        let known = body.composition.joined.contains_key(&query.task)
            || body.composition.runs.contains_key(&query.task);
        if !known {
            self.last_run(executor, &query.task)?;
        }
        let reader = self.shared.runtime.logs(query).await;
        reader.map_err(|source| runtime(executor, &query.task, source))
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

fn check(executor: &ElementId, task: Option<&ElementId>, how: &Interrupt) -> Result<(), TaskError> {
    let refuse = |field: &str, rule: &str| {
        Err(TaskError::Compose(ComposeError::InvalidField {
            id: task.unwrap_or(executor).clone(),
            field: field.to_owned(),
            rule: rule.to_owned(),
        }))
    };
    match how {
        Interrupt::Signal { signal, .. } if !(1..=64).contains(signal) => {
            refuse("signal", "a signal is 1 to 64")
        }
        Interrupt::Stop { how: Some(stop) } => match fields::check_stop("stop", stop) {
            Ok(()) => Ok(()),
            Err(error) => refuse(&error.field, &error.rule),
        },
        Interrupt::Pause | Interrupt::Resume if task.is_some() => {
            refuse("task", "only a whole executor can be paused and resumed")
        }
        _ => Ok(()),
    }
}

fn find(executor: &ElementId, composition: &Composition, task: &ElementId) -> Option<Running> {
    let run: &Run = composition.runs.get(task)?;
    if run.state == super::RunState::Ended {
        return None;
    }
    let container = ContainerId::new(executor, run.generation);
    Some(Running {
        process: ProcessId::new(container, task, run.run),
        primary: run.primary,
    })
}

fn stop_spec(composition: &Composition, task: &ElementId) -> StopSpec {
    match composition.joined.get(task).map(|joined| &joined.role) {
        Some(Role::Task { spec, bind, .. }) => bind.stop.as_ref().unwrap_or(&spec.stop).clone(),
        _ => StopSpec::default(),
    }
}

fn never(executor: &ElementId, task: &ElementId) -> TaskError {
    TaskError::NeverStarted {
        executor: executor.clone(),
        task: task.clone(),
    }
}

fn runtime(executor: &ElementId, task: &ElementId, source: RuntimeError) -> TaskError {
    TaskError::Runtime {
        executor: executor.clone(),
        task: task.clone(),
        source,
    }
}

fn ledger(executor: &ElementId, source: LedgerError) -> TaskError {
    TaskError::Ledger {
        executor: executor.clone(),
        source,
    }
}
