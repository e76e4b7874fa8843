//! What of a commit cannot be undone: it stops tasks, then unmounts volumes, then records what that made possible.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Writing;
use crate::Operation;
use crate::compose::diff::{Change, Live as Changes};
use crate::compose::driver::Driver;
use crate::compose::prepare::Prepared;
use crate::compose::steps::{self, Undo};
use crate::compose::stop::KILL_PATIENCE;
use crate::compose::{CommitError, CommitResult, Composition, ElementResult, StepError};
use crate::element::{ElementId, State};
use crate::runtime::ContainerId;
use crate::task::ExitReason;

impl Driver {
    /// What cannot be undone: stops, then unmounts, then the record of what they made possible.
    pub(super) async fn after(
        &mut self,
        prepared: &Prepared,
        changes: &Changes,
        operation: &Operation,
        result: &mut CommitResult,
    ) -> Result<u64, CommitError> {
        let (_, mut deferred) = interim(prepared, changes);
        crate::crash::point("change.before-stop");
        for (task, error) in self.stop_all(prepared, &changes.stops).await {
            // It stays joined: it still uses what it was started with.
            deferred.retain(|(of, _)| *of != task);
            result.elements.insert(task, ElementResult::Error(error));
        }
        let container = ContainerId::new(&self.executor, prepared.body.composition.generation);
        for (id, target) in &changes.detaches {
            if self.live.is_none() {
                break;
            }
            crate::crash::point("change.before-detach");
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
        if let (Some(id), true) = (&changes.disconnects, self.live.is_some())
            && let Err(error) = self.node.runtime.disconnect(&container).await
        {
            deferred.retain(|(of, _)| of != id);
            let error = ElementResult::Error(error.into());
            result.elements.insert(id.clone(), error);
        } else if let Some(live) = &mut self.live
            && changes.disconnects.is_some()
        {
            live.resolved.bridge = None;
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
        crate::crash::point("change.before-second-record");
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

    /// Stops tasks and waits for their ends to be recorded. Returns the ones that outlived SIGKILL; their stop goes on.
    async fn stop_all(
        &mut self,
        prepared: &Prepared,
        tasks: &[ElementId],
    ) -> Vec<(ElementId, StepError)> {
        if tasks.is_empty() {
            return Vec::new();
        }
        if prepared.record.state == State::Paused
            && let Some(live) = &self.live
        {
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

/// The composition before stops and unmounts are done, and the changes put off until then.
pub(super) fn interim(
    prepared: &Prepared,
    changes: &Changes,
) -> (Composition, Vec<(ElementId, Change)>) {
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
    (wanted, deferred)
}
