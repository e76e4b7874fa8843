//! Delete: one transaction that refuses or removes, then the bytes.

use super::make::store_keys;
use super::{Refused, Verb, builtin};
use crate::element::{Body, ElementId, Kind, Record, State};
use crate::error::{Classify, DeleteError};
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb as AuditVerb};
use crate::{Operation, PortLayer, network};

impl PortLayer {
    /// Deletes an element, its bytes, and the tasks stored with it. Not idempotent: what is gone is `NotFound`.
    ///
    /// Errors: `Location`, `PermissionDenied` (built in), `NotFound`, `InUse` with everything that needs it (children
    /// being made included), `InvalidState` (an executor that runs), `Ledger` (of a damaged record too:
    /// [`PortLayer::delete_damaged`]); nothing changed then. `Store` and
    /// `Runtime` come after the record is gone: the element does not exist any more and recovery removes the rest.
    pub async fn delete(&self, id: &ElementId) -> Result<(), DeleteError> {
        // Like create, in a task of its own: record and bytes go together whatever the caller does.
        let (layer, gone) = (self.clone(), id.clone());
        let deleted = tokio::spawn(async move { layer.delete_alone(&gone).await }).await;
        deleted.map_err(|_| DeleteError::Ledger {
            id: id.clone(),
            source: LedgerError::Closed,
        })?
    }

    async fn delete_alone(&self, id: &ElementId) -> Result<(), DeleteError> {
        let there = self.shared.ledger.get(id);
        let configured = matches!(&there, Ok(Some(record)) if builtin::is_configured(record));
        if builtin::is_built_in(id) || configured {
            return match there {
                Ok(Some(_)) => Err(DeleteError::PermissionDenied { id: id.clone() }),
                Ok(None) => Err(DeleteError::NotFound { id: id.clone() }),
                Err(source) => Err(DeleteError::Ledger {
                    id: id.clone(),
                    source,
                }),
            };
        }
        let location = self.usable_location(id, Verb::Delete)?.clone();
        // Held until the bytes are gone, so that a create of the same id cannot meet them.
        let operation = self.operation();
        let held = self.shared.in_flight.exclusive_unpinned(id).await;
        crate::crash::point("delete.before-record");
        let removed = match &held {
            Ok(_id) => {
                let (at, by) = (id.clone(), operation.clone());
                self.shared
                    .ledger
                    .write(move |txn| remove(txn, &by, &at))
                    .await
            }
            Err(by) => Err(Refused::Verb(DeleteError::InUse {
                id: id.clone(),
                by: by.clone(),
            })),
        };
        let record = match removed {
            Ok(record) => record,
            Err(Refused::Verb(refusal)) => {
                self.audit_refusal(operation, id, AuditVerb::Delete, refusal.class())
                    .await;
                return Err(refusal);
            }
            Err(Refused::Ledger(source)) => {
                return Err(DeleteError::Ledger {
                    id: id.clone(),
                    source,
                });
            }
        };
        crate::crash::point("delete.before-bytes");
        if id.kind() == Kind::Executor {
            self.remove_executor_remains(&record)
                .await
                .map_err(|source| DeleteError::Runtime {
                    id: id.clone(),
                    source,
                })?;
        }
        if id.kind() == Kind::Network {
            let forgotten = self.shared.runtime.forget_network(id).await;
            forgotten.map_err(|source| DeleteError::Runtime {
                id: id.clone(),
                source,
            })?;
        }
        if let (Some(store), Some(keys)) = (&location.store, store_keys(&record.body)) {
            store
                .remove(id, keys)
                .await
                .map_err(|source| DeleteError::Store {
                    id: id.clone(),
                    source,
                })?;
        }
        crate::crash::point("delete.after-bytes");
        Ok(())
    }
}

/// Removes the record of an element and all that hangs on it, or says what needs it.
fn remove(
    txn: &mut Txn<'_>,
    by: &Operation,
    id: &ElementId,
) -> Result<Record, Refused<DeleteError>> {
    let record = txn
        .get(id)?
        .ok_or_else(|| Refused::Verb(DeleteError::NotFound { id: id.clone() }))?;
    if matches!(record.state, State::Running | State::Paused) {
        return Err(Refused::Verb(DeleteError::InvalidState {
            id: id.clone(),
            state: record.state,
        }));
    }
    drop_owned(txn, by, id)?;
    drop_record(txn, by, &record)?;
    Ok(record)
}

/// Removes the tasks stored with an element, or says what needs it or one of them.
pub(super) fn drop_owned(
    txn: &mut Txn<'_>,
    by: &Operation,
    id: &ElementId,
) -> Result<(), Refused<DeleteError>> {
    let owned = txn.linked(Index::Owned, id)?;
    let mut needed_by = users(txn, id)?;
    for task in &owned {
        needed_by.extend(users(txn, task)?);
    }
    needed_by.retain(|user| !owned.contains(user));
    if !needed_by.is_empty() {
        needed_by.sort();
        needed_by.dedup();
        return Err(Refused::Verb(DeleteError::InUse {
            id: id.clone(),
            by: needed_by,
        }));
    }
    for task in owned {
        if let Some(task) = txn.get(&task)? {
            drop_record(txn, by, &task)?;
        }
    }
    Ok(())
}

/// What a record need not be read for: the executors that were started from a task, the user ids of an executor.
pub(super) fn drop_unread(txn: &mut Txn<'_>, id: &ElementId) -> Result<(), LedgerError> {
    match id.kind() {
        Kind::Task => {
            for executor in txn.linked(Index::References, id)? {
                txn.unlink(Index::References, id, &executor);
            }
        }
        Kind::Executor => txn.free_ids(id)?,
        _ => {}
    }
    Ok(())
}

/// Who needs an element. A joined task was copied into its executor, so executors do not need tasks.
fn users(txn: &Txn<'_>, id: &ElementId) -> Result<Vec<ElementId>, LedgerError> {
    let mut by = txn.linked(Index::Children, id)?;
    if id.kind() != Kind::Task {
        by.extend(txn.linked(Index::References, id)?);
    }
    Ok(by)
}

fn drop_record(txn: &mut Txn<'_>, by: &Operation, record: &Record) -> Result<(), LedgerError> {
    let id = &record.id;
    if let Some(parent) = &record.parent {
        txn.unlink(Index::Children, parent, id);
    }
    if let Some(owner) = &record.owner {
        txn.unlink(Index::Owned, owner, id);
    }
    if let Body::Executor(executor) = &record.body {
        if let Some(lease) = &executor.composition.lease {
            network::release(txn, lease, None);
        }
        for joined in executor.composition.joined.keys() {
            txn.unlink(Index::References, joined, id);
            if let Some(element) = txn.get(joined)? {
                let executor = id.clone();
                let row = AuditEntry::done(AuditVerb::Leave, element.revision, element.revision);
                txn.audit(by, joined, row)?;
                txn.emit(joined, element.revision, Change::Left { executor });
            }
        }
    }
    drop_unread(txn, id)?;
    if id.kind() == Kind::Task {
        txn.remove_data(id);
    }
    txn.remove(id);
    txn.audit(
        by,
        id,
        AuditEntry::done(AuditVerb::Delete, record.revision, 0),
    )?;
    txn.emit(id, record.revision, Change::Deleted);
    Ok(())
}
