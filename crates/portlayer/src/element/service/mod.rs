//! The verbs of elements: create, read, update, delete, list.
//!
//! Every verb checks in one order (location, fields, metadata, parent, collision), moves bytes, and then makes its
//! change in one ledger transaction together with its audit row and events.

mod check;
mod create;
mod delete;
pub(crate) mod fields;
mod inherit;
mod make;
mod read;
mod update;

pub use update::Updated;

use super::{Descriptor, ElementId, Record, State, builtin};
use crate::PortLayer;
use crate::error::LocationError;
use crate::ledger::LedgerError;
use crate::store::{Location, Policy};

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
            Refused::Ledger(error) => !matches!(error, LedgerError::Failed),
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
        let allowed = match location.policy {
            Policy::ReadWrite => true,
            Policy::CreateOnly => verb == Verb::Create,
            Policy::ReadOnly => false,
        };
        if !allowed {
            return Err(LocationError::Policy {
                id: id.clone(),
                location: location.name.clone(),
                policy: location.policy,
                verb: verb.as_str(),
            });
        }
        self.shared.health.check(&location.name)?;
        Ok(location)
    }

    /// The caller's view of a record, with the state as it is now.
    pub(crate) fn describe(&self, record: Record) -> Descriptor {
        let mut descriptor = record.into_descriptor();
        if self.shared.health.check(descriptor.id.location()).is_err() {
            descriptor.state = State::Unavailable;
        }
        descriptor
    }
}
