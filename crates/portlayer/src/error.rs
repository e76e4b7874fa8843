//! Errors: one enum per operation, one table of classes.
//!
//! A caller matches on the variant to act and on [`ErrorKind`] to decide how to go on. Texts are for people: lower
//! case, no full stop, naming the element; the cause is in `source`.

mod any;
mod class;

pub use any::Error;
pub use class::{Class, Classify};

use crate::element::{Checksum, ChecksumError, ElementId, EntryError, IdError, Kind, State};
use crate::ledger::LedgerError;
use crate::runtime::RuntimeError;
use crate::store::{Policy, StoreError};

/// The classes of errors; each asks something different of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Something named does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The input breaks a rule; the same input will always fail.
    InvalidArgument,
    /// The state of the system forbids it now.
    FailedPrecondition,
    /// Someone else changed it first: read again, repeat.
    Aborted,
    /// Not allowed.
    PermissionDenied,
    /// Disk, memory or another bounded thing is used up.
    ResourceExhausted,
    /// A part is away; repeat later.
    Unavailable,
    /// This node cannot do it.
    Unimplemented,
    /// The time allowed is over; the outcome is unknown until read again.
    DeadlineExceeded,
    /// Stored bytes are damaged or do not match.
    DataLoss,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Every class.
    pub const ALL: [ErrorKind; 12] = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InvalidArgument,
        ErrorKind::FailedPrecondition,
        ErrorKind::Aborted,
        ErrorKind::PermissionDenied,
        ErrorKind::ResourceExhausted,
        ErrorKind::Unavailable,
        ErrorKind::Unimplemented,
        ErrorKind::DeadlineExceeded,
        ErrorKind::DataLoss,
        ErrorKind::Internal,
    ];

    /// The name in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::InvalidArgument => "invalid_argument",
            ErrorKind::FailedPrecondition => "failed_precondition",
            ErrorKind::Aborted => "aborted",
            ErrorKind::PermissionDenied => "permission_denied",
            ErrorKind::ResourceExhausted => "resource_exhausted",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unimplemented => "unimplemented",
            ErrorKind::DeadlineExceeded => "deadline_exceeded",
            ErrorKind::DataLoss => "data_loss",
            ErrorKind::Internal => "internal",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<ErrorKind> {
        ErrorKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// Whether the same call may succeed later without anyone changing its arguments.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::Aborted
                | ErrorKind::ResourceExhausted
                | ErrorKind::Unavailable
                | ErrorKind::DeadlineExceeded
        )
    }
}

/// A location that cannot be used for what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// No location of this name is configured.
    #[error("unknown location {location:?} of {id}")]
    Unknown {
        /// The element asked for.
        id: ElementId,
        /// Its location.
        location: String,
    },
    /// The location does not hold elements of this kind.
    #[error("location {location:?} holds no elements of kind {kind}: {id}")]
    WrongKind {
        /// The element asked for.
        id: ElementId,
        /// Its location.
        location: String,
        /// Its kind.
        kind: Kind,
    },
    /// The location's policy forbids the verb.
    #[error("location {location:?} is {policy:?}, {verb} of {id} is not allowed")]
    Policy {
        /// The element asked for.
        id: ElementId,
        /// Its location.
        location: String,
        /// What the policy is.
        policy: Policy,
        /// What was asked.
        verb: &'static str,
    },
    /// The location cannot be reached.
    #[error("location {location:?} is unavailable: {reason}")]
    Unavailable {
        /// The location.
        location: String,
        /// For people.
        reason: String,
    },
}

/// Create refused.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The location cannot be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The id is taken; with the checksum of what is there, so a caller can see whether it is the same.
    #[error("{id} already exists")]
    AlreadyExists {
        /// The id.
        id: ElementId,
        /// Checksum of what is there.
        checksum: Option<Checksum>,
    },
    /// The spec is of another kind than the id.
    #[error("{id}: spec is of kind {spec}")]
    SpecKind {
        /// The id.
        id: ElementId,
        /// Kind of the spec.
        spec: Kind,
    },
    /// A field of the spec breaks a rule; `field` is a path into it.
    #[error("{id}: field {field}: {rule}")]
    InvalidField {
        /// The id.
        id: ElementId,
        /// Path of the field.
        field: String,
        /// The rule.
        rule: String,
    },
    /// The parent does not exist.
    #[error("parent {parent} of {id} does not exist")]
    UnknownParent {
        /// The id.
        id: ElementId,
        /// The parent.
        parent: ElementId,
    },
    /// The parent cannot be one.
    #[error("{parent} cannot be the parent of {id}: {reason}")]
    InvalidParent {
        /// The id.
        id: ElementId,
        /// The parent.
        parent: ElementId,
        /// Why.
        reason: &'static str,
    },
    /// The storage element a task is to be stored with does not exist.
    #[error("owner {owner} of {id} does not exist")]
    UnknownOwner {
        /// The id.
        id: ElementId,
        /// The owner.
        owner: ElementId,
    },
    /// The element cannot be an owner, or this kind has none.
    #[error("{owner} cannot be the owner of {id}: {reason}")]
    InvalidOwner {
        /// The id.
        id: ElementId,
        /// The owner.
        owner: ElementId,
        /// Why.
        reason: &'static str,
    },
    /// A metadata entry breaks a rule.
    #[error("{id}: {entry}")]
    InvalidEntry {
        /// The id.
        id: ElementId,
        /// The entry and rule.
        #[source]
        entry: EntryError,
    },
    /// A key is in both maps.
    #[error("{id}: key {key:?} is read-only and cannot be read-write too")]
    ReadOnlyKey {
        /// The id.
        id: ElementId,
        /// The key.
        key: String,
    },
    /// The bytes could not be stored; nothing is left of them.
    #[error("storing the data of {id} failed")]
    Store {
        /// The id.
        id: ElementId,
        /// What the store said: checksum, format, space, backend.
        #[source]
        source: StoreError,
    },
    /// The record could not be stored.
    #[error("recording {id} failed")]
    Ledger {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// Read, list, export or events refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The location cannot be used.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// No such element.
    #[error("{id} does not exist")]
    NotFound {
        /// The id.
        id: ElementId,
    },
    /// The element's record is damaged; every other element is unhurt.
    #[error("the record of {id} is damaged and quarantined")]
    Quarantined {
        /// The id.
        id: ElementId,
    },
    /// The filter cannot be parsed or names an unknown field.
    #[error("invalid filter at offset {at}: {reason}")]
    InvalidFilter {
        /// Offset in bytes into the filter's text.
        at: usize,
        /// The rule.
        reason: String,
    },
    /// The page token is none of ours.
    #[error("invalid page token")]
    InvalidPage,
    /// The element never had a data stream.
    #[error("{id} has no data")]
    NoData {
        /// The id.
        id: ElementId,
    },
    /// The bytes could not be read.
    #[error("reading the data of {id} failed")]
    Store {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The ledger could not be read.
    #[error("reading the ledger failed")]
    Ledger(#[from] LedgerError),
}

/// Update refused; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The location cannot be used or forbids updates.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// No such element.
    #[error("{id} does not exist")]
    NotFound {
        /// The id.
        id: ElementId,
    },
    /// The element's record is damaged.
    #[error("the record of {id} is damaged and quarantined")]
    Quarantined {
        /// The id.
        id: ElementId,
    },
    /// A metadata entry breaks a rule.
    #[error("{id}: {entry}")]
    InvalidEntry {
        /// The id.
        id: ElementId,
        /// The entry and rule.
        #[source]
        entry: EntryError,
    },
    /// The key is in the immutable map.
    #[error("{id}: key {key:?} is read-only")]
    ReadOnlyKey {
        /// The id.
        id: ElementId,
        /// The key.
        key: String,
    },
    /// The caller's expected revision is not the current one.
    #[error("{id} is at revision {actual}, not {expected}")]
    Revision {
        /// The id.
        id: ElementId,
        /// As the caller said.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// What was asked cannot be done in this state (free space of a bound volume).
    #[error("{id}: {reason}")]
    InvalidState {
        /// The id.
        id: ElementId,
        /// Why.
        reason: &'static str,
    },
    /// The store could not do it.
    #[error("changing the data of {id} failed")]
    Store {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The record could not be stored.
    #[error("recording {id} failed")]
    Ledger {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// Delete refused; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The location cannot be used or forbids deletes.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// No such element.
    #[error("{id} does not exist")]
    NotFound {
        /// The id.
        id: ElementId,
    },
    /// Other elements need it.
    #[error("{id} is in use by {}", by.iter().map(ElementId::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// The id.
        id: ElementId,
        /// Who needs it: children, executors.
        by: Vec<ElementId>,
    },
    /// An executor that runs cannot be deleted.
    #[error("{id} is {}", state.as_str())]
    InvalidState {
        /// The id.
        id: ElementId,
        /// Its state.
        state: State,
    },
    /// Built-in elements stay.
    #[error("{id} is built in")]
    PermissionDenied {
        /// The id.
        id: ElementId,
    },
    /// The record is gone, the bytes could not be removed yet; the sweep will.
    #[error("removing the data of {id} failed")]
    Store {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The engine could not remove what belongs to the executor.
    #[error("removing {id} from the engine failed")]
    Runtime {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: RuntimeError,
    },
    /// The record could not be removed.
    #[error("recording the removal of {id} failed")]
    Ledger {
        /// The id.
        id: ElementId,
        /// Cause.
        #[source]
        source: LedgerError,
    },
}

/// Bad text where an id or checksum was expected, before any operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Not a checksum.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
}
