//! The ledger transactions of commits and exits: record, references, events and audit rows change together or not
//! at all.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::Change as Difference;
use super::intent::Intent;
use super::steps::Start;
use super::validate::Bridge;
use super::{CommitError, ComposeError, Composition, Run, RunState};
use crate::Operation;
use crate::element::{Body, ElementId, ExecutorBody, Record, State};
use crate::error::ReadError;
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb};
use crate::network::{self, LeaseError, NetworkLease};
use crate::task::ExitRecord;
use crate::time::Moment;

/// What a transaction of ours can refuse.
#[derive(Debug)]
pub(crate) enum TxnError {
    /// The ledger.
    Ledger(LedgerError),
    /// An element the commit needs changed or is gone: its id, the revision seen and the one now (0 = gone).
    Changed(ElementId, u64, u64),
    /// Every range of user ids is another executor's.
    NoIds,
    /// The network has no address or port for the executor.
    Lease(ElementId, LeaseError),
}

impl From<LedgerError> for TxnError {
    fn from(error: LedgerError) -> Self {
        TxnError::Ledger(error)
    }
}

impl TxnError {
    /// The error of the commit of `executor`.
    pub(crate) fn into_commit(self, executor: &ElementId, node: &super::node::Node) -> CommitError {
        match self {
            TxnError::Ledger(source) => CommitError::Ledger {
                executor: executor.clone(),
                source,
            },
            TxnError::NoIds => CommitError::UnresolvedRequirement {
                executor: executor.clone(),
                element: executor.clone(),
                requirement:
                    "a range of user ids of its own: other executors have all of this node's"
                        .to_owned(),
            },
            TxnError::Changed(id, _, 0) if id == *executor => {
                CommitError::Compose(ComposeError::Read(ReadError::NotFound { id }))
            }
            TxnError::Lease(network, error) => no_lease(executor, network, error),
            TxnError::Changed(id, expected, actual) => node.stale(executor, &id, expected, actual),
        }
    }
}

fn no_lease(executor: &ElementId, network: ElementId, error: LeaseError) -> CommitError {
    let executor = executor.clone();
    let unresolved = |requirement: &str| CommitError::UnresolvedRequirement {
        executor: executor.clone(),
        element: network.clone(),
        requirement: requirement.to_owned(),
    };
    match error {
        LeaseError::Ledger(source) => CommitError::Ledger { executor, source },
        LeaseError::NoAddress => unresolved("an address that no executor has"),
        LeaseError::NoPort { at } => unresolved(&format!(
            "a port of the host that no executor has (ports[{at}])"
        )),
        LeaseError::PortTaken { at, by } => CommitError::Invalid {
            executor,
            element: network,
            field: format!("ports[{at}].host_port"),
            rule: format!("published by {by}"),
        },
    }
}

/// Runs of a composition that are set by a transaction.
pub(crate) struct NewRuns<'a> {
    /// What starts.
    pub(crate) starts: &'a [Start],
    /// Deadlines of what starts.
    pub(crate) deadlines: &'a BTreeMap<ElementId, u64>,
    /// Restarts counted so far, by task.
    pub(crate) restarts: u32,
}

fn executor(txn: &Txn<'_>, id: &ElementId) -> Result<(Record, ExecutorBody), TxnError> {
    let gone = || TxnError::Changed(id.clone(), 0, 0);
    let mut record = txn.get(id)?.ok_or_else(gone)?;
    match std::mem::replace(&mut record.body, Body::Log(Default::default())) {
        Body::Executor(body) => Ok((record, *body)),
        _ => Err(gone()),
    }
}

fn put(txn: &mut Txn<'_>, mut record: Record, body: ExecutorBody) -> Result<u64, TxnError> {
    record.revision += 1;
    record.modified = txn.now();
    record.body = Body::Executor(Box::new(body));
    txn.put(&record)?;
    Ok(record.revision)
}

/// Claims what is joined for the first time and stores the intent. Refuses when one of the claimed changed since
/// it was looked at, so that from here on nobody can delete it.
pub(crate) fn claim(
    txn: &mut Txn<'_>,
    id: &ElementId,
    wanted: &Composition,
    claims: &[ElementId],
    intent: Option<&Intent>,
    bridge: Option<&Bridge>,
) -> Result<Option<NetworkLease>, TxnError> {
    let (record, body) = executor(txn, id)?;
    let starts = intent.is_some_and(|intent| intent.fresh);
    if starts && body.spec.isolation.own_users() {
        let slot = txn.allocate_ids(id)?;
        slot.ok_or(TxnError::NoIds)?;
    }
    for claim in claims {
        let seen = wanted.joined.get(claim).map_or(0, |joined| joined.revision);
        let now = txn.get(claim)?.map_or(0, |record| record.revision);
        if now != seen {
            return Err(TxnError::Changed(claim.clone(), seen, now));
        }
        txn.link(Index::References, claim, &record.id);
    }
    let lease = match bridge {
        None => None,
        Some(Bridge {
            id: network,
            spec,
            wanted,
            ..
        }) => {
            let held = body.composition.lease.as_ref();
            let taken = network::take(txn, id, network, spec, wanted, held);
            Some(taken.map_err(|error| TxnError::Lease(network.clone(), error))?)
        }
    };
    if let Some(intent) = intent {
        let intent = Intent {
            lease: lease.clone(),
            ..intent.clone()
        };
        txn.put_intent(id, &intent)?;
    }
    Ok(lease)
}

/// Takes claims and intent back after a commit that failed. `generation`: the container's name is used up, because
/// not all of it could be removed. `why`: the outcome its audit row tells.
pub(crate) fn unclaim(
    txn: &mut Txn<'_>,
    operation: &Operation,
    id: &ElementId,
    claims: &[ElementId],
    generation: Option<u32>,
    why: &str,
) -> Result<(), TxnError> {
    // One that cannot be read says nothing of a lease: the next take gives it the same address again.
    let lease = txn
        .intent::<Intent>(id)
        .ok()
        .flatten()
        .and_then(|intent| intent.lease);
    txn.remove_intent(id);
    for claim in claims {
        txn.unlink(Index::References, claim, id);
    }
    let found = executor(txn, id);
    if let Some(lease) = lease {
        let held = found
            .as_ref()
            .ok()
            .and_then(|(_, body)| body.composition.lease.as_ref());
        network::release(txn, &lease, held);
    }
    let Ok((mut record, mut body)) = found else {
        return Ok(());
    };
    let failed = AuditEntry::failed(Verb::Commit, record.revision, why);
    txn.audit(operation, id, failed)?;
    if let Some(generation) = generation {
        body.composition.generation = generation;
        record.body = Body::Executor(Box::new(body));
        txn.put(&record)?;
    }
    Ok(())
}

/// What a commit makes durable.
pub(crate) struct Commit<'a> {
    /// Who and why.
    pub(crate) operation: &'a Operation,
    /// The executor.
    pub(crate) executor: &'a ElementId,
    /// The composition from now on, but for runs and marks of change.
    pub(crate) wanted: &'a Composition,
    /// What changes.
    pub(crate) changes: &'a BTreeMap<ElementId, Vec<Difference>>,
    /// What was started.
    pub(crate) runs: NewRuns<'a>,
    /// A new container was made.
    pub(crate) started: bool,
    /// What is done after this record; it is removed by the next.
    pub(crate) rest: Option<&'a Intent>,
}

/// Records a commit. Returns the executor's new revision and composition.
pub(crate) fn commit(
    txn: &mut Txn<'_>,
    commit: &Commit<'_>,
) -> Result<(u64, Composition), TxnError> {
    let id = commit.executor;
    let (mut record, body) = executor(txn, id)?;
    let (before, revision) = (record.revision, record.revision + 1);
    let running: BTreeSet<_> = super::diff::running(&body.composition).cloned().collect();
    let mut composition = commit.wanted.clone();
    // The runs are the record's: exits may have been recorded since the draft was made.
    composition.runs = body.composition.runs;
    keep_lease(txn, id, &mut composition, body.composition.lease)?;
    for (element, changes) in commit.changes {
        if let Some(joined) = composition.joined.get_mut(element) {
            joined.changed = revision;
        }
        if element == id {
            composition.limits_changed = revision;
        }
        for change in changes {
            report(
                txn,
                commit,
                element,
                *change,
                running.contains(element),
                revision,
            )?;
        }
    }
    add_runs(txn, &mut composition, &commit.runs);
    if commit.started {
        record.state = State::Running;
        txn.emit(
            id,
            revision,
            Change::Bound {
                executor: id.clone(),
            },
        );
    }
    txn.audit(
        commit.operation,
        id,
        AuditEntry::done(Verb::Commit, before, revision),
    )?;
    match commit.rest {
        Some(intent) => txn.put_intent(id, intent)?,
        None => txn.remove_intent(id),
    }
    let spec = body.spec;
    let stored = ExecutorBody {
        spec,
        composition: composition.clone(),
    };
    let revision = put(txn, record, stored)?;
    Ok((revision, composition))
}

/// Gives the composition the lease of its intent, else the one it had, as long as the network is bound; what it has no
/// more is given back.
fn keep_lease(
    txn: &mut Txn<'_>,
    id: &ElementId,
    composition: &mut Composition,
    held: Option<NetworkLease>,
) -> Result<(), TxnError> {
    let claimed = txn.intent::<Intent>(id)?.and_then(|intent| intent.lease);
    let joined = &composition.joined;
    let bound = |lease: &NetworkLease| {
        joined
            .get(&lease.network)
            .is_some_and(|joined| joined.bound)
    };
    composition.lease = claimed.or_else(|| held.clone()).filter(bound);
    if let Some(held) = held {
        network::release(txn, &held, composition.lease.as_ref());
    }
    Ok(())
}

fn add_runs(txn: &Txn<'_>, composition: &mut Composition, new: &NewRuns<'_>) {
    for start in new.starts {
        let run = Run {
            run: start.run,
            state: RunState::Running,
            started: txn.now(),
            restarts: new.restarts,
            primary: start.primary,
            generation: composition.generation,
            deadline_ms: new.deadlines.get(&start.task).copied(),
            clock: Moment::now(),
        };
        composition.runs.insert(start.task.clone(), run);
    }
}

fn report(
    txn: &mut Txn<'_>,
    commit: &Commit<'_>,
    element: &ElementId,
    change: Difference,
    running: bool,
    revision: u64,
) -> Result<(), TxnError> {
    let executor = commit.executor.clone();
    if element == commit.executor {
        let keys = vec!["limits".to_owned()];
        txn.emit(element, revision, Change::Modified { keys });
        return Ok(());
    }
    let found = txn.get(element)?;
    let at = found.as_ref().map_or(0, |record| record.revision);
    let (verb, event) = match change {
        Difference::Joins => {
            txn.link(Index::References, element, &executor);
            (Verb::Join, Some(Change::Joined { executor }))
        }
        Difference::Binds => (Verb::Bind, Some(Change::Bound { executor })),
        // The end of a task that runs is told with its exit record.
        Difference::Unbinds if running => (Verb::Unbind, None),
        Difference::Unbinds => (
            Verb::Unbind,
            Some(Change::Unbound {
                executor,
                exit: None,
            }),
        ),
        Difference::Leaves => {
            txn.unlink(Index::References, element, &executor);
            (Verb::Leave, Some(Change::Left { executor }))
        }
        Difference::Settings => (Verb::Bind, None),
    };
    if let Some(event) = event {
        txn.emit(element, at, event);
    }
    // The template of a task may be gone: it has no log to add to.
    if found.is_some() {
        txn.audit(commit.operation, element, AuditEntry::done(verb, at, at))?;
    }
    Ok(())
}

/// What is recorded of an end.
pub(crate) struct Ended<'a> {
    /// Who notices.
    pub(crate) operation: &'a Operation,
    /// How it ended.
    pub(crate) exit: &'a ExitRecord,
    /// It will be started again: it stays bound.
    pub(crate) restarts: bool,
}

/// Records the end of a run, once. Returns the composition and revision after it; `None` when the run's end was
/// recorded before or its executor is gone.
pub(crate) fn ended(
    txn: &mut Txn<'_>,
    ended: &Ended<'_>,
) -> Result<Option<(u64, Composition)>, TxnError> {
    let exit = ended.exit;
    let id = &exit.executor;
    let Ok((mut record, mut body)) = executor(txn, id) else {
        return Ok(None);
    };
    let (before, revision) = (record.revision, record.revision + 1);
    let composition = &mut body.composition;
    match composition.runs.get_mut(&exit.task) {
        Some(run) if run.run == exit.run && run.state != RunState::Ended => {
            run.state = RunState::Ended
        }
        _ => return Ok(None),
    }
    // What is started again stays as it was bound: a handle that wants it stopped is not stale for that.
    if let Some(joined) = composition.joined.get_mut(&exit.task)
        && !ended.restarts
    {
        joined.bound = false;
        joined.changed = revision;
    }
    txn.put_exit(exit)?;
    let found = txn.get(&exit.task)?.map(|task| task.revision);
    let unbound = Change::Unbound {
        executor: id.clone(),
        exit: Some(Box::new(exit.clone())),
    };
    emit(
        txn,
        &exit.task,
        found.unwrap_or_default(),
        unbound,
        exit.reconciled,
    );
    if let Some(at) = found {
        txn.audit(
            ended.operation,
            &exit.task,
            AuditEntry::done(Verb::Unbind, at, at),
        )?;
    }
    txn.audit(
        ended.operation,
        id,
        AuditEntry::done(Verb::Unbind, before, revision),
    )?;
    if super::diff::running(composition).next().is_none() {
        record.state = State::Stopped;
        let stopped = Change::Unbound {
            executor: id.clone(),
            exit: None,
        };
        emit(txn, id, revision, stopped, exit.reconciled);
    }
    let composition = composition.clone();
    let revision = put(txn, record, body)?;
    Ok(Some((revision, composition)))
}

fn emit(txn: &mut Txn<'_>, id: &ElementId, revision: u64, change: Change, reconciled: bool) {
    match reconciled {
        true => txn.emit_reconciled(id, revision, change),
        false => txn.emit(id, revision, change),
    };
}

/// Records a start under a restart policy.
pub(crate) fn restarted(
    txn: &mut Txn<'_>,
    operation: &Operation,
    id: &ElementId,
    generation: u32,
    runs: &NewRuns<'_>,
) -> Result<(u64, Composition), TxnError> {
    let (mut record, mut body) = executor(txn, id)?;
    let (before, revision) = (record.revision, record.revision + 1);
    body.composition.generation = generation;
    let held = body.composition.lease.take();
    keep_lease(txn, id, &mut body.composition, held)?;
    add_runs(txn, &mut body.composition, runs);
    for start in runs.starts {
        let at = txn.get(&start.task)?.map_or(0, |task| task.revision);
        txn.emit(
            &start.task,
            at,
            Change::Bound {
                executor: id.clone(),
            },
        );
        if start.primary {
            txn.emit(
                id,
                revision,
                Change::Bound {
                    executor: id.clone(),
                },
            );
        }
    }
    txn.audit(
        operation,
        id,
        AuditEntry::done(Verb::Bind, before, revision),
    )?;
    txn.remove_intent(id);
    record.state = State::Running;
    let composition = body.composition.clone();
    let revision = put(txn, record, body)?;
    Ok((revision, composition))
}

/// Records that the executor was paused or goes on. Idempotent.
pub(crate) fn paused(
    txn: &mut Txn<'_>,
    operation: &Operation,
    id: &ElementId,
    paused: bool,
) -> Result<(), TxnError> {
    let (mut record, body) = executor(txn, id)?;
    let state = if paused {
        State::Paused
    } else {
        State::Running
    };
    let live = matches!(record.state, State::Running | State::Paused);
    if !live || record.state == state {
        return Ok(());
    }
    record.state = state;
    let before = record.revision;
    let revision = put(txn, record, body)?;
    let keys = vec!["state".to_owned()];
    txn.emit(id, revision, Change::Modified { keys });
    txn.audit(
        operation,
        id,
        AuditEntry::done(Verb::Interrupt, before, revision),
    )?;
    Ok(())
}
