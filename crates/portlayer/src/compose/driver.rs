//! One driver per live executor: commits, ends of tasks, deadlines and restarts, one after the other. It owns what is
//! known of the running container; callers reach it by a bounded queue, except for signals, which go past it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::live::{Live, Process};
use super::node::{Board, Cause, Node, Seats};
use super::patience::{Away, patiently};
use super::record::{self, TxnError};
use super::steps::{Steps, detach};
use super::stop::Stop;
use super::validate::{EffectiveTask, Resolved};
use super::{CommitError, CommitResult, Composition, Handle};
use crate::Operation;
use crate::element::ElementId;
use crate::runtime::{ContainerId, ProcessExit, ProcessId, RuntimeErrorKind, Scope};
use crate::task::{ExitReason, ExitRecord, RestartPolicy};
use crate::time::Timestamp;

/// What a driver is asked.
pub(crate) enum Command {
    /// Commit a handle.
    Commit {
        /// The handle.
        handle: Handle,
        /// Who asks.
        operation: Operation,
        /// The call it belongs to.
        span: tracing::Span,
        /// The answer.
        reply: oneshot::Sender<Result<CommitResult, CommitError>>,
    },
    /// Take over what the ledger says is running; after it, what ended while nobody watched is being recorded.
    Adopt {
        /// Answered when everything is watched.
        reply: oneshot::Sender<()>,
    },
    /// Answered when what was asked before is done and an ended container is gone.
    Settle {
        /// The answer.
        reply: oneshot::Sender<()>,
    },
}

/// The driver of one executor.
pub(crate) struct Driver {
    pub(super) executor: ElementId,
    pub(super) node: Arc<Node>,
    pub(super) board: Arc<Board>,
    pub(super) live: Option<Live>,
    pub(super) waits: JoinSet<End>,
    stoppers: JoinSet<()>,
    /// Tasks that wait to be started again.
    pub(super) restarts: BTreeMap<ElementId, Restart>,
    adopted: bool,
}

/// A process that ended.
pub(super) struct End {
    pub(super) task: ElementId,
    pub(super) run: u32,
    pub(super) exit: ProcessExit,
    pub(super) reconciled: bool,
}

/// A start to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    pub(super) at: Instant,
    /// The run whose end asked for it. When another run has begun since (a commit started it, perhaps in an executor
    /// that was deleted and made again), nothing is to be started.
    pub(super) after: u32,
}

impl Restart {
    pub(super) fn new(wait: Duration, after: u32) -> Self {
        Self {
            at: Instant::now() + wait,
            after,
        }
    }
}

/// The longest wait before a restart.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Driver {
    pub(crate) fn new(executor: ElementId, node: Arc<Node>, board: Arc<Board>) -> Self {
        Self {
            executor,
            node,
            board,
            live: None,
            waits: JoinSet::new(),
            stoppers: JoinSet::new(),
            restarts: BTreeMap::new(),
            adopted: false,
        }
    }

    /// Runs until nothing is live and nobody asks, or the port layer is gone.
    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<Command>, seats: Seats) {
        // Someone may hold the seat without asking in the end: then ending is tried again after a while.
        let mut rested = false;
        loop {
            let idle = self.live.is_none() && self.restarts.is_empty() && self.stoppers.is_empty();
            if idle && (self.adopted || rested) && seats.give_up(&self.executor, &asked) {
                return;
            }
            let timer = self.next_timer();
            tokio::select! {
                biased;
                Some(end) = self.waits.join_next() => self.on_end(end).await,
                Some(_) = self.stoppers.join_next() => {}
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.on_timer().await;
                }
                command = asked.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                () = tokio::time::sleep(Duration::from_secs(1)), if idle => rested = true,
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        if !self.adopted {
            // The first thing after a start: whatever the ledger says is running is ours.
            self.adopt().await;
            self.adopted = true;
        }
        // A caller that went away does not need the answer.
        match command {
            Command::Commit {
                handle,
                operation,
                span,
                reply,
            } => {
                let commit = self.commit(&handle, &operation).instrument(span);
                let _ = reply.send(commit.await);
            }
            Command::Adopt { reply } => {
                // Their containers are taken down after the answer: an open waits for records, not for that.
                let mut ended = Vec::new();
                while let Some(end) = self.waits.try_join_next() {
                    ended.extend(self.record_end(end).await);
                }
                let _ = reply.send(());
                for task in ended {
                    self.forget_process(&task).await;
                }
                self.finish_rest().await;
            }
            Command::Settle { reply } => {
                self.drain_ends().await;
                let _ = reply.send(());
            }
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let processes = self.live.iter().flat_map(|live| live.processes.values());
        let deadlines = processes.filter_map(|process| process.deadline);
        let restarts = self.restarts.values().map(|restart| restart.at);
        deadlines.chain(restarts).min()
    }

    async fn on_timer(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (task, process) in self.live.iter_mut().flat_map(|live| &mut live.processes) {
            if process.deadline.is_some_and(|deadline| deadline <= now) {
                process.deadline = None;
                late.push(task.clone());
            }
        }
        for task in late {
            self.stop_in_background(&task, ExitReason::Deadline);
        }
        let due = self.restarts.iter().filter(|(_, due)| due.at <= now);
        let due: Vec<_> = due.map(|(task, due)| (task.clone(), due.after)).collect();
        for (task, after) in due {
            self.restarts.remove(&task);
            self.restart(&task, after).await;
        }
    }

    /// How a running task is stopped.
    pub(super) fn stop_of(&self, task: &ElementId, reason: ExitReason) -> Option<Stop> {
        let live = self.live.as_ref()?;
        let process = live.processes.get(task)?;
        let settings = live.resolved.tasks.get(task);
        Some(Stop {
            executor: self.executor.clone(),
            process: process.id.clone(),
            primary: process.primary,
            signal: settings.map_or(15, |task| task.stop_signal),
            grace_ms: settings.map_or(10_000, |task| task.grace_ms),
            reason,
        })
    }

    pub(super) fn stop_in_background(&mut self, task: &ElementId, reason: ExitReason) {
        let Some(stop) = self.stop_of(task, reason) else {
            return;
        };
        let (node, board) = (self.node.clone(), self.board.clone());
        self.stoppers.spawn(async move {
            let mut pause = Duration::from_millis(50);
            while let Err(error) = stop.run(&node, &board).await {
                tracing::error!(process = %stop.process.name, %error, "stopping a task failed");
                // An engine that is away for long must not let a task outlive its stop.
                if !error.is_away() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        });
    }

    /// Watches a process until it ends.
    pub(super) fn watch(
        &mut self,
        task: &ElementId,
        run: u32,
        id: &ProcessId,
        primary: bool,
        reconciled: bool,
    ) {
        let (node, task, id) = (self.node.clone(), task.clone(), id.clone());
        self.waits.spawn(async move {
            let exit = wait(&node, &id, primary).await;
            End {
                task,
                run,
                exit,
                reconciled,
            }
        });
    }

    /// Records every end that is known by now.
    pub(super) async fn drain_ends(&mut self) {
        while let Some(end) = self.waits.try_join_next() {
            self.on_end(end).await;
        }
    }

    pub(super) async fn on_end(&mut self, end: Result<End, tokio::task::JoinError>) {
        if let Some(task) = self.record_end(end).await {
            self.forget_process(&task).await;
        }
    }

    /// Records an end. Returns the task whose process is to be forgotten then.
    async fn record_end(&mut self, end: Result<End, tokio::task::JoinError>) -> Option<ElementId> {
        // A wait that was aborted belongs to a process that is being removed.
        let end = end.ok()?;
        let live = self.live.as_ref()?;
        let process = live.processes.get(&end.task)?;
        if process.run != end.run {
            return None;
        }
        let cause = self.board.take_cause(&process.id);
        let exit = exit_record(&self.executor, process, &end, cause);
        let restart_after = self.restart_after(&end.task, process.restarts, &exit, cause);
        let operation = Operation {
            id: format!("exit-{}", process.id.name),
            actor: "driver".to_owned(),
        };
        let (restarts, recorded) = (restart_after.is_some(), exit.clone());
        crate::crash::point("exit.before-record");
        let outcome: Result<_, TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                let ended = record::Ended {
                    operation: &operation,
                    exit: &recorded,
                    restarts,
                };
                record::ended(txn, &ended)
            })
            .await;
        if let Err(error) = outcome {
            // The engine still knows the end: nothing is removed there until it is recorded, at the latest after a
            // restart of ours.
            tracing::error!(executor = %self.executor, task = %end.task, ?error, "recording the end of a task failed");
            if let Some(cause) = cause {
                self.board.note(&process.id, cause);
            }
            self.waits.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                end
            });
            return None;
        }
        self.board.announce_exit();
        if let Some(wait) = restart_after {
            let restart = Restart::new(wait, end.run);
            self.restarts.insert(end.task.clone(), restart);
        }
        Some(end.task)
    }

    /// Cleans up behind a recorded end: the process, and the container after its last.
    async fn forget_process(&mut self, task: &ElementId) {
        self.node.taken_over.cancelled().await;
        crate::crash::point("exit.before-delete-process");
        let Some(live) = &mut self.live else { return };
        let Some(process) = live.processes.remove(task) else {
            return;
        };
        if !live.processes.is_empty() {
            if process.primary {
                // Deleting it would end the container.
                return;
            }
            if let Err(error) = self
                .node
                .runtime
                .delete_process(&process.id, false, true)
                .await
            {
                tracing::warn!(process = %process.id.name, %error, "deleting an ended process failed");
            }
            return;
        }
        if let Some(live) = self.live.take() {
            self.tear_down(live).await;
        }
    }

    /// Takes a container down whose tasks have all ended. What cannot be removed is purged as a whole, and what not
    /// even that removes is left to recovery: its name is never used again.
    async fn tear_down(&self, live: Live) {
        let runtime = &self.node.runtime;
        let container = &live.container;
        let removed = async {
            runtime.delete_process(&live.primary, true, true).await?;
            crate::crash::point("exit.before-delete-container");
            runtime.delete_container(container).await?;
            crate::crash::point("exit.before-remove-root");
            runtime.remove_root(container).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(executor = %self.executor, %error, "taking a container down failed, purging it");
            if let Err(error) = patiently(|| runtime.purge(container)).await {
                tracing::error!(executor = %self.executor, %error, "purging a container failed, left to recovery");
            }
        }
        crate::crash::point("exit.before-detach");
        self.detach_all(&live.resolved).await;
    }

    async fn detach_all(&self, resolved: &Resolved) {
        let detaches = resolved.volumes.iter().rev().map(|volume| async move {
            let id = &volume.record.id;
            let (Some(super::steps::Undo::Detach(_, keys)), Some(store)) = (detach(volume), self.node.store(id)) else {
                return;
            };
            if let Err(error) = store.detach(id, &keys, &self.executor).await {
                tracing::warn!(volume = %id, executor = %self.executor, %error, "detaching a volume failed");
            }
        });
        futures::future::join_all(detaches).await;
    }

    /// How long to wait before a task is started again; `None` = it stays ended.
    fn restart_after(
        &self,
        task: &ElementId,
        restarts: u32,
        exit: &ExitRecord,
        cause: Option<Cause>,
    ) -> Option<Duration> {
        let settings = self.live.as_ref()?.resolved.tasks.get(task)?;
        // Only what ended by itself is started again.
        if cause.is_some() && matches!(exit.reason, ExitReason::Cancelled | ExitReason::Deadline) {
            return None;
        }
        back_off(settings, restarts, exit)
    }

    /// The steps in this executor's container.
    pub(super) fn steps<'a>(
        &'a self,
        executor: &'a crate::element::Record,
        container: &'a ContainerId,
        scope: &'a Scope,
        resolved: &'a Resolved,
    ) -> Steps<'a> {
        Steps {
            node: &self.node,
            executor,
            container,
            scope,
            resolved,
        }
    }

    /// The number of a task's next run.
    pub(super) fn next_run(&self, composition: &Composition, task: &ElementId) -> u32 {
        let last = match composition.runs.get(task) {
            Some(run) => run.run,
            // It may have taken part before: exit records are never written twice.
            None => {
                let exits = self
                    .node
                    .ledger
                    .exits(&self.executor, Some(task))
                    .unwrap_or_default();
                exits.last().map_or(0, |exit| exit.run)
            }
        };
        last + 1
    }
}

pub(super) fn back_off(
    settings: &EffectiveTask,
    restarts: u32,
    exit: &ExitRecord,
) -> Option<Duration> {
    let first = match &settings.restart {
        RestartPolicy::Never => return None,
        RestartPolicy::OnFailure { max, backoff_ms } => {
            let failed = exit.code != Some(0);
            let left = *max == 0 || restarts < *max;
            (failed && left).then_some(*backoff_ms)?
        }
        RestartPolicy::Always { backoff_ms } => *backoff_ms,
    };
    let factor = 2u32.checked_pow(restarts).unwrap_or(u32::MAX);
    Some(
        Duration::from_millis(first)
            .saturating_mul(factor)
            .min(MAX_BACKOFF),
    )
}

fn exit_record(
    executor: &ElementId,
    process: &Process,
    end: &End,
    cause: Option<Cause>,
) -> ExitRecord {
    let exit = &end.exit;
    let (mut code, mut signal) = (exit.code, exit.signal);
    // The engine knows no more than 128+n of a further process; when we sent n, that is what ended it.
    if let (Some(Cause::Signal(sent)), false) = (cause, process.primary)
        && code == Some(128 + sent)
    {
        (code, signal) = (None, Some(sent));
    }
    let reason = match (exit.reason, cause) {
        // Nobody saw how it ended: that we wanted it to does not make it known.
        (ExitReason::Lost, _) => ExitReason::Lost,
        (_, Some(Cause::Stopped(reason))) => reason,
        (ExitReason::Exited | ExitReason::Signaled, Some(Cause::Signal(sent)))
            if signal == Some(sent) =>
        {
            ExitReason::Cancelled
        }
        (reason, _) => reason,
    };
    ExitRecord {
        executor: executor.clone(),
        task: end.task.clone(),
        run: end.run,
        reason,
        code,
        signal,
        cpu_ns: exit.cpu_ns,
        memory_peak_bytes: exit.memory_peak_bytes,
        // A very short task has ended before the engine answers that it started; the answer is when we take the time.
        started: process.started.min(exit.exited),
        exited: exit.exited,
        reconciled: end.reconciled,
        message: None,
    }
}

async fn wait(node: &Node, id: &ProcessId, primary: bool) -> ProcessExit {
    let mut pause = Duration::from_millis(20);
    loop {
        match node.runtime.wait_process(id, primary).await {
            Ok(exit) => return exit,
            Err(error) if error.kind == RuntimeErrorKind::NotFound => {
                return ProcessExit {
                    reason: ExitReason::Lost,
                    code: None,
                    signal: None,
                    exited: Timestamp::now(),
                    cpu_ns: None,
                    memory_peak_bytes: None,
                };
            }
            Err(error) => {
                tracing::warn!(process = %id.name, %error, "waiting for a process failed, asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}
