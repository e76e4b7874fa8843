//! Everything of a commit that comes before the first touch: fold, see whether the handle is stale, check the whole,
//! compute the difference. Plan stops here.

use std::collections::BTreeMap;

use super::diff::{Difference, diff};
use super::draft::{Draft, Lookup, fold};
use super::node::Node;
use super::validate::{Facts, Resolved, validate};
use super::{CommitError, ComposeError, Composition, Handle, Op, Role};
use crate::element::{Body, ElementId, ExecutorBody, Kind, Record};
use crate::error::ReadError;
use crate::ledger::LedgerError;
use crate::network::NetworkLease;
use crate::runtime::{DiskBound, IdMapping};

/// A commit that may begin.
#[derive(Clone)]
pub(crate) struct Prepared {
    /// The executor's record it was computed over.
    pub(crate) record: Record,
    /// What is committed.
    pub(crate) body: ExecutorBody,
    /// What is wanted.
    pub(crate) draft: Draft,
    /// The same in the terms of the engine.
    pub(crate) resolved: Resolved,
    /// What is to be done.
    pub(crate) difference: Difference,
}

impl Prepared {
    /// The same with the addresses a claim has given; `None` = it has given none.
    pub(crate) fn leased(&self, lease: Option<NetworkLease>) -> Option<Self> {
        let lease = lease?;
        let mut leased = self.clone();
        if let Some(bridge) = &mut leased.resolved.bridge {
            bridge.lease = Some(lease);
        }
        Some(leased)
    }
}

impl Lookup for Node {
    fn record(&self, id: &ElementId) -> Result<Record, ReadError> {
        match self.ledger.get(id) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(ReadError::NotFound { id: id.clone() }),
            Err(LedgerError::Damaged { .. }) => Err(ReadError::Quarantined { id: id.clone() }),
            Err(error) => Err(error.into()),
        }
    }
}

impl Node {
    /// The record of an executor and what is particular to it.
    pub(crate) fn executor(&self, id: &ElementId) -> Result<(Record, ExecutorBody), ComposeError> {
        let record = self.record(id)?;
        match &record.body {
            Body::Executor(body) => {
                let body = body.as_ref().clone();
                Ok((record, body))
            }
            _ => Err(ComposeError::NotAnExecutor { id: id.clone() }),
        }
    }

    /// Prepares the commit of a handle. Nothing is touched.
    pub(crate) fn prepare(&self, handle: &Handle) -> Result<Prepared, CommitError> {
        let executor = &handle.executor;
        let (record, body) = self.executor(executor)?;
        let committed = &body.composition;
        let draft = match fold(executor, committed, &handle.ops, self) {
            Ok(draft) => draft,
            // What could not be edited any more may be so because someone changed it: then that is the news.
            Err(error) => return Err(self.stale_instead(handle, &record, committed, error)),
        };
        self.check_stale(handle, committed, &draft)?;
        let mut records = BTreeMap::new();
        for (id, joined) in &draft.wanted.joined {
            if let (Role::Part(_), true) = (&joined.role, joined.bound || id.kind() == Kind::Log) {
                records.insert(id.clone(), self.record(id).map_err(ComposeError::from)?);
            }
        }
        let facts = Facts {
            executor,
            spec: &body.spec,
            records: &records,
            networks: &self.networks_of(&draft.wanted),
        };
        let resolved = validate(&facts, &draft)?;
        self.check_users(executor, &resolved)?;
        self.check_locations(executor, committed, &resolved)?;
        let difference = diff(
            executor,
            record.state,
            committed,
            &draft,
            &resolved,
            self.live_attach,
        )?;
        Ok(Prepared {
            record,
            body,
            draft,
            resolved,
            difference,
        })
    }

    /// The host can give the executor the user ids and the disk it is to have.
    fn check_users(&self, executor: &ElementId, resolved: &Resolved) -> Result<(), CommitError> {
        let unresolved = |element: &ElementId, requirement: &str| {
            Err(CommitError::UnresolvedRequirement {
                executor: executor.clone(),
                element: element.clone(),
                requirement: requirement.to_owned(),
            })
        };
        let stored = resolved.volumes.iter().find(|v| v.tmpfs_bytes.is_none());
        if resolved.spec.limits.disk_bytes.is_some() && self.host.isolation.disk == DiskBound::None
        {
            return unresolved(
                executor,
                "mkfs.ext4 and loop devices, which this host does not have, for limits.disk_bytes",
            );
        }
        match (self.host.isolation.ids, stored) {
            _ if !resolved.spec.isolation.own_users() || resolved.tasks.is_empty() => Ok(()),
            (IdMapping::None, _) => unresolved(
                executor,
                "user name spaces, which this host does not allow, or isolation.host_users",
            ),
            (IdMapping::Copied, Some(volume)) => unresolved(
                &volume.record.id,
                "a kernel that maps the ids of mounts, or isolation.host_users of the executor",
            ),
            _ => Ok(()),
        }
    }

    /// The locations of volumes that are about to be attached can be used.
    fn check_locations(
        &self,
        executor: &ElementId,
        committed: &Composition,
        resolved: &Resolved,
    ) -> Result<(), CommitError> {
        let running = super::diff::running(committed).next().is_some();
        for volume in resolved
            .volumes
            .iter()
            .filter(|volume| volume.tmpfs_bytes.is_none())
        {
            let id = &volume.record.id;
            if running && committed.joined.get(id).is_some_and(|joined| joined.bound) {
                continue;
            }
            let requirement = match self.health.check(id.location()) {
                Err(error) => error.to_string(),
                Ok(()) if self.store(id).is_none() => "a location that stores volumes".to_owned(),
                Ok(()) => continue,
            };
            return Err(CommitError::UnresolvedRequirement {
                executor: executor.clone(),
                element: id.clone(),
                requirement,
            });
        }
        Ok(())
    }

    fn check_stale(
        &self,
        handle: &Handle,
        committed: &Composition,
        draft: &Draft,
    ) -> Result<(), CommitError> {
        for op in &handle.ops {
            let Op::Join { id, revision, .. } = op else {
                continue;
            };
            if committed.joined.contains_key(id) || !draft.wanted.joined.contains_key(id) {
                continue;
            }
            let actual = self.record(id).map_or(0, |record| record.revision);
            if actual != *revision {
                return Err(self.stale(&handle.executor, id, *revision, actual));
            }
        }
        for id in &draft.touched {
            let (before, after) = (committed.joined.get(id), draft.wanted.joined.get(id));
            if let Some(before) =
                before.filter(|before| before.changed > handle.revision && Some(*before) != after)
            {
                return Err(self.stale_entry(handle, id, before.changed));
            }
        }
        let limits = committed.limits != draft.wanted.limits;
        if limits && committed.limits_changed > handle.revision {
            return Err(self.stale_entry(handle, &handle.executor, committed.limits_changed));
        }
        Ok(())
    }

    fn stale_instead(
        &self,
        handle: &Handle,
        record: &Record,
        committed: &Composition,
        error: ComposeError,
    ) -> CommitError {
        let id = match &error {
            ComposeError::AlreadyJoined { id, .. }
            | ComposeError::NotJoined { id, .. }
            | ComposeError::AlreadyBound { id }
            | ComposeError::StillBound { id } => id,
            ComposeError::ConflictsWith { other, .. } => other,
            ComposeError::Read(ReadError::NotFound { id }) => {
                let joined = handle.ops.iter().find_map(|op| match op {
                    Op::Join {
                        id: of, revision, ..
                    } if of == id => Some(*revision),
                    _ => None,
                });
                return match joined {
                    Some(revision) => self.stale(&handle.executor, id, revision, 0),
                    None => error.into(),
                };
            }
            _ => return error.into(),
        };
        match committed.joined.get(id).map(|joined| joined.changed) {
            Some(changed) if changed > handle.revision => self.stale_entry(handle, id, changed),
            // It was there when the handle was made and has left since.
            None if record.revision > handle.revision && !handle.joins(id) => {
                self.stale_entry(handle, id, record.revision)
            }
            _ => error.into(),
        }
    }

    /// An entry of the executor changed: the revisions are the executor's.
    fn stale_entry(&self, handle: &Handle, element: &ElementId, actual: u64) -> CommitError {
        CommitError::Stale {
            executor: handle.executor.clone(),
            element: element.clone(),
            expected: handle.revision,
            actual,
            changed_by: self.changed_by(&handle.executor, actual),
        }
    }

    pub(crate) fn stale(
        &self,
        executor: &ElementId,
        element: &ElementId,
        expected: u64,
        actual: u64,
    ) -> CommitError {
        CommitError::Stale {
            executor: executor.clone(),
            element: element.clone(),
            expected,
            actual,
            changed_by: self.changed_by(element, actual),
        }
    }
}

impl Handle {
    fn joins(&self, id: &ElementId) -> bool {
        self.ops
            .iter()
            .any(|op| matches!(op, Op::Join { id: of, .. } if of == id))
    }
}
