//! Deleting an element whose record is damaged: asked for by name, because nothing can be said of what is lost.

use super::delete::{drop_owned, drop_unread};
use super::{Refused, Verb};
use crate::element::{ElementId, Kind};
use crate::error::{Classify, DeleteError};
use crate::event::Change;
use crate::ledger::{AuditEntry, LedgerError, Txn, Verb as AuditVerb};
use crate::runtime::RuntimeError;
use crate::{Operation, PortLayer};

impl PortLayer {
    /// Deletes an element whose record is damaged (quarantined), with its bytes, the tasks stored with it and, of an
    /// executor, what runs in it. Not idempotent: what is gone is `NotFound`.
    ///
    /// Errors: `InvalidState` when the record can be read: then [`PortLayer::delete`] is the verb; the others as there.
    pub async fn delete_damaged(&self, id: &ElementId) -> Result<(), DeleteError> {
        // Like delete, in a task of its own: record and bytes go together whatever the caller does.
        let (layer, gone) = (self.clone(), id.clone());
        let deleted = tokio::spawn(async move { layer.delete_damaged_alone(&gone).await }).await;
        deleted.map_err(|_| DeleteError::Ledger {
            id: id.clone(),
            source: LedgerError::Closed,
        })?
    }

    async fn delete_damaged_alone(&self, id: &ElementId) -> Result<(), DeleteError> {
        let location = self.usable_location(id, Verb::Delete)?.clone();
        let operation = self.operation();
        // Held until the bytes are gone, so that a create of the same id cannot meet them.
        let held = self.shared.in_flight.exclusive_unpinned(id).await;
        let removed = match &held {
            Ok(_id) => {
                let (at, by) = (id.clone(), operation.clone());
                let ledger = &self.shared.ledger;
                ledger.write(move |txn| remove(txn, &by, &at)).await
            }
            Err(by) => Err(Refused::Verb(DeleteError::InUse {
                id: id.clone(),
                by: by.clone(),
            })),
        };
        match removed {
            Ok(()) => {}
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
        }
        if id.kind() == Kind::Executor {
            self.remove_containers(id)
                .await
                .map_err(|source| DeleteError::Runtime {
                    id: id.clone(),
                    source,
                })?;
        }
        if let Some(store) = &location.store {
            // The keys of its bytes are lost; to the store it is one of those that no record owns.
            let swept = store.sweep(&id.digest_hex()).await;
            swept.map_err(|source| DeleteError::Store {
                id: id.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Removes every container of an executor and its output.
    async fn remove_containers(&self, executor: &ElementId) -> Result<(), RuntimeError> {
        let runtime = &self.shared.runtime;
        for found in runtime.list().await? {
            if found.executor.as_ref() == Some(executor) {
                runtime.purge(&found.id).await?;
            }
        }
        runtime.remove_logs(executor).await
    }
}

fn remove(txn: &mut Txn<'_>, by: &Operation, id: &ElementId) -> Result<(), Refused<DeleteError>> {
    match txn.get(id) {
        Err(LedgerError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(None) => return Err(Refused::Verb(DeleteError::NotFound { id: id.clone() })),
        Ok(Some(record)) => {
            return Err(Refused::Verb(DeleteError::InvalidState {
                id: id.clone(),
                state: record.state,
            }));
        }
    }
    drop_owned(txn, by, id)?;
    drop_unread(txn, id)?;
    txn.remove_unread(id)?;
    txn.audit(by, id, AuditEntry::done(AuditVerb::Delete, 0, 0))?;
    txn.emit(id, 0, Change::Deleted);
    Ok(())
}
