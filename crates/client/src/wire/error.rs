//! Errors: the domain's as a gRPC status with google.rpc details, and back.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use portlayer::compose::{CommitError, StepError};
use portlayer::element::ElementId;
use portlayer::error::{CreateError, DeleteError, Error, ErrorKind, ReadError, UpdateError};
use portlayer::runtime::RuntimeError;
use portlayer_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Wire, WireError, optional_id};

/// The domain of our reasons in google.rpc.ErrorInfo.
const DOMAIN: &str = "portlayer";
/// Longest message, in bytes: a status travels in headers, which are bounded.
const MESSAGE_BYTES: usize = 1024;
/// Longest value of a detail, in bytes.
const DETAIL_BYTES: usize = 1024;
/// Ids listed in a detail; for more the count tells.
const IDS: usize = 8;

/// A refused or failed call, or a part of one: what a program needs to go on, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How to go on.
    pub kind: ErrorKind,
    /// The stable name of the error in snake case, as in audit rows.
    pub reason: String,
    /// The element at fault, where there is one.
    pub element: Option<ElementId>,
    /// The field at fault, where there is one: a path into what the caller gave.
    pub field: Option<String>,
    /// For people: the error with its causes.
    pub message: String,
    /// What else the error knows, by name: `by` (in use), `checksum` (already exists), `expected` and `actual`
    /// (revision, stale), `changed_by` (stale), `step` and `undo_failures` (commit), `engine` (its words).
    pub details: BTreeMap<String, String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// A fault without element, field and details.
    pub fn new(kind: ErrorKind, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.to_owned(),
            element: None,
            field: None,
            message: message.into(),
            details: BTreeMap::new(),
        }
    }

    /// Of any error of the port layer.
    pub fn of(error: impl Into<Error>) -> Self {
        let error = error.into();
        Self {
            kind: error.kind(),
            reason: error.reason().to_owned(),
            element: error.element().cloned(),
            field: error.field(),
            message: message(&error),
            details: details(&error),
        }
    }

    /// Of a failed step of a commit that went on.
    pub fn of_step(error: StepError) -> Self {
        let element = match &error {
            StepError::StillRunning { task, .. } => Some(task.clone()),
            StepError::Runtime(_) | StepError::Store(_) => None,
        };
        use portlayer::error::Classify;
        let class = error.class();
        let mut details = BTreeMap::new();
        if let StepError::Runtime(error) = &error {
            engine_words(error, &mut details);
        }
        Self {
            kind: class.kind,
            reason: class.reason.to_owned(),
            element,
            field: None,
            message: message(&error),
            details,
        }
    }

    /// Whether the same call may succeed later without anyone changing its arguments.
    pub fn retryable(&self) -> bool {
        self.kind.retryable()
    }

    /// As the status of a call.
    pub fn into_status(self) -> Status {
        let mut info: HashMap<String, String> = self
            .details
            .into_iter()
            .map(|(name, value)| (name, cut(value, DETAIL_BYTES)))
            .collect();
        info.insert("retryable".to_owned(), self.kind.retryable().to_string());
        let message = cut(self.message, MESSAGE_BYTES);
        let mut details = ErrorDetails::new();
        if let Some(field) = self.field {
            details.add_bad_request_violation(field.clone(), message.clone());
            info.insert("field".to_owned(), field);
        }
        if let Some(element) = self.element {
            let kind = element.kind().as_str();
            details.set_resource_info(kind, element.as_str(), "", "");
            info.insert("element".to_owned(), element.to_string());
        }
        details.set_error_info(self.reason, DOMAIN, info);
        Status::with_error_details(code(self.kind), message, details)
    }

    /// The fault in a status; `None` when it does not come from us.
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        if info.domain != DOMAIN {
            return None;
        }
        let mut details: BTreeMap<String, String> = info.metadata.into_iter().collect();
        details.remove("retryable");
        let element = details.remove("element");
        Some(Self {
            kind: kind_of_code(status.code())?,
            reason: info.reason,
            element: element.and_then(|text| text.parse().ok()),
            field: details.remove("field"),
            message: status.message().to_owned(),
            details,
        })
    }
}

/// A status of any error of the port layer.
pub fn status_of(error: impl Into<Error>) -> Status {
    Fault::of(error).into_status()
}

impl Wire for Fault {
    type Message = v1::Fault;

    fn into_wire(self) -> v1::Fault {
        let Fault {
            kind,
            reason,
            element,
            field,
            message,
            details,
        } = self;
        v1::Fault {
            kind: kind.as_str().to_owned(),
            reason,
            element: element.map(|id| id.to_string()),
            field,
            message,
            details,
        }
    }

    fn from_wire(message: v1::Fault) -> Result<Self, WireError> {
        let kind = ErrorKind::from_name(&message.kind).ok_or_else(|| WireError::Unknown {
            field: "kind".to_owned(),
            value: message.kind.clone(),
        })?;
        Ok(Fault {
            kind,
            reason: message.reason,
            element: optional_id("element", message.element.as_deref())?,
            field: message.field,
            message: message.message,
            details: message.details,
        })
    }
}

/// The class of a code; `None` for codes no error of ours has.
pub fn kind_of_code(of: Code) -> Option<ErrorKind> {
    ErrorKind::ALL.into_iter().find(|kind| code(*kind) == of)
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// An error and its causes on one line.
pub fn message(error: &dyn std::error::Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A transparent cause repeats its wrapper.
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ").replace('\n', " ")
}

/// What an error knows beyond its class.
fn details(error: &Error) -> BTreeMap<String, String> {
    let mut details = BTreeMap::new();
    let mut tell = |name: &str, value: String| details.insert(name.to_owned(), value);
    match error {
        Error::Delete(DeleteError::InUse { by, .. }) => {
            let ids: Vec<_> = by.iter().take(IDS).map(ElementId::as_str).collect();
            tell("by", ids.join(" "));
            tell("by_count", by.len().to_string());
        }
        Error::Create(CreateError::AlreadyExists {
            checksum: Some(sum),
            ..
        }) => {
            tell("checksum", sum.to_string());
        }
        Error::Update(UpdateError::Revision {
            expected, actual, ..
        }) => {
            tell("expected", expected.to_string());
            tell("actual", actual.to_string());
        }
        Error::Commit(CommitError::Stale {
            expected,
            actual,
            changed_by,
            ..
        }) => {
            tell("expected", expected.to_string());
            tell("actual", actual.to_string());
            tell("changed_by", changed_by.clone());
        }
        Error::Commit(CommitError::Step {
            step,
            undo_failures,
            ..
        }) => {
            tell("step", step.clone());
            if !undo_failures.is_empty() {
                let failures = undo_failures.iter();
                let failures = failures.map(|(step, error)| format!("{step}: {error}"));
                tell("undo_failures", failures.collect::<Vec<_>>().join("; "));
            }
        }
        Error::Read(ReadError::InvalidFilter { at, .. }) => {
            tell("at", at.to_string());
        }
        _ => {}
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        // Transparent wrappers hide the engine's error from the chain: look into those too.
        let runtime = error
            .downcast_ref::<RuntimeError>()
            .or_else(|| match error.downcast_ref::<Error>() {
                Some(Error::Runtime(error)) => Some(error),
                _ => None,
            })
            .or_else(|| match error.downcast_ref::<StepError>() {
                Some(StepError::Runtime(error)) => Some(error),
                _ => None,
            });
        if let Some(runtime) = runtime {
            engine_words(runtime, &mut details);
        }
        cause = error.source();
    }
    details
}

fn engine_words(error: &RuntimeError, details: &mut BTreeMap<String, String>) {
    if !error.text.is_empty() {
        details.insert("engine".to_owned(), error.text.clone());
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    text
}
