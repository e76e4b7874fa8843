//! What a call can end with.

use std::error::Error as _;
use std::time::Duration;

use portlayer::element::ElementId;
use portlayer::error::ErrorKind;
use thiserror::Error;
use tonic::{Code, Status};

use crate::wire::{Fault, WireError, kind_of_code};

/// A call that did not succeed.
#[derive(Debug, Error)]
pub enum Error {
    /// The port layer or its server refused or failed it.
    #[error(transparent)]
    Refused(Box<Fault>),
    /// No daemon answers there.
    #[error("no daemon answers at {endpoint}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The address or the TLS settings cannot be used.
    #[error("{endpoint} cannot be used as an endpoint")]
    Endpoint {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The connection was lost before the answer; whether a change was made is unknown until read again.
    #[error("the connection was lost: {}", .0.message())]
    Lost(#[source] Box<Status>),
    /// There was no answer in time; whether a change was made is unknown until read again.
    #[error("no answer to {verb} within {} ms", limit.as_millis())]
    Deadline {
        /// The call.
        verb: &'static str,
        /// The time allowed.
        limit: Duration,
    },
    /// The answer means nothing to this version.
    #[error("the answer cannot be read")]
    Answer(#[from] WireError),
    /// The stream of answers ended before the last one.
    #[error("the answer to {0} ended too early")]
    Short(&'static str),
    /// The caller's data could not be read.
    #[error("reading the data to send failed")]
    Data(#[source] std::io::Error),
    /// Something answered that is no port layer, or one of another version.
    #[error("unexpected answer: {}", .0.message())]
    Status(#[source] Box<Status>),
}

impl Error {
    /// How to go on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused(fault) => fault.kind,
            Error::Unreachable { .. } | Error::Lost(_) | Error::Short(_) => ErrorKind::Unavailable,
            Error::Endpoint { .. } => ErrorKind::InvalidArgument,
            Error::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Error::Data(_) => ErrorKind::Aborted,
            Error::Answer(_) => ErrorKind::Internal,
            Error::Status(status) => kind_of_code(status.code()).unwrap_or(ErrorKind::Internal),
        }
    }

    /// The stable name of the error in snake case.
    pub fn reason(&self) -> &str {
        match self {
            Error::Refused(fault) => &fault.reason,
            Error::Unreachable { .. } => "unreachable",
            Error::Endpoint { .. } => "invalid_endpoint",
            Error::Lost(_) => "connection_lost",
            Error::Deadline { .. } => "deadline",
            Error::Answer(_) => "unreadable_answer",
            Error::Short(_) => "short_answer",
            Error::Data(_) => "data_stream",
            Error::Status(_) => "unexpected_answer",
        }
    }

    /// The element at fault, where there is one.
    pub fn element(&self) -> Option<&ElementId> {
        self.fault()?.element.as_ref()
    }

    /// The field at fault, where there is one.
    pub fn field(&self) -> Option<&str> {
        self.fault()?.field.as_deref()
    }

    /// What else the error knows; see [`Fault::details`].
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.fault()?.details.get(name).map(String::as_str)
    }

    /// Whether the same call may succeed later without anyone changing its arguments.
    pub fn retryable(&self) -> bool {
        self.kind().retryable()
    }

    /// The refusal of the port layer, if it was one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Refused(fault) => Some(fault),
            _ => None,
        }
    }

    /// The daemon went away: another may answer soon.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Error::Lost(_) | Error::Unreachable { .. } | Error::Short(_) => true,
            Error::Refused(fault) => fault.reason == "draining",
            _ => false,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::Refused(Box::new(fault))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(fault) = Fault::from_status(&status) {
            return fault.into();
        }
        // What the transport made has a cause, what a server sent has none.
        let transport = status.source().is_some() || status.code() == Code::Unavailable;
        let status = Box::new(status);
        if transport {
            Error::Lost(status)
        } else {
            Error::Status(status)
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}
