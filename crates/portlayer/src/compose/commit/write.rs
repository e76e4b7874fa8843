//! What a commit writes to the ledger: its claims and intent before the first step, its result or its failure after.

use std::collections::BTreeMap;

use crate::Operation;
use crate::compose::diff::Change;
use crate::compose::driver::Driver;
use crate::compose::intent::{Intent, Rest};
use crate::compose::patience::{Away, patiently};
use crate::compose::prepare::Prepared;
use crate::compose::record::{self, NewRuns, TxnError};
use crate::compose::steps::{Failed, Start};
use crate::compose::{CommitError, Composition, StepError};
use crate::element::ElementId;
use crate::error::Classify;
use crate::ledger::LedgerError;
use crate::network::NetworkLease;
use crate::runtime::ContainerId;

/// What is written about a commit.
pub(super) struct Writing<'a> {
    pub(super) operation: &'a Operation,
    pub(super) wanted: Composition,
    pub(super) changes: BTreeMap<ElementId, Vec<Change>>,
    pub(super) starts: Vec<Start>,
    pub(super) started: bool,
    /// What follows.
    pub(super) rest: Option<Intent>,
}

impl Driver {
    pub(super) async fn claim(
        &self,
        prepared: &Prepared,
        intent: &Intent,
        connects: bool,
    ) -> Result<Option<NetworkLease>, CommitError> {
        let (executor, wanted) = (self.executor.clone(), prepared.draft.wanted.clone());
        let intent = intent.clone();
        let bridge = prepared.resolved.bridge.clone().filter(|_| connects);
        let claimed: Result<_, TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                let (claims, intent) = (&intent.claims, Some(&intent));
                record::claim(txn, &executor, &wanted, claims, intent, bridge.as_deref())
            })
            .await;
        claimed.map_err(|error| error.into_commit(&self.executor, &self.node))
    }

    pub(super) async fn unclaim(
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
    pub(super) async fn fail(
        &self,
        prepared: &Prepared,
        operation: &Operation,
        failed: Failed,
        undo_failures: Vec<(String, StepError)>,
        fresh: Option<u32>,
    ) -> CommitError {
        let mut used_up = None;
        // An engine that went away may have done more than it knows of now.
        let unknown = failed.source.is_away() || !undo_failures.is_empty();
        if let (true, Some(generation)) = (unknown, fresh) {
            used_up = Some(generation);
            let container = ContainerId::new(&self.executor, generation);
            let waited = undo_failures.iter().any(|(_, error)| error.is_away());
            let purged = match waited {
                false => patiently(|| self.node.runtime.purge(&container)).await,
                true => self.node.runtime.purge(&container).await,
            };
            if let Err(error) = purged {
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

    pub(super) async fn write(
        &mut self,
        prepared: &Prepared,
        writing: Writing<'_>,
        claims: bool,
    ) -> Result<u64, CommitError> {
        let claims = match claims {
            true => prepared.difference.claims(),
            false => Vec::new(),
        };
        self.write_all(writing, claims, deadlines(prepared)).await
    }

    /// Writes the result of a commit, or of its rest. Returns the executor's new revision.
    pub(super) async fn write_all(
        &mut self,
        writing: Writing<'_>,
        claims: Vec<ElementId>,
        deadlines: BTreeMap<ElementId, u64>,
    ) -> Result<u64, CommitError> {
        let executor = self.executor.clone();
        let operation = writing.operation.clone();
        let Writing {
            wanted,
            changes,
            starts,
            started,
            rest,
            ..
        } = writing;
        let outcome: Result<_, TxnError> = self
            .node
            .ledger
            .write(move |txn| {
                record::claim(txn, &executor, &wanted, &claims, None, None)?;
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
                    rest: rest.as_ref(),
                };
                record::commit(txn, &commit)
            })
            .await;
        let (revision, composition) =
            outcome.map_err(|error| error.into_commit(&self.executor, &self.node))?;
        // A task that waited for its restart and was unbound, or started by this commit, waits no more.
        let Composition { joined, runs, .. } = &composition;
        self.restarts.retain(|task, restart| {
            let bound = joined.get(task).is_some_and(|joined| joined.bound);
            bound && runs.get(task).is_some_and(|run| run.run == restart.after)
        });
        Ok(revision)
    }

    /// Removes the intent of a commit of which nothing is left to do.
    pub(super) async fn forget_rest(&self) {
        let executor = self.executor.clone();
        let written: Result<(), LedgerError> = self
            .node
            .ledger
            .write(move |txn| {
                txn.remove_intent(&executor);
                Ok(())
            })
            .await;
        if let Err(error) = written {
            // The next open finds nothing left to do and removes it.
            tracing::error!(executor = %self.executor, %error, "removing the intent of a commit failed");
        }
    }
}

fn deadlines(prepared: &Prepared) -> BTreeMap<ElementId, u64> {
    let tasks = prepared.resolved.tasks.iter();
    tasks
        .filter_map(|(id, task)| task.deadline_ms.map(|ms| (id.clone(), ms)))
        .collect()
}

pub(super) fn intent(
    prepared: &Prepared,
    generation: u32,
    starts: &[Start],
    fresh: bool,
) -> Intent {
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
        lease: None,
        rest: None,
        runs: starts
            .iter()
            .map(|start| (start.task.clone(), start.run))
            .collect(),
    }
}

/// The intent that stays from the record of a commit until its rest is done.
pub(super) fn rest_intent(prepared: &Prepared, rest: &Rest) -> Intent {
    Intent {
        revision: prepared.record.revision,
        generation: prepared.body.composition.generation,
        fresh: false,
        claims: Vec::new(),
        attaches: Vec::new(),
        lease: None,
        runs: Vec::new(),
        rest: Some(rest.clone()),
    }
}
