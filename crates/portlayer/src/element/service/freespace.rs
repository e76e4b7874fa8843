//! Free space: grows the bytes of an element that is not in use.

use super::make::store_keys;
use super::{Refused, Verb};
use crate::PortLayer;
use crate::element::{Body, Descriptor, ElementId, Record, State};
use crate::error::UpdateError;
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb as AuditVerb};
use crate::store::StoreError;

/// Name of the changed field in events and audit rows.
const FIELD: &str = "spec.freespace_bytes";

impl PortLayer {
    /// Grows a volume or image so that `bytes` are free in it. Idempotent.
    ///
    /// Errors: `Location`, `NotFound`, `Quarantined`, `InvalidState` (bound, or a kind without bytes), `Store`,
    /// `Ledger`.
    pub async fn ensure_freespace(
        &self,
        id: &ElementId,
        bytes: u64,
    ) -> Result<Descriptor, UpdateError> {
        let location = self.usable_location(id, Verb::Update)?.clone();
        let _id = self.shared.in_flight.exclusive(id).await;
        let at = id.clone();
        let checked = self.shared.ledger.write(move |txn| unused(txn, &at)).await;
        let record = checked.map_err(|refused| refused_as(id, refused))?;
        let no_bytes = || UpdateError::InvalidState {
            id: id.clone(),
            reason: "elements of this kind have no bytes",
        };
        store_keys(&record.body).ok_or_else(no_bytes)?;
        let store = location.store.as_ref().ok_or_else(no_bytes)?;
        store
            .ensure_freespace(&record, bytes)
            .await
            .map_err(|error| match error {
                StoreError::InUse(reason) => UpdateError::InvalidState {
                    id: id.clone(),
                    reason,
                },
                source => UpdateError::Store {
                    id: id.clone(),
                    source,
                },
            })?;
        let (at, by) = (id.clone(), self.operation());
        let recorded = self.shared.ledger.write(move |txn| {
            let mut record = found(txn, &at)?;
            if set_freespace(&mut record.body, bytes) {
                record.revision += 1;
                record.modified = txn.now();
                txn.put(&record)?;
                let keys = vec![FIELD.to_owned()];
                let row = AuditEntry::done(AuditVerb::Update, record.revision - 1, record.revision)
                    .checksum(record.checksum)
                    .keys(keys.clone());
                txn.audit(&by, &at, row)?;
                txn.emit(&at, record.revision, Change::Modified { keys });
            }
            Ok(record)
        });
        let record = recorded.await.map_err(|refused| refused_as(id, refused))?;
        Ok(self.describe(record))
    }
}

fn found(txn: &Txn<'_>, id: &ElementId) -> Result<Record, Refused<UpdateError>> {
    let record = txn.get(id)?;
    record.ok_or_else(|| Refused::Verb(UpdateError::NotFound { id: id.clone() }))
}

/// The record, when no running executor uses the element.
fn unused(txn: &Txn<'_>, id: &ElementId) -> Result<Record, Refused<UpdateError>> {
    let record = found(txn, id)?;
    for executor in txn.linked(Index::References, id)? {
        if let Some(executor) = txn.get(&executor)?
            && matches!(executor.state, State::Running | State::Paused)
        {
            return Err(Refused::Verb(UpdateError::InvalidState {
                id: id.clone(),
                reason: "a running executor uses it",
            }));
        }
    }
    Ok(record)
}

/// Whether the demand changed.
fn set_freespace(body: &mut Body, bytes: u64) -> bool {
    let stored = match body {
        Body::Image(image) => &mut image.spec.freespace_bytes,
        Body::Volume(volume) => &mut volume.spec.freespace_bytes,
        _ => return false,
    };
    std::mem::replace(stored, bytes) != bytes
}

fn refused_as(id: &ElementId, refused: Refused<UpdateError>) -> UpdateError {
    refused.into_error(|source| match source {
        LedgerError::Damaged { .. } => UpdateError::Quarantined { id: id.clone() },
        source => UpdateError::Ledger {
            id: id.clone(),
            source,
        },
    })
}
