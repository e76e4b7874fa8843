//! What of a commit cannot be undone: it stops tasks, then unmounts volumes, then records what that made possible.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Writing;
use crate::Operation;
use crate::compose::diff::{Change, Live as Changes};
use crate::compose::driver::Driver;
use crate::compose::intent::{Intent, Rest};
use crate::compose::prepare::Prepared;
use crate::compose::steps::{self, Undo};
use crate::compose::stop::KILL_PATIENCE;
use crate::compose::{CommitError, Composition, ElementResult, StepError};
use crate::element::{ElementId, State};
use crate::task::ExitReason;

impl Driver {
    /// What cannot be undone: stops, then unmounts, then the record of what they made possible. Returns the executor's
    /// revision; `None` when it is gone, which it may be at once after the end of its last task.
    pub(super) async fn finish(
        &mut self,
        rest: Rest,
        operation: &Operation,
        elements: &mut BTreeMap<ElementId, ElementResult>,
    ) -> Result<Option<u64>, CommitError> {
        let Rest {
            stops,
            detaches,
            disconnects,
            mut deferred,
        } = rest;
        // Without it there is no intent: a task that runs and is not bound is stopped by every start of ours.
        let has_intent = !deferred.is_empty();
        crate::crash::point("change.before-stop");
        for (task, error) in self.stop_all(&stops).await {
            // It stays joined: it still uses what it was started with.
            deferred.retain(|(of, _)| *of != task);
            elements.insert(task, ElementResult::Error(error));
        }
        for (id, target) in &detaches {
            let Some(container) = self.live.as_ref().map(|live| live.container.clone()) else {
                break;
            };
            crate::crash::point("change.before-detach");
            let detached = self.node.runtime.detach_mount(&container, target).await;
            if let Err(error) = detached {
                deferred.retain(|(of, _)| of != id);
                elements.insert(id.clone(), ElementResult::Error(error.into()));
                continue;
            }
            self.forget_volume(id).await;
        }
        if let (Some(id), Some(live)) = (&disconnects, &mut self.live) {
            match self.node.runtime.disconnect(&live.container).await {
                Ok(()) => live.resolved.bridge = None,
                Err(error) => {
                    deferred.retain(|(of, _)| of != id);
                    elements.insert(id.clone(), ElementResult::Error(error.into()));
                }
            }
        }
        // The ends of stopped tasks were recorded meanwhile.
        let Ok((record, body)) = self.node.executor(&self.executor) else {
            // With its last task gone it may have been deleted at once: the commit was done.
            self.forget_rest().await;
            return Ok(None);
        };
        if deferred.is_empty() {
            if has_intent {
                self.forget_rest().await;
            }
            return Ok(Some(record.revision));
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
        crate::crash::point("change.before-second-record");
        let writing = Writing {
            operation,
            wanted,
            changes,
            starts: Vec::new(),
            started: false,
            rest: None,
        };
        let revision = self.write_all(writing, Vec::new(), BTreeMap::new()).await?;
        Ok(Some(revision))
    }

    /// Finishes a commit we died in after its record: what was acknowledged to nobody, and cannot be taken back.
    pub(in crate::compose) async fn finish_rest(&mut self) {
        let Some(rest) = self.rest() else { return };
        tracing::info!(executor = %self.executor, "finishing a commit that was interrupted");
        let operation = Operation {
            id: "recover".to_owned(),
            actor: "driver".to_owned(),
        };
        let mut elements = BTreeMap::new();
        let finished = self.finish(rest, &operation, &mut elements).await;
        if let Err(error) = finished {
            tracing::error!(executor = %self.executor, %error, "finishing an interrupted commit failed, left to the next open");
        }
        for (element, result) in elements {
            tracing::warn!(executor = %self.executor, %element, ?result, "an interrupted commit could not do everything");
        }
    }

    /// What is left to do of a commit we died in.
    pub(in crate::compose) fn rest(&self) -> Option<Rest> {
        let intent = self.node.ledger.intent::<Intent>(&self.executor);
        intent.ok().flatten()?.rest
    }

    /// Stops tasks and waits for their ends to be recorded. Returns the ones that outlived SIGKILL; their stop goes on.
    async fn stop_all(&mut self, tasks: &[ElementId]) -> Vec<(ElementId, StepError)> {
        if tasks.is_empty() {
            return Vec::new();
        }
        let paused = self.node.executor(&self.executor);
        let paused = paused.is_ok_and(|(record, _)| record.state == State::Paused);
        if let (true, Some(live)) = (paused, &self.live) {
            match self.node.runtime.set_paused(&live.container, false).await {
                Ok(_) => self.node.note_thawed(&self.executor).await,
                Err(error) => {
                    tracing::warn!(executor = %self.executor, %error, "thawing a container to stop its tasks failed");
                }
            }
        }
        let mut limit = Duration::ZERO;
        for task in tasks {
            if let Some(stop) = self.stop_of(task, ExitReason::Cancelled) {
                limit = limit.max(Duration::from_millis(stop.grace_ms) + KILL_PATIENCE);
            }
            self.stop_in_background(task, ExitReason::Cancelled);
        }
        let until = Instant::now() + limit;
        // Other tasks may end meanwhile: every end is recorded as it comes.
        while tasks.iter().any(|task| self.runs(task)) {
            match tokio::time::timeout_at(until, self.waits.join_next()).await {
                Ok(Some(end)) => self.on_end(end).await,
                Ok(None) => return Vec::new(),
                Err(_) => return self.still_running(tasks, limit),
            }
        }
        Vec::new()
    }

    fn still_running(&self, tasks: &[ElementId], limit: Duration) -> Vec<(ElementId, StepError)> {
        let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let running = tasks.iter().filter(|task| self.runs(task));
        let named = running.map(|task| {
            tracing::error!(executor = %self.executor, %task, after_ms, "a task outlived SIGKILL");
            let error = StepError::StillRunning {
                task: task.clone(),
                after_ms,
            };
            (task.clone(), error)
        });
        named.collect()
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
            (steps::detach(&volume), self.node.store(id))
        else {
            return;
        };
        if let Err(error) = store.detach(id, &keys, &self.executor).await {
            tracing::warn!(volume = %id, executor = %self.executor, %error, "detaching a volume failed");
        }
    }
}

/// The composition before stops and unmounts are done, and what is put off until then.
pub(super) fn interim(prepared: &Prepared, changes: &Changes) -> (Composition, Rest) {
    let mut wanted = prepared.draft.wanted.clone();
    let committed = &prepared.body.composition.joined;
    let mut deferred = Vec::new();
    let detached = changes.detaches.iter().map(|(id, _)| id);
    let detached: BTreeSet<_> = detached.chain(&changes.disconnects).collect();
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
    let rest = Rest {
        stops: changes.stops.clone(),
        detaches: changes.detaches.clone(),
        disconnects: changes.disconnects.clone(),
        deferred,
    };
    (wanted, rest)
}
