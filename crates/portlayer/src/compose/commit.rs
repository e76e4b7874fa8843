//! Commit: the only act. Prepared as a whole, then run step by step; the intent is durable before the first call to
//! the engine, the result in one transaction after the last step that can be undone. What cannot be undone - stopping
//! tasks, unmounting - comes after that and is reported by element.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::diff::{Action, Change, Live as Changes};
use super::driver::{Driver, Live, Process};
use super::intent::Intent;
use super::prepare::Prepared;
use super::record::{self, NewRuns, TxnError};
use super::steps::{Failed, Start, Undo};
use super::{CommitError, CommitResult, Composition, ElementResult, Handle, RunId, StepError};
use crate::Operation;
use crate::element::{ElementId, State};
use crate::error::Classify;
use crate::runtime::{ContainerId, ProcessId, RuntimeErrorKind, Scope};
use crate::task::ExitReason;
use crate::time::Timestamp;

/// What is written about a commit.
struct Writing<'a> {
    operation: &'a Operation,
    wanted: Composition,
    changes: BTreeMap<ElementId, Vec<Change>>,
    starts: Vec<Start>,
    started: bool,
}

impl Driver {
    pub(super) async fn commit(
        &mut self,
        handle: &Handle,
        operation: &Operation,
    ) -> Result<CommitResult, CommitError> {
        self.drain_ends().await;
        let was_live = self.live.is_some();
        let outcome = self.commit_once(handle, operation).await;
        match outcome {
            // The container may have ended under the commit: then it is a fresh start that was wanted.
            Err(CommitError::Step { .. }) if was_live && self.ends_soon().await => {
                self.commit_once(handle, operation).await
            }
            outcome => outcome,
        }
    }

    /// Whether the container turns out to have ended.
    async fn ends_soon(&mut self) -> bool {
        let soon = Duration::from_millis(100);
        while self.live.is_some() {
            match tokio::time::timeout(soon, self.waits.join_next()).await {
                Ok(Some(end)) => self.on_end(end).await,
                _ => return false,
            }
        }
        true
    }

    async fn commit_once(
        &mut self,
        handle: &Handle,
        operation: &Operation,
    ) -> Result<CommitResult, CommitError> {
        let prepared = self.node.prepare(handle)?;
        let mut result = no_op(handle, &prepared);
        if prepared.difference.is_empty() {
            return Ok(result);
        }
        let action = prepared.difference.action.clone();
        let revision = match action {
            Action::Record => self.only_record(&prepared, operation).await?,
            Action::Start(tasks) => {
                self.start(&prepared, &tasks, operation, &mut result.runs)
                    .await?
            }
            Action::Change(changes) => {
                self.change(&prepared, &changes, operation, &mut result)
                    .await?
            }
        };
        result.revision = revision;
        Ok(result)
    }

    async fn only_record(
        &mut self,
        prepared: &Prepared,
        operation: &Operation,
    ) -> Result<u64, CommitError> {
        let writing = Writing {
            operation,
            wanted: prepared.draft.wanted.clone(),
            changes: prepared.difference.changes.clone(),
            starts: Vec::new(),
            started: false,
        };
        let (revision, wanted) = self.write(prepared, writing, true).await?;
        // A task that waited for its restart and was unbound waits no more.
        self.restarts
            .retain(|task, _| wanted.joined.get(task).is_some_and(|joined| joined.bound));
        Ok(revision)
    }

    /// Makes a container and starts its tasks.
    async fn start(
        &mut self,
        prepared: &Prepared,
        tasks: &[ElementId],
        operation: &Operation,
        runs: &mut Vec<RunId>,
    ) -> Result<u64, CommitError> {
        let committed = &prepared.body.composition;
        let generation = committed.generation + 1;
        let container = ContainerId::new(&self.executor, generation);
        let starts = self.starts(committed, tasks, true);
        let intent = intent(prepared, generation, &starts, true);
        self.claim(prepared, &intent).await?;

        let scope = Scope::new(&container, prepared.record.revision);
        let mut undo = Vec::new();
        let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
        if let Err(failed) = steps.start(&starts, &mut undo).await {
            let failures = steps.undo(undo).await;
            return Err(self
                .fail(prepared, operation, failed, failures, Some(generation))
                .await);
        }
        let mut wanted = prepared.draft.wanted.clone();
        wanted.generation = generation;
        let live = Live::new(&container, prepared.resolved.clone(), &starts);
        let writing = Writing {
            operation,
            wanted,
            changes: prepared.difference.changes.clone(),
            starts: starts.clone(),
            started: true,
        };
        self.live = Some(live);
        self.watch_all(&starts);
        let node = self.node.clone();
        // The container's record protects its root from here on.
        let (written, ended) = futures::join!(
            self.write(prepared, writing, false),
            node.runtime.end(&scope)
        );
        if let Err(error) = ended {
            tracing::warn!(executor = %self.executor, %error, "deleting the lease of a commit failed");
        }
        match written {
            Ok((revision, _)) => {
                runs.extend(starts.iter().map(run_id));
                self.arm(&starts);
                Ok(revision)
            }
            Err(error) => {
                self.unwatch().await;
                self.live = None;
                let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
                let failures = steps.undo(undo).await;
                let used_up = (!failures.is_empty()).then_some(generation);
                self.unclaim(prepared, operation, used_up, error.class().reason)
                    .await;
                Err(error)
            }
        }
    }

    /// Changes the running container.
    async fn change(
        &mut self,
        prepared: &Prepared,
        changes: &Changes,
        operation: &Operation,
        result: &mut CommitResult,
    ) -> Result<u64, CommitError> {
        let committed = &prepared.body.composition;
        let container = ContainerId::new(&self.executor, committed.generation);
        let starts = self.starts(committed, &changes.starts, false);
        if prepared.record.state == State::Paused
            && let Some(element) = changes.attaches.first().or(changes.starts.first())
        {
            return Err(CommitError::NeedsRestart {
                executor: self.executor.clone(),
                element: element.clone(),
                state: State::Paused,
                why: "nothing can be started in a frozen container: resume it first",
            });
        }
        let scope = Scope::new(&container, prepared.record.revision);
        if !changes.attaches.is_empty() || !starts.is_empty() {
            let intent = intent(prepared, committed.generation, &starts, false);
            self.claim(prepared, &intent).await?;
            let mut undo = Vec::new();
            let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
            if let Err(failed) = steps.change(&changes.attaches, &starts, &mut undo).await {
                let failures = steps.undo(undo).await;
                return Err(self.fail(prepared, operation, failed, failures, None).await);
            }
            let (wanted, deferred) = interim(prepared, changes);
            let mut first = prepared.difference.changes.clone();
            first.iter_mut().for_each(|(id, changes)| {
                changes.retain(|change| !deferred.contains(&(id.clone(), *change)))
            });
            let writing = Writing {
                operation,
                wanted,
                changes: first,
                starts: starts.clone(),
                started: false,
            };
            let watched = self.waits.len();
            self.add_processes(prepared, &starts);
            match self.write(prepared, writing, false).await {
                Ok((revision, _)) => {
                    result.revision = revision;
                    result.runs.extend(starts.iter().map(run_id));
                    self.watch_all(&starts);
                    self.arm(&starts);
                }
                Err(error) => {
                    debug_assert_eq!(watched, self.waits.len());
                    self.remove_processes(&starts);
                    let steps =
                        self.steps(&prepared.record, &container, &scope, &prepared.resolved);
                    steps.undo(undo).await;
                    self.unclaim(prepared, operation, None, error.class().reason)
                        .await;
                    return Err(error);
                }
            }
        } else {
            let (wanted, deferred) = interim(prepared, changes);
            let mut first = prepared.difference.changes.clone();
            first.iter_mut().for_each(|(id, changes)| {
                changes.retain(|change| !deferred.contains(&(id.clone(), *change)))
            });
            let writing = Writing {
                operation,
                wanted,
                changes: first,
                starts: Vec::new(),
                started: false,
            };
            result.revision = self.write(prepared, writing, true).await?.0;
        }
        self.after(prepared, changes, operation, result).await
    }

    /// What cannot be undone: stops, then unmounts, then the record of what they made possible.
    async fn after(
        &mut self,
        prepared: &Prepared,
        changes: &Changes,
        operation: &Operation,
        result: &mut CommitResult,
    ) -> Result<u64, CommitError> {
        self.stop_all(prepared, &changes.stops).await;
        let container = ContainerId::new(&self.executor, prepared.body.composition.generation);
        let (_, mut deferred) = interim(prepared, changes);
        for (id, target) in &changes.detaches {
            if self.live.is_none() {
                break;
            }
            let detached = self.node.runtime.detach_mount(&container, target).await;
            if let Err(error) = detached {
                deferred.retain(|(of, _)| of != id);
                result
                    .elements
                    .insert(id.clone(), ElementResult::Error(error.into()));
                continue;
            }
            self.forget_volume(id).await;
        }
        // The ends of stopped tasks were recorded meanwhile.
        let Ok((record, body)) = self.node.executor(&self.executor) else {
            // With its last task gone it may have been deleted at once: the commit was done.
            return Ok(result.revision);
        };
        if deferred.is_empty() {
            return Ok(record.revision);
        }
        let mut wanted = body.composition;
        let mut changes: BTreeMap<ElementId, Vec<Change>> = BTreeMap::new();
        for (id, change) in deferred {
            match (change, wanted.joined.get_mut(&id)) {
                (Change::Leaves, _) => drop(wanted.joined.remove(&id)),
                (_, Some(joined)) => joined.bound = false,
                (_, None) => {}
            }
            changes.entry(id).or_default().push(change);
        }
        let writing = Writing {
            operation,
            wanted,
            changes,
            starts: Vec::new(),
            started: false,
        };
        let prepared = Prepared {
            record,
            ..Prepared::clone(prepared)
        };
        Ok(self.write(&prepared, writing, false).await?.0)
    }

    async fn stop_all(&mut self, prepared: &Prepared, tasks: &[ElementId]) {
        if tasks.is_empty() {
            return;
        }
        if prepared.record.state == State::Paused
            && let Some(live) = &self.live
            && let Err(error) = self.node.runtime.set_paused(&live.container, false).await
        {
            tracing::warn!(executor = %self.executor, %error, "thawing a container to stop its tasks failed");
        }
        for task in tasks {
            self.stop_in_background(task, ExitReason::Cancelled);
        }
        // Other tasks may end meanwhile: every end is recorded as it comes.
        while tasks.iter().any(|task| self.runs(task)) {
            match self.waits.join_next().await {
                Some(end) => self.on_end(end).await,
                None => return,
            }
        }
    }

    fn runs(&self, task: &ElementId) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| live.processes.contains_key(task))
    }

    async fn forget_volume(&mut self, id: &ElementId) {
        let Some(live) = &mut self.live else { return };
        let Some(at) = live
            .resolved
            .volumes
            .iter()
            .position(|v| v.record.id == *id)
        else {
            return;
        };
        let volume = live.resolved.volumes.remove(at);
        let (Some(Undo::Detach(_, keys)), Some(store)) =
            (super::steps::detach(&volume), self.node.store(id))
        else {
            return;
        };
        if let Err(error) = store.detach(id, &keys, &self.executor).await {
            tracing::warn!(volume = %id, executor = %self.executor, %error, "detaching a volume failed");
        }
    }

    pub(super) fn starts(
        &self,
        committed: &Composition,
        tasks: &[ElementId],
        fresh: bool,
    ) -> Vec<Start> {
        let start = |(index, task): (usize, &ElementId)| Start {
            task: task.clone(),
            run: self.next_run(committed, task),
            primary: fresh && index == 0,
        };
        tasks.iter().enumerate().map(start).collect()
    }

    async fn claim(&self, prepared: &Prepared, intent: &Intent) -> Result<(), CommitError> {
        let (executor, wanted) = (self.executor.clone(), prepared.draft.wanted.clone());
        let intent = intent.clone();
        let claimed: Result<(), TxnError> = self
            .node
            .ledger
            .write(move |txn| record::claim(txn, &executor, &wanted, &intent.claims, Some(&intent)))
            .await;
        claimed.map_err(|error| error.into_commit(&self.executor, &self.node))
    }

    async fn unclaim(
        &self,
        prepared: &Prepared,
        operation: &Operation,
        generation: Option<u32>,
        why: &'static str,
    ) {
        let (executor, operation) = (self.executor.clone(), operation.clone());
        let claims = prepared.difference.claims();
        let outcome: Result<(), TxnError> = self
            .node
            .ledger
            .write(move |txn| record::unclaim(txn, &operation, &executor, &claims, generation, why))
            .await;
        if let Err(error) = outcome {
            // The intent stays: recovery does the same again.
            tracing::error!(executor = %self.executor, ?error, "recording a failed commit failed");
        }
    }

    /// The error of a commit whose steps were undone.
    async fn fail(
        &self,
        prepared: &Prepared,
        operation: &Operation,
        failed: Failed,
        undo_failures: Vec<(String, StepError)>,
        fresh: Option<u32>,
    ) -> CommitError {
        let mut used_up = None;
        if let (false, Some(generation)) = (undo_failures.is_empty(), fresh) {
            used_up = Some(generation);
            let container = ContainerId::new(&self.executor, generation);
            if let Err(error) = self.node.runtime.purge(&container).await {
                tracing::error!(executor = %self.executor, %error, "purging a half-made container failed");
            }
        }
        self.unclaim(prepared, operation, used_up, failed.source.class().reason)
            .await;
        CommitError::Step {
            executor: self.executor.clone(),
            element: failed.element,
            step: failed.step.to_owned(),
            source: failed.source,
            undo_failures,
        }
    }

    async fn write(
        &self,
        prepared: &Prepared,
        writing: Writing<'_>,
        claims: bool,
    ) -> Result<(u64, Composition), CommitError> {
        let executor = self.executor.clone();
        let operation = writing.operation.clone();
        let claimed = if claims {
            prepared.difference.claims()
        } else {
            Vec::new()
        };
        let deadlines = deadlines(prepared);
        let Writing {
            wanted,
            changes,
            starts,
            started,
            ..
        } = writing;
        let outcome: Result<_, TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                record::claim(txn, &executor, &wanted, &claimed, None)?;
                let commit = record::Commit {
                    operation: &operation,
                    executor: &executor,
                    wanted: &wanted,
                    changes: &changes,
                    runs: NewRuns {
                        starts: &starts,
                        deadlines: &deadlines,
                        restarts: 0,
                    },
                    started,
                };
                record::commit(txn, &commit)
            })
            .await;
        outcome.map_err(|error| error.into_commit(&self.executor, &self.node))
    }

    pub(super) fn watch_all(&mut self, starts: &[Start]) {
        let Some(live) = &self.live else { return };
        let processes = starts
            .iter()
            .filter_map(|start| live.processes.get(&start.task).map(|p| (start, p)));
        let processes: Vec<_> = processes
            .map(|(start, p)| (start.clone(), p.id.clone()))
            .collect();
        for (start, id) in processes {
            self.watch(&start.task, start.run, &id, start.primary, false);
        }
    }

    async fn unwatch(&mut self) {
        self.waits.shutdown().await;
    }

    /// Deadlines run from the moment the start is durable.
    pub(super) fn arm(&mut self, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        for start in starts {
            let limit = live
                .resolved
                .tasks
                .get(&start.task)
                .and_then(|task| task.deadline_ms);
            if let (Some(process), Some(ms)) = (live.processes.get_mut(&start.task), limit) {
                process.deadline = Some(Instant::now() + Duration::from_millis(ms));
            }
        }
    }

    fn add_processes(&mut self, prepared: &Prepared, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        live.resolved = prepared.resolved.clone();
        let container = live.container.clone();
        live.processes.extend(
            starts
                .iter()
                .map(|start| (start.task.clone(), Process::new(&container, start))),
        );
    }

    fn remove_processes(&mut self, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        live.processes
            .retain(|task, _| starts.iter().all(|start| start.task != *task));
    }
}

impl Live {
    pub(super) fn new(
        container: &ContainerId,
        resolved: super::validate::Resolved,
        starts: &[Start],
    ) -> Self {
        let processes = starts
            .iter()
            .map(|start| (start.task.clone(), Process::new(container, start)));
        let primary = starts.iter().find(|start| start.primary).or(starts.first());
        Self {
            container: container.clone(),
            resolved,
            processes: processes.collect(),
            primary: primary.map_or_else(
                || ProcessId {
                    container: container.clone(),
                    name: String::new(),
                },
                |start| ProcessId::new(container.clone(), &start.task, start.run),
            ),
        }
    }
}

impl Process {
    pub(super) fn new(container: &ContainerId, start: &Start) -> Self {
        Self {
            id: ProcessId::new(container.clone(), &start.task, start.run),
            run: start.run,
            primary: start.primary,
            started: Timestamp::now(),
            restarts: 0,
            deadline: None,
        }
    }
}

fn run_id(start: &Start) -> RunId {
    RunId {
        task: start.task.clone(),
        run: start.run,
    }
}

pub(super) fn deadlines(prepared: &Prepared) -> BTreeMap<ElementId, u64> {
    let tasks = prepared.resolved.tasks.iter();
    tasks
        .filter_map(|(id, task)| task.deadline_ms.map(|ms| (id.clone(), ms)))
        .collect()
}

fn intent(prepared: &Prepared, generation: u32, starts: &[Start], fresh: bool) -> Intent {
    let attaches = prepared.resolved.volumes.iter().filter(|volume| {
        let id = &volume.record.id;
        fresh
            || prepared
                .difference
                .changes
                .get(id)
                .is_some_and(|c| c.contains(&Change::Binds))
    });
    Intent {
        revision: prepared.record.revision,
        generation,
        fresh,
        claims: prepared.difference.claims(),
        attaches: attaches
            .map(|volume| (volume.record.id.clone(), volume.target.clone()))
            .collect(),
        runs: starts
            .iter()
            .map(|start| (start.task.clone(), start.run))
            .collect(),
    }
}

/// The composition before stops and unmounts are done, and the changes put off until then.
fn interim(prepared: &Prepared, changes: &Changes) -> (Composition, Vec<(ElementId, Change)>) {
    let mut wanted = prepared.draft.wanted.clone();
    let committed = &prepared.body.composition.joined;
    let mut deferred = Vec::new();
    let detached: BTreeSet<_> = changes.detaches.iter().map(|(id, _)| id).collect();
    for (id, change) in &prepared.difference.changes {
        let Some(before) = committed.get(id) else {
            continue;
        };
        let stopped = changes.stops.contains(id) && change.contains(&Change::Leaves);
        if detached.contains(id) {
            wanted.joined.insert(id.clone(), before.clone());
            deferred.extend(change.iter().map(|change| (id.clone(), *change)));
        } else if stopped {
            let mut unbound = before.clone();
            unbound.bound = false;
            wanted.joined.insert(id.clone(), unbound);
            deferred.push((id.clone(), Change::Leaves));
        }
    }
    (wanted, deferred)
}

fn no_op(handle: &Handle, prepared: &Prepared) -> CommitResult {
    let changed = &prepared.difference.changes;
    let mut elements: BTreeMap<ElementId, ElementResult> = BTreeMap::new();
    for id in prepared.draft.touched.iter().chain(changed.keys()) {
        let result = if changed.contains_key(id) {
            ElementResult::Success
        } else {
            ElementResult::NoOp
        };
        elements.insert(id.clone(), result);
    }
    let executor = if prepared.difference.is_empty() {
        ElementResult::NoOp
    } else {
        ElementResult::Success
    };
    elements.insert(handle.executor.clone(), executor);
    CommitResult {
        executor: handle.executor.clone(),
        revision: prepared.record.revision,
        elements,
        runs: Vec::new(),
    }
}

/// Whether a start failed because of the task itself and not of the engine.
pub(super) fn is_tasks_fault(error: &StepError) -> bool {
    matches!(error, StepError::Runtime(error) if matches!(
        error.kind,
        RuntimeErrorKind::ExecutableNotFound | RuntimeErrorKind::NotExecutable | RuntimeErrorKind::UnknownUser
    ))
}
