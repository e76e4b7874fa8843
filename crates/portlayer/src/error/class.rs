//! The one table of what each error means: its class, and its name for programs.

use super::{
    CreateError, DeleteError, ErrorKind, LocationError, ParseError, ReadError, UpdateError,
};
use crate::archive::ArchiveError;
use crate::compose::{CommitError, ComposeError, HandleError, StepError, TaskError};
use crate::copy::CopyError;
use crate::element::ElementId;
use crate::ledger::LedgerError;
use crate::runtime::{RuntimeError, RuntimeErrorKind};
use crate::store::StoreError;
use crate::{AuditError, OpenError};

/// What an error means to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// How to go on.
    pub kind: ErrorKind,
    /// A stable name of the variant in snake case; the same in audit rows, JSON and metrics.
    pub reason: &'static str,
}

/// Errors that know their class and the element they are about.
pub trait Classify {
    /// The class.
    fn class(&self) -> Class;

    /// The element at fault, where there is one.
    fn element(&self) -> Option<&ElementId> {
        None
    }

    /// The field at fault, where there is one: a path into what the caller gave.
    fn field(&self) -> Option<String> {
        None
    }
}

/// The path of a metadata entry, whichever map it is in.
fn entry(key: &str) -> Option<String> {
    Some(format!("metadata.{key}"))
}

const fn class(kind: ErrorKind, reason: &'static str) -> Class {
    Class { kind, reason }
}

impl Classify for LocationError {
    fn class(&self) -> Class {
        match self {
            Self::Unknown { .. } => class(ErrorKind::NotFound, "unknown_location"),
            Self::WrongKind { .. } => class(ErrorKind::InvalidArgument, "location_kind"),
            Self::Policy { .. } => class(ErrorKind::FailedPrecondition, "location_policy"),
            Self::Unavailable { .. } => class(ErrorKind::Unavailable, "location_unavailable"),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Unknown { id, .. } | Self::WrongKind { id, .. } | Self::Policy { id, .. } => {
                Some(id)
            }
            Self::Unavailable { .. } => None,
        }
    }
}

impl Classify for CreateError {
    fn class(&self) -> Class {
        match self {
            Self::Location(error) => error.class(),
            Self::AlreadyExists { .. } => class(ErrorKind::AlreadyExists, "already_exists"),
            Self::SpecKind { .. } => class(ErrorKind::InvalidArgument, "spec_kind"),
            Self::InvalidField { .. } => class(ErrorKind::InvalidArgument, "invalid_field"),
            Self::UnknownParent { .. } => class(ErrorKind::NotFound, "unknown_parent"),
            Self::InvalidParent { .. } => class(ErrorKind::InvalidArgument, "invalid_parent"),
            Self::UnknownOwner { .. } => class(ErrorKind::NotFound, "unknown_owner"),
            Self::InvalidOwner { .. } => class(ErrorKind::InvalidArgument, "invalid_owner"),
            Self::InvalidEntry { .. } => class(ErrorKind::InvalidArgument, "invalid_entry"),
            Self::ReadOnlyKey { .. } => class(ErrorKind::InvalidArgument, "read_only_key"),
            Self::Store { source, .. } => source.class(),
            Self::Ledger { source, .. } => source.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Location(error) => error.element(),
            Self::AlreadyExists { id, .. }
            | Self::SpecKind { id, .. }
            | Self::InvalidField { id, .. }
            | Self::UnknownParent { id, .. }
            | Self::InvalidParent { id, .. }
            | Self::UnknownOwner { id, .. }
            | Self::InvalidOwner { id, .. }
            | Self::InvalidEntry { id, .. }
            | Self::ReadOnlyKey { id, .. }
            | Self::Store { id, .. }
            | Self::Ledger { id, .. } => Some(id),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::InvalidField { field, .. } => Some(format!("spec.{field}")),
            Self::SpecKind { .. } => Some("spec".to_owned()),
            Self::UnknownParent { .. } | Self::InvalidParent { .. } => Some("parent".to_owned()),
            Self::UnknownOwner { .. } | Self::InvalidOwner { .. } => Some("owner".to_owned()),
            Self::InvalidEntry { entry: error, .. } => entry(&error.key),
            Self::ReadOnlyKey { key, .. } => entry(key),
            Self::Store { source, .. } => source.field(),
            _ => None,
        }
    }
}

impl Classify for ReadError {
    fn class(&self) -> Class {
        match self {
            Self::Location(error) => error.class(),
            Self::NotFound { .. } => class(ErrorKind::NotFound, "not_found"),
            Self::Quarantined { .. } => class(ErrorKind::DataLoss, "quarantined"),
            Self::InvalidFilter { .. } => class(ErrorKind::InvalidArgument, "invalid_filter"),
            Self::InvalidPage => class(ErrorKind::InvalidArgument, "invalid_page"),
            Self::NoData { .. } => class(ErrorKind::FailedPrecondition, "no_data"),
            Self::Store { source, .. } => source.class(),
            Self::Ledger(error) => error.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Location(error) => error.element(),
            Self::NotFound { id }
            | Self::Quarantined { id }
            | Self::NoData { id }
            | Self::Store { id, .. } => Some(id),
            Self::InvalidFilter { .. } | Self::InvalidPage | Self::Ledger(_) => None,
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::InvalidFilter { .. } => Some("filters".to_owned()),
            Self::InvalidPage => Some("page_token".to_owned()),
            _ => None,
        }
    }
}

impl Classify for CopyError {
    fn class(&self) -> Class {
        use std::io::ErrorKind as Io;
        match self {
            Self::Read(error) => error.class(),
            Self::Location(error) => error.class(),
            Self::Task(error) => error.class(),
            Self::NoFiles { .. } => class(ErrorKind::InvalidArgument, "no_files"),
            Self::Store { source, .. } => source.class(),
            Self::Path { source, .. } => match source.kind() {
                Io::NotFound => class(ErrorKind::NotFound, "no_such_path"),
                _ => class(ErrorKind::InvalidArgument, "path"),
            },
            Self::Archive { source, .. } if source.is_no_space() => {
                class(ErrorKind::ResourceExhausted, "insufficient_space")
            }
            Self::Archive { source, .. } if source.is_bad_archive() => {
                class(ErrorKind::InvalidArgument, "archive")
            }
            Self::Archive {
                source: ArchiveError::Read(_),
                ..
            } => class(ErrorKind::Unavailable, "data_stream"),
            Self::Archive { .. } => class(ErrorKind::FailedPrecondition, "files"),
            Self::Thread { .. } => class(ErrorKind::Internal, "thread"),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Read(error) => error.element(),
            Self::Location(error) => error.element(),
            Self::Task(error) => error.element(),
            Self::NoFiles { id }
            | Self::Store { id, .. }
            | Self::Path { id, .. }
            | Self::Archive { id, .. }
            | Self::Thread { id, .. } => Some(id),
        }
    }

    fn field(&self) -> Option<String> {
        matches!(self, Self::Path { .. }).then(|| "path".to_owned())
    }
}

impl Classify for UpdateError {
    fn class(&self) -> Class {
        match self {
            Self::Location(error) => error.class(),
            Self::NotFound { .. } => class(ErrorKind::NotFound, "not_found"),
            Self::Quarantined { .. } => class(ErrorKind::DataLoss, "quarantined"),
            Self::InvalidEntry { .. } => class(ErrorKind::InvalidArgument, "invalid_entry"),
            Self::ReadOnlyKey { .. } => class(ErrorKind::InvalidArgument, "read_only_key"),
            Self::Revision { .. } => class(ErrorKind::Aborted, "revision"),
            Self::InvalidState { .. } => class(ErrorKind::FailedPrecondition, "invalid_state"),
            Self::Store { source, .. } => source.class(),
            Self::Ledger { source, .. } => source.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Location(error) => error.element(),
            Self::NotFound { id }
            | Self::Quarantined { id }
            | Self::InvalidEntry { id, .. }
            | Self::ReadOnlyKey { id, .. }
            | Self::Revision { id, .. }
            | Self::InvalidState { id, .. }
            | Self::Store { id, .. }
            | Self::Ledger { id, .. } => Some(id),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::InvalidEntry { entry: error, .. } => entry(&error.key),
            Self::ReadOnlyKey { key, .. } => entry(key),
            Self::Revision { .. } => Some("expected_revision".to_owned()),
            _ => None,
        }
    }
}

impl Classify for DeleteError {
    fn class(&self) -> Class {
        match self {
            Self::Location(error) => error.class(),
            Self::NotFound { .. } => class(ErrorKind::NotFound, "not_found"),
            Self::InUse { .. } => class(ErrorKind::FailedPrecondition, "in_use"),
            Self::InvalidState { .. } => class(ErrorKind::FailedPrecondition, "invalid_state"),
            Self::PermissionDenied { .. } => class(ErrorKind::PermissionDenied, "built_in"),
            Self::Store { source, .. } => source.class(),
            Self::Runtime { source, .. } => source.class(),
            Self::Ledger { source, .. } => source.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Location(error) => error.element(),
            Self::NotFound { id }
            | Self::InUse { id, .. }
            | Self::InvalidState { id, .. }
            | Self::PermissionDenied { id }
            | Self::Store { id, .. }
            | Self::Runtime { id, .. }
            | Self::Ledger { id, .. } => Some(id),
        }
    }
}

impl Classify for ComposeError {
    fn class(&self) -> Class {
        match self {
            Self::Read(error) => error.class(),
            Self::Location(error) => error.class(),
            Self::NotAnExecutor { .. } => class(ErrorKind::InvalidArgument, "not_an_executor"),
            Self::WrongRole { .. } => class(ErrorKind::InvalidArgument, "wrong_role"),
            Self::WrongBind { .. } => class(ErrorKind::InvalidArgument, "wrong_bind"),
            Self::AlreadyJoined { .. } => class(ErrorKind::AlreadyExists, "already_joined"),
            Self::NotJoined { .. } => class(ErrorKind::FailedPrecondition, "not_joined"),
            Self::AlreadyBound { .. } => class(ErrorKind::FailedPrecondition, "already_bound"),
            Self::StillBound { .. } => class(ErrorKind::FailedPrecondition, "still_bound"),
            Self::ConflictsWith { .. } => class(ErrorKind::FailedPrecondition, "conflicts"),
            Self::InvalidField { .. } => class(ErrorKind::InvalidArgument, "invalid_field"),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Read(error) => error.element(),
            Self::Location(error) => error.element(),
            Self::NotAnExecutor { id }
            | Self::WrongRole { id, .. }
            | Self::WrongBind { id }
            | Self::AlreadyJoined { id, .. }
            | Self::NotJoined { id, .. }
            | Self::AlreadyBound { id }
            | Self::StillBound { id }
            | Self::ConflictsWith { id, .. }
            | Self::InvalidField { id, .. } => Some(id),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.field(),
            Self::InvalidField { field, .. } => Some(field.clone()),
            Self::WrongRole { .. } | Self::WrongBind { .. } => Some("how".to_owned()),
            _ => None,
        }
    }
}

impl Classify for CommitError {
    fn class(&self) -> Class {
        match self {
            Self::Compose(error) => error.class(),
            Self::Stale { .. } => class(ErrorKind::Aborted, "stale"),
            Self::NoRoot { .. } => class(ErrorKind::FailedPrecondition, "no_root"),
            Self::UnresolvedRequirement { .. } => {
                class(ErrorKind::FailedPrecondition, "unresolved_requirement")
            }
            Self::Invalid { .. } => class(ErrorKind::InvalidArgument, "invalid_composition"),
            Self::NeedsRestart { .. } => class(ErrorKind::FailedPrecondition, "needs_restart"),
            Self::Step { source, .. } => source.class(),
            Self::Ledger { source, .. } => source.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Compose(error) => error.element(),
            Self::Stale { element, .. }
            | Self::UnresolvedRequirement { element, .. }
            | Self::Invalid { element, .. }
            | Self::NeedsRestart { element, .. }
            | Self::Step { element, .. } => Some(element),
            Self::NoRoot { executor, .. } | Self::Ledger { executor, .. } => Some(executor),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::Compose(error) => error.field(),
            Self::Invalid { field, .. } => Some(field.clone()),
            _ => None,
        }
    }
}

impl Classify for TaskError {
    fn class(&self) -> Class {
        match self {
            Self::Compose(error) => error.class(),
            Self::NeverStarted { .. } => class(ErrorKind::FailedPrecondition, "never_started"),
            Self::NotRunning { .. } | Self::Idle { .. } => {
                class(ErrorKind::FailedPrecondition, "not_running")
            }
            Self::Runtime { source, .. } => source.class(),
            Self::Ledger { source, .. } => source.class(),
        }
    }

    fn element(&self) -> Option<&ElementId> {
        match self {
            Self::Compose(error) => error.element(),
            Self::NeverStarted { task, .. }
            | Self::NotRunning { task, .. }
            | Self::Runtime { task, .. } => Some(task),
            Self::Idle { executor } | Self::Ledger { executor, .. } => Some(executor),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::Compose(error) => error.field(),
            _ => None,
        }
    }
}

impl Classify for StepError {
    fn class(&self) -> Class {
        match self {
            Self::Runtime(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::StillRunning { .. } => class(ErrorKind::DeadlineExceeded, "still_running"),
        }
    }
}

impl Classify for HandleError {
    fn class(&self) -> Class {
        class(ErrorKind::InvalidArgument, "invalid_handle")
    }

    fn field(&self) -> Option<String> {
        Some("handle".to_owned())
    }
}

impl Classify for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::ChecksumMismatch { .. } => class(ErrorKind::DataLoss, "checksum_mismatch"),
            Self::UnsupportedFormat(_) => class(ErrorKind::InvalidArgument, "unsupported_format"),
            Self::RefusedEntry { .. } => class(ErrorKind::InvalidArgument, "refused_entry"),
            Self::Archive { .. } => class(ErrorKind::InvalidArgument, "refused_archive"),
            Self::Data(_) => class(ErrorKind::Aborted, "data_stream"),
            Self::InsufficientSpace { .. } => {
                class(ErrorKind::ResourceExhausted, "insufficient_space")
            }
            Self::Unsupported(_) => class(ErrorKind::Unimplemented, "unsupported_by_location"),
            Self::InvalidParent(_) => class(ErrorKind::InvalidArgument, "invalid_parent"),
            Self::InUse(_) => class(ErrorKind::FailedPrecondition, "in_use"),
            Self::Unavailable(_) => class(ErrorKind::Unavailable, "location_unavailable"),
            Self::Missing(_) => class(ErrorKind::DataLoss, "missing_bytes"),
            Self::Backend { .. } => class(ErrorKind::Internal, "store_backend"),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::ChecksumMismatch { .. } => Some("checksum".to_owned()),
            Self::UnsupportedFormat(_) | Self::RefusedEntry { .. } | Self::Archive { .. } => {
                Some("data".to_owned())
            }
            _ => None,
        }
    }
}

impl Classify for RuntimeError {
    fn class(&self) -> Class {
        match &self.kind {
            RuntimeErrorKind::NotFound => class(ErrorKind::NotFound, "engine_not_found"),
            RuntimeErrorKind::AlreadyExists => {
                class(ErrorKind::AlreadyExists, "engine_already_exists")
            }
            RuntimeErrorKind::State => class(ErrorKind::FailedPrecondition, "engine_state"),
            RuntimeErrorKind::Busy => class(ErrorKind::FailedPrecondition, "busy"),
            RuntimeErrorKind::Unavailable => class(ErrorKind::Unavailable, "engine_unavailable"),
            RuntimeErrorKind::Timeout => class(ErrorKind::DeadlineExceeded, "engine_timeout"),
            RuntimeErrorKind::NoSpace => class(ErrorKind::ResourceExhausted, "insufficient_space"),
            RuntimeErrorKind::Unsupported => class(ErrorKind::Unimplemented, "unsupported"),
            RuntimeErrorKind::ExecutableNotFound => {
                class(ErrorKind::FailedPrecondition, "executable_not_found")
            }
            RuntimeErrorKind::NotExecutable => {
                class(ErrorKind::FailedPrecondition, "not_executable")
            }
            RuntimeErrorKind::UnknownUser => class(ErrorKind::FailedPrecondition, "unknown_user"),
            RuntimeErrorKind::Firewall => class(ErrorKind::Internal, "firewall"),
            RuntimeErrorKind::LogUnavailable => class(ErrorKind::Unavailable, "log_unavailable"),
            RuntimeErrorKind::PortInUse { .. } => {
                class(ErrorKind::FailedPrecondition, "port_in_use")
            }
            RuntimeErrorKind::MountTarget { .. } => {
                class(ErrorKind::FailedPrecondition, "mount_target")
            }
            RuntimeErrorKind::UnsafeImage { .. } => {
                class(ErrorKind::FailedPrecondition, "unsafe_image")
            }
            RuntimeErrorKind::Internal => class(ErrorKind::Internal, "engine_failure"),
        }
    }
}

impl Classify for LedgerError {
    fn class(&self) -> Class {
        match self {
            Self::Locked { .. } => class(ErrorKind::FailedPrecondition, "ledger_locked"),
            Self::NewerSchema { .. } => class(ErrorKind::FailedPrecondition, "ledger_newer"),
            Self::Unopenable { .. } => class(ErrorKind::DataLoss, "ledger_unopenable"),
            Self::NoSpace => class(ErrorKind::ResourceExhausted, "ledger_no_space"),
            Self::Damaged { .. } => class(ErrorKind::DataLoss, "quarantined"),
            Self::Failed => class(ErrorKind::Unavailable, "ledger_failed"),
            Self::Panicked => class(ErrorKind::Internal, "ledger_panicked"),
            Self::Closed => class(ErrorKind::Unavailable, "ledger_closed"),
            Self::Backend { .. } => class(ErrorKind::Internal, "ledger_backend"),
        }
    }
}

impl Classify for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::Ledger(error) => error.class(),
            Self::DuplicateLocation(_) => class(ErrorKind::InvalidArgument, "duplicate_location"),
            Self::LocationName(_) => class(ErrorKind::InvalidArgument, "location_name"),
            Self::Network(_) => class(ErrorKind::InvalidArgument, "network"),
            Self::Runtime(error) => error.class(),
        }
    }
}

impl Classify for AuditError {
    fn class(&self) -> Class {
        match self {
            Self::Runtime(error) => error.class(),
            Self::Store { source, .. } => source.class(),
            Self::Ledger(error) => error.class(),
        }
    }
}

impl Classify for ParseError {
    fn class(&self) -> Class {
        match self {
            Self::Id(_) => class(ErrorKind::InvalidArgument, "invalid_id"),
            Self::Checksum(_) => class(ErrorKind::InvalidArgument, "invalid_checksum"),
        }
    }
}
