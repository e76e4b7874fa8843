//! Commit: the only act. Prepared as a whole, then run step by step; the intent is durable before the first step
//! that touches an element, the result in one transaction after the last step that can be undone. What cannot be undone - stopping
//! tasks, unmounting - comes after that and is reported by element.

mod after;
mod write;

use std::collections::BTreeMap;
use std::time::Duration;

use after::interim;
use write::{Writing, intent, rest_intent};

use super::diff::{Action, Live as Changes};
use super::driver::Driver;
use super::live::Live;
use super::patience::Away;
use super::prepare::Prepared;
use super::steps::{Start, step};
use super::{CommitError, CommitResult, Composition, ElementResult, Handle, RunId, StepError};
use crate::Operation;
use crate::element::{ElementId, State};
use crate::error::Classify;
use crate::runtime::{ContainerId, RuntimeErrorKind, Scope};

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
            // The container may have ended under the commit: then it is a fresh start that was wanted. Of an engine that went
            // away nobody knows what it has started: whether that is to run again is the caller's to say.
            Err(CommitError::Step { ref source, .. })
                if was_live && !source.is_away() && self.ends_soon().await =>
            {
                self.commit_once(handle, operation).await
            }
            outcome => outcome,
        }
    }

    /// Whether the container turns out to have ended.
    pub(super) async fn ends_soon(&mut self) -> bool {
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
            rest: None,
        };
        self.write(prepared, writing, true).await
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
        let generation = self
            .node
            .next_generation(&self.executor, committed.generation);
        let container = ContainerId::new(&self.executor, generation);
        let starts = self.starts(committed, tasks, true);
        let intent = intent(prepared, generation, &starts, true);
        let scope = Scope::new(&container, prepared.record.revision);
        let mut undo = Vec::new();
        let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
        crate::crash::point("start.before-claim");
        // The lease is of no element and is found by its name, so it alone need not wait for the intent.
        let claim = self.claim(prepared, &intent, true);
        let claim = step("claim", &self.executor, claim);
        let (claimed, begun) = futures::join!(claim, steps.begin(&mut undo));
        let leased = match claimed {
            Ok(lease) => prepared.leased(lease),
            Err(error) => {
                for (step, error) in steps.undo(undo).await {
                    tracing::warn!(executor = %self.executor, step, %error, "undoing a refused commit failed");
                }
                return Err(error);
            }
        };
        let prepared = leased.as_ref().unwrap_or(prepared);
        let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
        crate::crash::point("start.before-steps");
        let started = match begun {
            Ok(()) => steps.start(&starts, &mut undo).await,
            Err(failed) => Err(failed),
        };
        if let Err(failed) = started {
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
            rest: None,
        };
        self.live = Some(live);
        self.watch_all(&starts);
        crate::crash::point("start.before-record");
        let write = self.write(prepared, writing, false);
        let written = step("record", &prepared.record.id, write).await;
        crate::crash::point("start.after-record");
        match written {
            Ok(revision) => {
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
        let (wanted, rest) = interim(prepared, changes);
        let mut first = prepared.difference.changes.clone();
        first.iter_mut().for_each(|(id, changes)| {
            changes.retain(|change| !rest.deferred.contains(&(id.clone(), *change)))
        });
        let writing = Writing {
            operation,
            wanted,
            changes: first,
            starts: starts.clone(),
            started: false,
            rest: (!rest.deferred.is_empty()).then(|| rest_intent(prepared, &rest)),
        };
        let scope = Scope::new(&container, prepared.record.revision);
        let connects = changes.connects.is_some();
        if connects || !changes.attaches.is_empty() || !starts.is_empty() {
            let intent = intent(prepared, committed.generation, &starts, false);
            crate::crash::point("change.before-claim");
            let lease = self.claim(prepared, &intent, connects).await?;
            let leased = prepared.leased(lease);
            let prepared = leased.as_ref().unwrap_or(prepared);
            crate::crash::point("change.before-steps");
            let mut undo = Vec::new();
            let steps = self.steps(&prepared.record, &container, &scope, &prepared.resolved);
            let before = self.live.as_ref().map(|live| &live.resolved);
            let before = before.and_then(|resolved| resolved.bridge_plan(&self.executor));
            let changed = async {
                if connects {
                    steps.connect_live(before, &mut undo).await?;
                }
                steps.change(&changes.attaches, &starts, &mut undo).await
            };
            if let Err(failed) = changed.await {
                let failures = steps.undo(undo).await;
                return Err(self.fail(prepared, operation, failed, failures, None).await);
            }
            let watched = self.waits.len();
            self.add_processes(prepared, &starts);
            crate::crash::point("change.before-record");
            match self.write(prepared, writing, false).await {
                Ok(revision) => {
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
            result.revision = self.write(prepared, writing, true).await?;
        }
        let finished = self.finish(rest, operation, &mut result.elements).await?;
        Ok(finished.unwrap_or(result.revision))
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
}

fn run_id(start: &Start) -> RunId {
    RunId {
        task: start.task.clone(),
        run: start.run,
    }
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
