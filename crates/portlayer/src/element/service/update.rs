//! Update: patches the mutable metadata.

use super::{Refused, Verb};
use crate::PortLayer;
use crate::element::{Descriptor, ElementId, Patch, metadata};
use crate::error::{Classify, UpdateError};
use crate::event::Change;
use crate::ledger::{AuditEntry, LedgerError, Verb as AuditVerb};

/// What an update did.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// The element after it.
    pub descriptor: Descriptor,
    /// Names of the keys that really changed, sorted. Empty: nothing was to do, the revision is the old one and no
    /// event was sent.
    pub changed: Vec<String>,
}

impl PortLayer {
    /// Patches the mutable metadata: a value sets its key, `None` deletes it (a key that is not there is fine).
    /// With `expected_revision` only when the element is at that revision. Idempotent.
    ///
    /// Errors: `Location`, `NotFound`, `Quarantined`, `Revision`, `ReadOnlyKey`, `InvalidEntry`, `Ledger`; nothing
    /// changed then.
    pub async fn update(
        &self,
        id: &ElementId,
        patch: Patch,
        expected_revision: Option<u64>,
    ) -> Result<Updated, UpdateError> {
        self.usable_location(id, Verb::Update)?;
        let operation = self.operation();
        let by = operation.clone();
        let at = id.clone();
        crate::crash::point("update.before-record");
        let outcome = self
            .shared
            .ledger
            .write(move |txn| {
                let mut record = txn
                    .get(&at)?
                    .ok_or_else(|| Refused::Verb(UpdateError::NotFound { id: at.clone() }))?;
                if let Some(expected) = expected_revision
                    && expected != record.revision
                {
                    return Err(Refused::Verb(UpdateError::Revision {
                        id: at.clone(),
                        expected,
                        actual: record.revision,
                    }));
                }
                if let Some(key) = patch.keys().find(|key| record.ro.contains_key(*key)) {
                    return Err(Refused::Verb(UpdateError::ReadOnlyKey {
                        id: at.clone(),
                        key: key.clone(),
                    }));
                }
                let changed = metadata::apply(&mut record.rw, &patch).map_err(|entry| {
                    Refused::Verb(UpdateError::InvalidEntry {
                        id: at.clone(),
                        entry,
                    })
                })?;
                if !changed.is_empty() {
                    record.revision += 1;
                    record.modified = txn.now();
                    txn.put(&record)?;
                    let entry =
                        AuditEntry::done(AuditVerb::Update, record.revision - 1, record.revision)
                            .checksum(record.checksum)
                            .keys(changed.clone());
                    txn.audit(&by, &at, entry)?;
                    let keys = changed.clone();
                    txn.emit(&at, record.revision, Change::Modified { keys });
                }
                Ok((record, changed))
            })
            .await;
        crate::crash::point("update.after-record");
        match outcome {
            Ok((record, changed)) => Ok(Updated {
                descriptor: self.describe(record),
                changed,
            }),
            Err(Refused::Verb(refusal)) => {
                self.audit_refusal(operation, id, AuditVerb::Update, refusal.class())
                    .await;
                Err(refusal)
            }
            Err(Refused::Ledger(LedgerError::Damaged { .. })) => {
                Err(UpdateError::Quarantined { id: id.clone() })
            }
            Err(Refused::Ledger(source)) => Err(UpdateError::Ledger {
                id: id.clone(),
                source,
            }),
        }
    }
}
