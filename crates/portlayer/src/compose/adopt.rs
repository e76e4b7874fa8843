//! Taking over what the ledger says is running, after a start of ours; and starting ended tasks again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::commit::is_tasks_fault;
use super::diff::running;
use super::draft::fold;
use super::driver::{Driver, Restart, back_off};
use super::intent::Intent;
use super::live::{Live, Process};
use super::record::{self, NewRuns, TxnError};
use super::steps::{Failed, Start};
use super::validate::{Facts, Resolved, validate};
use super::{ComposeError, JoinHow, Role, Run, StepError};
use crate::Operation;
use crate::element::{ElementId, ExecutorBody, Kind, Record};
use crate::runtime::{ContainerId, ProcessId, ProcessState, Scope};
use crate::task::{ExitReason, ExitRecord};
use crate::time::{Moment, Timestamp};

fn operation() -> Operation {
    Operation {
        id: "driver".to_owned(),
        actor: "driver".to_owned(),
    }
}

impl Driver {
    /// Watches every run the ledger has as running. What the engine says ended meanwhile gets its true exit record;
    /// what it does not know is lost.
    pub(super) async fn adopt(&mut self) {
        let Ok((record, body)) = self.node.executor(&self.executor) else {
            return;
        };
        let composition = &body.composition;
        let runs: Vec<(ElementId, Run)> = running(composition)
            .filter_map(|id| Some((id.clone(), composition.runs.get(id)?.clone())))
            .collect();
        if !runs.is_empty() {
            self.adopt_container(&body, &runs).await;
        }
        for (task, run) in &composition.runs {
            let waits = composition
                .joined
                .get(task)
                .is_some_and(|joined| joined.bound);
            if waits && runs.iter().all(|(running, _)| running != task) {
                self.await_restart(&body, &record, task, run);
            }
        }
    }

    async fn adopt_container(&mut self, body: &ExecutorBody, runs: &[(ElementId, Run)]) {
        let container = ContainerId::new(&self.executor, body.composition.generation);
        let resolved = self.resolve(body);
        let starts: Vec<_> = runs.iter().map(|(task, run)| start(task, run)).collect();
        let mut live = Live::new(&container, resolved, &starts);
        if let Some(primary) = primary(body, &container) {
            live.primary = primary;
        }
        for (task, run) in runs {
            if let Some(process) = live.processes.get_mut(task) {
                process.started = run.started;
                process.restarts = run.restarts;
                process.deadline = run.deadline_ms.map(|ms| Instant::now() + left(run, ms));
            }
        }
        self.live = Some(live);
        // What an interrupted commit was to stop is stopped when that is finished.
        let rest = self.rest();
        for start in &starts {
            let id = ProcessId::new(container.clone(), &start.task, start.run);
            let state = self.node.runtime.process_state(&id, start.primary).await;
            let ended = matches!(state, Ok(ProcessState::Stopped(_) | ProcessState::Unknown));
            self.watch(&start.task, start.run, &id, start.primary, ended);
            let bound = body
                .composition
                .joined
                .get(&start.task)
                .is_some_and(|joined| joined.bound);
            let stops = rest
                .as_ref()
                .is_some_and(|rest| rest.stops.contains(&start.task));
            if !ended && !bound && !stops {
                // We died between recording its unbind and stopping it.
                self.stop_in_background(&start.task, ExitReason::Cancelled);
            }
        }
    }

    fn await_restart(&mut self, body: &ExecutorBody, record: &Record, task: &ElementId, run: &Run) {
        let resolved = self.resolve(body);
        let exit = self.node.ledger.exit(&record.id, task, run.run);
        if let (Some(settings), Ok(Some(exit))) = (resolved.tasks.get(task), exit)
            && let Some(wait) = back_off(settings, run.restarts, &exit)
        {
            let restart = Restart::new(wait, run.run);
            self.restarts.insert(task.clone(), restart);
        }
    }

    /// The committed composition in the terms of the engine. What cannot be resolved any more (a damaged record of
    /// an image) is left out: the running tasks are watched all the same.
    fn resolve(&self, body: &ExecutorBody) -> Resolved {
        self.try_resolve(body).unwrap_or_else(|error| {
            tracing::error!(executor = %self.executor, %error, "a committed composition cannot be resolved");
            Resolved {
                spec: body.spec.clone(),
                root: None,
                volumes: Vec::new(),
                host_network: false,
                bridge: None,
                tasks: BTreeMap::new(),
            }
        })
    }

    fn try_resolve(&self, body: &ExecutorBody) -> Result<Resolved, super::CommitError> {
        let mut draft = fold(&self.executor, &body.composition, &[], self.node.as_ref())?;
        // A task that runs on until it is stopped is still resolved.
        for task in running(&body.composition) {
            if let Some(joined) = draft.wanted.joined.get_mut(task) {
                joined.bound = true;
            }
        }
        // So is its root, which an unbind that we died in has let go already.
        if running(&body.composition).next().is_some() {
            for joined in draft.wanted.joined.values_mut() {
                joined.bound |= matches!(joined.role, Role::Part(JoinHow::Image { .. }));
            }
        }
        let mut records = BTreeMap::new();
        for (id, joined) in &draft.wanted.joined {
            if let (Role::Part(_), true) = (&joined.role, joined.bound || id.kind() == Kind::Log) {
                let record = super::draft::Lookup::record(self.node.as_ref(), id);
                records.insert(id.clone(), record.map_err(ComposeError::from)?);
            }
        }
        let facts = Facts {
            executor: &self.executor,
            spec: &body.spec,
            records: &records,
            networks: &self.node.networks_of(&draft.wanted),
        };
        validate(&facts, &draft)
    }

    /// Starts a task again after that run, unless there was another since: in the running container, else in a new one.
    pub(super) async fn restart(&mut self, task: &ElementId, after: u32) {
        let Ok((record, body)) = self.node.executor(&self.executor) else {
            return;
        };
        let bound = body
            .composition
            .joined
            .get(task)
            .is_some_and(|joined| joined.bound);
        let last = body.composition.runs.get(task);
        let Some(last) = last.filter(|last| bound && last.run == after) else {
            return;
        };
        let restarts = last.restarts + 1;
        let was_live = self.live.is_some();
        let outcome = match self.try_restart(&record, &body, task, restarts).await {
            // The container may have ended under it, with the last of the others: then it gets one of its own.
            Err(_) if was_live && self.ends_soon().await => {
                match self.node.executor(&self.executor) {
                    Ok((record, body)) => self.try_restart(&record, &body, task, restarts).await,
                    Err(_) => return,
                }
            }
            outcome => outcome,
        };
        if let Err(failed) = outcome {
            self.record_failed_restart(&body, task, restarts, failed)
                .await;
        }
    }

    async fn try_restart(
        &mut self,
        record: &Record,
        body: &ExecutorBody,
        task: &ElementId,
        restarts: u32,
    ) -> Result<(), Failed> {
        let resolved = self.resolve(body);
        let fresh = self.live.is_none();
        let generation = match fresh {
            true => self
                .node
                .next_generation(&self.executor, body.composition.generation),
            false => body.composition.generation,
        };
        let container = ContainerId::new(&self.executor, generation);
        let starts = self.starts(&body.composition, std::slice::from_ref(task), fresh);
        let intent = Intent {
            revision: record.revision,
            generation,
            fresh,
            claims: Vec::new(),
            attaches: resolved
                .volumes
                .iter()
                .map(|v| (v.record.id.clone(), v.target.clone()))
                .collect(),
            lease: None,
            rest: None,
            runs: starts
                .iter()
                .map(|start| (start.task.clone(), start.run))
                .collect(),
        };
        let (id, wanted) = (self.executor.clone(), body.composition.clone());
        crate::crash::point("restart.before-claim");
        let bridge = resolved.bridge.clone().filter(|_| fresh);
        let claimed: Result<_, TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                record::claim(txn, &id, &wanted, &[], Some(&intent), bridge.as_deref())
            })
            .await;
        let resolved = match claimed {
            Ok(lease) => resolved.with_lease(lease),
            Err(error) => {
                tracing::error!(executor = %self.executor, ?error, "recording a restart failed");
                return Ok(());
            }
        };
        let scope = Scope::new(&container, record.revision);
        let steps = self.steps(record, &container, &scope, &resolved);
        let mut undo = Vec::new();
        let done = match fresh {
            true => match steps.begin(&mut undo).await {
                Ok(()) => steps.start(&starts, &mut undo).await,
                Err(failed) => Err(failed),
            },
            false => steps.change(&[], &starts, &mut undo).await,
        };
        if let Err(failed) = done {
            for (step, error) in steps.undo(undo).await {
                tracing::error!(executor = %self.executor, step, %error, "undoing a failed restart failed");
            }
            return Err(failed);
        }
        crate::crash::point("restart.before-record");
        let written = self
            .write_restart(body, &starts, generation, restarts, &resolved)
            .await;
        crate::crash::point("restart.after-record");
        if let Err(error) = written {
            tracing::error!(executor = %self.executor, ?error, "recording a restart failed");
            steps.undo(undo).await;
            return Ok(());
        }
        match &mut self.live {
            Some(live) => {
                let new = starts
                    .iter()
                    .map(|start| (start.task.clone(), Process::new(&container, start)));
                live.processes.extend(new);
                live.resolved = resolved;
            }
            live => *live = Some(Live::new(&container, resolved, &starts)),
        }
        for process in self
            .live
            .iter_mut()
            .flat_map(|live| live.processes.get_mut(task))
        {
            process.restarts = restarts;
        }
        self.watch_all(&starts);
        self.arm(&starts);
        Ok(())
    }

    async fn write_restart(
        &self,
        body: &ExecutorBody,
        starts: &[Start],
        generation: u32,
        restarts: u32,
        resolved: &Resolved,
    ) -> Result<(), TxnError> {
        let (id, starts) = (self.executor.clone(), starts.to_vec());
        let deadlines = resolved
            .tasks
            .iter()
            .filter_map(|(id, task)| Some((id.clone(), task.deadline_ms?)));
        let deadlines: BTreeMap<_, _> = deadlines.collect();
        debug_assert!(generation >= body.composition.generation);
        let written = self.node.ledger.write(move |txn| {
            let runs = NewRuns {
                starts: &starts,
                deadlines: &deadlines,
                restarts,
            };
            record::restarted(txn, &operation(), &id, generation, &runs).map(drop)
        });
        written.await
    }

    /// A run that could not be started is a run too: it ends as start-failed. A fault of the task stays one, a fault of
    /// the engine is tried again under the policy.
    async fn record_failed_restart(
        &mut self,
        body: &ExecutorBody,
        task: &ElementId,
        restarts: u32,
        failed: Failed,
    ) {
        let starts = self.starts(&body.composition, std::slice::from_ref(task), false);
        let Some(run) = starts.first().map(|start| start.run) else {
            return;
        };
        let now = Timestamp::now();
        let exit = ExitRecord {
            executor: self.executor.clone(),
            task: task.clone(),
            run,
            reason: ExitReason::StartFailed,
            code: None,
            signal: None,
            cpu_ns: None,
            memory_peak_bytes: None,
            started: now,
            exited: now,
            reconciled: false,
            message: Some(message(&failed.source)),
        };
        let resolved = self.resolve(body);
        let again = resolved
            .tasks
            .get(task)
            .filter(|_| !is_tasks_fault(&failed.source));
        let wait = again.and_then(|settings| back_off(settings, restarts, &exit));
        let generation = match self.live.is_none() {
            true => self
                .node
                .next_generation(&self.executor, body.composition.generation),
            false => body.composition.generation,
        };
        let (id, recorded, again) = (self.executor.clone(), exit, wait.is_some());
        let written: Result<(), TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                let runs = NewRuns {
                    starts: &starts,
                    deadlines: &BTreeMap::new(),
                    restarts,
                };
                record::restarted(txn, &operation(), &id, generation, &runs)?;
                let ended = record::Ended {
                    operation: &operation(),
                    exit: &recorded,
                    restarts: again,
                };
                record::ended(txn, &ended).map(drop)
            })
            .await;
        if let Err(error) = written {
            tracing::error!(executor = %self.executor, ?error, "recording a failed restart failed");
        }
        self.board.announce_exit();
        if let Some(wait) = wait {
            self.restarts.insert(task.clone(), Restart::new(wait, run));
        }
    }
}

fn message(error: &StepError) -> String {
    match error {
        StepError::Runtime(error) => format!("{error}: {}", error.text),
        StepError::Store(_) | StepError::StillRunning { .. } => error.to_string(),
    }
}

fn start(task: &ElementId, run: &Run) -> Start {
    Start {
        task: task.clone(),
        run: run.run,
        primary: run.primary,
    }
}

/// The first process of the container, also when it ended before others did.
fn primary(body: &ExecutorBody, container: &ContainerId) -> Option<ProcessId> {
    let mut runs = body.composition.runs.iter();
    let (task, run) =
        runs.find(|(_, run)| run.primary && run.generation == body.composition.generation)?;
    Some(ProcessId::new(container.clone(), task, run.run))
}

/// What is left of a deadline. The wall clock counts only when the machine was started again: it may have been set.
fn left(run: &Run, deadline_ms: u64) -> Duration {
    let by_the_wall = || {
        let now = Timestamp::now().as_nanos();
        let since = now.saturating_sub(run.started.as_nanos());
        Duration::from_nanos(u64::try_from(since).unwrap_or(0))
    };
    let since = run.clock.and_then(Moment::elapsed);
    Duration::from_millis(deadline_ms).saturating_sub(since.unwrap_or_else(by_the_wall))
}
