//! The verbs of elements: create, read, update, delete, list.
//!
//! Every verb checks in one order (location, fields, metadata, parent, collision), moves bytes, and then makes its
//! change in one ledger transaction together with its audit row and events.

mod check;
mod create;
mod delete;
mod delete_damaged;
pub(crate) mod fields;
mod freespace;
mod inherit;
mod list;
mod make;
mod read;
mod update;

pub(crate) use make::store_keys;

pub use list::{DEFAULT_PAGE, ListQuery, MAX_PAGE, Page};
pub use read::{Keys, Projection, ReadData};
pub use update::Updated;

use super::{Descriptor, ElementId, Record, State, builtin};
use crate::error::{Class, LocationError};
use crate::ledger::{AuditEntry, LedgerError, Verb as AuditVerb};
use crate::store::{Location, Policy};
use crate::{Operation, PortLayer};

/// What a transaction of a verb answers: a refusal of the verb or a failure of the ledger.
enum Refused<E> {
    Verb(E),
    Ledger(LedgerError),
}

impl<E> From<LedgerError> for Refused<E> {
    fn from(error: LedgerError) -> Self {
        Refused::Ledger(error)
    }
}

impl<E> Refused<E> {
    /// Whether the change may be durable although an error came back: then bytes must stay until the next open
    /// compares them with the records.
    fn is_uncertain(&self) -> bool {
        match self {
            Refused::Verb(_) => false,
            Refused::Ledger(error) => matches!(
                error,
                LedgerError::NoSpace | LedgerError::Backend { .. } | LedgerError::Closed
            ),
        }
    }

    /// The verb's own error, a failure of the ledger wrapped by `ledger`.
    fn into_error(self, ledger: impl FnOnce(LedgerError) -> E) -> E {
        match self {
            Refused::Verb(error) => error,
            Refused::Ledger(error) => ledger(error),
        }
    }
}

/// The verbs a policy can forbid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Update,
    Delete,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
        }
    }
}

impl PortLayer {
    /// The location of an id, when its policy allows the verb and it can be used now.
    fn usable_location(&self, id: &ElementId, verb: Verb) -> Result<&Location, LocationError> {
        let location = self.location(id)?;
        let ours = builtin::is_built_in(id)
            || id.location() == builtin::NODE
                && matches!(self.shared.ledger.get(id), Ok(Some(record)) if builtin::is_configured(&record));
        let policy = if ours {
            Policy::ReadOnly
        } else {
            location.policy
        };
        let allowed = match policy {
            Policy::ReadWrite => true,
            Policy::CreateOnly => verb == Verb::Create,
            Policy::ReadOnly => false,
        };
        if !allowed {
            return Err(LocationError::Policy {
                id: id.clone(),
                location: location.name.clone(),
                policy,
                verb: verb.as_str(),
            });
        }
        self.shared.health.check(&location.name)?;
        Ok(location)
    }

    /// The state of an element as it is now.
    pub(crate) fn state_of(&self, record: &Record) -> State {
        match self.shared.health.check(record.id.location()) {
            Ok(()) => record.state,
            Err(_) => State::Unavailable,
        }
    }

    /// The caller's view of a record, with the state as it is now.
    pub(crate) fn describe(&self, record: Record) -> Descriptor {
        let state = self.state_of(&record);
        Descriptor {
            state,
            ..record.into_descriptor()
        }
    }

    /// Notes in the audit log of an element that a verb on it was refused. Best effort: the refusal stands either way.
    async fn audit_refusal(
        &self,
        operation: Operation,
        id: &ElementId,
        verb: AuditVerb,
        why: Class,
    ) {
        let (id, code) = (id.clone(), why.reason);
        let noted = self.shared.ledger.write(move |txn| match txn.get(&id)? {
            Some(record) => {
                let entry = AuditEntry::failed(verb, record.revision, code);
                txn.audit(&operation, &id, entry)
            }
            None => Ok(()),
        });
        let noted: Result<(), LedgerError> = noted.await;
        if let Err(error) = noted {
            tracing::warn!(%error, "a refusal is missing in the audit log");
        }
    }
}

#[cfg(test)]
mod tests;
