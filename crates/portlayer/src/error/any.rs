//! One error over all operations, for callers that only pass it on.

use thiserror::Error;

use super::{
    Class, Classify, CreateError, DeleteError, ErrorKind, LocationError, ParseError, ReadError,
    UpdateError,
};
use crate::compose::{CommitError, ComposeError, HandleError, TaskError};
use crate::copy::CopyError;
use crate::element::{ChecksumError, ElementId, IdError};
use crate::ledger::LedgerError;
use crate::runtime::RuntimeError;
use crate::store::StoreError;
use crate::{AuditError, OpenError};

macro_rules! any_error {
    ($($(#[$doc:meta])* $variant:ident($source:ty),)*) => {
        /// Any error of the port layer.
        #[derive(Debug, Error)]
        pub enum Error {
            $($(#[$doc])* #[error(transparent)] $variant(#[from] $source),)*
        }

        impl Classify for Error {
            fn class(&self) -> Class {
                match self {
                    $(Error::$variant(error) => error.class(),)*
                }
            }

            fn element(&self) -> Option<&ElementId> {
                match self {
                    $(Error::$variant(error) => error.element(),)*
                }
            }

            fn field(&self) -> Option<String> {
                match self {
                    $(Error::$variant(error) => error.field(),)*
                }
            }
        }
    };
}

any_error! {
    /// Open.
    Open(OpenError),
    /// An id or checksum in text.
    Parse(ParseError),
    /// A location.
    Location(LocationError),
    /// Create.
    Create(CreateError),
    /// Read, list, export, events.
    Read(ReadError),
    /// Update, free space.
    Update(UpdateError),
    /// Delete.
    Delete(DeleteError),
    /// Open, join, bind, unbind, leave of a handle.
    Compose(ComposeError),
    /// A handle's token.
    Handle(HandleError),
    /// Commit.
    Commit(CommitError),
    /// Wait, interrupt, logs, attach, resize.
    Task(TaskError),
    /// A store.
    Store(StoreError),
    /// The engine.
    Runtime(RuntimeError),
    /// The ledger.
    Ledger(LedgerError),
    /// The audit.
    Audit(AuditError),
    /// Copies in and out.
    Copy(CopyError),
}

impl Error {
    /// How to go on.
    pub fn kind(&self) -> ErrorKind {
        self.class().kind
    }

    /// The stable name of the variant, snake case.
    pub fn reason(&self) -> &'static str {
        self.class().reason
    }

    /// The element at fault, where there is one.
    pub fn element(&self) -> Option<&ElementId> {
        Classify::element(self)
    }

    /// The field at fault, where there is one: a path into what the caller gave.
    pub fn field(&self) -> Option<String> {
        Classify::field(self)
    }

    /// Whether the same call may succeed later without anyone changing its arguments.
    pub fn retryable(&self) -> bool {
        self.kind().retryable()
    }
}

impl From<IdError> for Error {
    fn from(error: IdError) -> Self {
        Error::Parse(error.into())
    }
}

impl From<ChecksumError> for Error {
    fn from(error: ChecksumError) -> Self {
        Error::Parse(error.into())
    }
}
