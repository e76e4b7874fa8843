//! Conversions between the domain types of [`portlayer`] and the messages of [`portlayer_proto`], in both directions.
//! The only place that knows both; client and server use it.
//!
//! What goes out of a node carries no values of secrets: see [`hide_secrets`].

mod compose;
mod copy;
mod element;
mod error;
mod event;
mod network;
mod node;
mod spec;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use portlayer::element::{Checksum, ChecksumError, ElementId, IdError};
use portlayer::error::ErrorKind;
use portlayer::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};
use thiserror::Error;

pub use compose::{bind, join};
pub use element::{
    hide_secrets, list_query, list_request, new_element, patch, projection, projection_message,
    read_new_element, update_request,
};
pub use error::{Fault, kind_of_code, message, status_of};
pub use event::{fetched, gap_event, parts, read_fetched};
pub use task::{log_query, logs_request};

/// A domain type with its message.
pub trait Wire: Sized {
    /// The message.
    type Message;

    /// As a message.
    fn into_wire(self) -> Self::Message;

    /// From a message. Errors name the field that cannot mean anything.
    fn from_wire(message: Self::Message) -> Result<Self, WireError>;
}

/// A message that means nothing: which field breaks which rule. Paths of fields are those of the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Not an id.
    #[error("field {field}: {source}")]
    Id {
        /// Path of the field.
        field: String,
        /// Why.
        #[source]
        source: IdError,
    },
    /// Not a checksum.
    #[error("field {field}: {source}")]
    Checksum {
        /// Path of the field.
        field: String,
        /// Why.
        #[source]
        source: ChecksumError,
    },
    /// A field without which the message means nothing.
    #[error("field {field} is missing")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A value this version does not know.
    #[error("field {field}: unknown value {value:?}")]
    Unknown {
        /// Path of the field.
        field: String,
        /// As given.
        value: String,
    },
    /// A value that breaks a rule.
    #[error("field {field}: {rule}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// The rule.
        rule: &'static str,
    },
}

impl WireError {
    /// Path of the field at fault.
    pub fn field(&self) -> &str {
        match self {
            WireError::Id { field, .. }
            | WireError::Checksum { field, .. }
            | WireError::Missing { field }
            | WireError::Unknown { field, .. }
            | WireError::Invalid { field, .. } => field,
        }
    }

    /// The stable name of the error in snake case.
    pub fn reason(&self) -> &'static str {
        match self {
            WireError::Id { .. } => "invalid_id",
            WireError::Checksum { .. } => "invalid_checksum",
            WireError::Missing { .. } => "missing_field",
            WireError::Unknown { .. } => "unknown_value",
            WireError::Invalid { .. } => "invalid_field",
        }
    }

    /// A refusal of the request it was in.
    pub fn fault(&self) -> Fault {
        Fault {
            kind: ErrorKind::InvalidArgument,
            reason: self.reason().to_owned(),
            element: None,
            field: Some(self.field().to_owned()),
            message: self.to_string(),
            details: BTreeMap::new(),
        }
    }

    /// The same error in a message that is in field `outer` of another.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        match &mut self {
            WireError::Id { field, .. }
            | WireError::Checksum { field, .. }
            | WireError::Missing { field }
            | WireError::Unknown { field, .. }
            | WireError::Invalid { field, .. } => *field = format!("{outer}.{field}"),
        }
        self
    }
}

/// A field that is missing.
pub fn missing(field: &str) -> WireError {
    WireError::Missing {
        field: field.to_owned(),
    }
}

/// The id in a field.
pub fn id(field: &str, text: &str) -> Result<ElementId, WireError> {
    text.parse().map_err(|source| WireError::Id {
        field: field.to_owned(),
        source,
    })
}

/// The id in a field that may be left out.
pub fn optional_id(field: &str, text: Option<&str>) -> Result<Option<ElementId>, WireError> {
    text.map(|text| id(field, text)).transpose()
}

/// The checksum in a field that may be left out.
pub fn optional_checksum(field: &str, text: Option<&str>) -> Result<Option<Checksum>, WireError> {
    text.map(|text| checksum(field, text)).transpose()
}

fn checksum(field: &str, text: &str) -> Result<Checksum, WireError> {
    text.parse().map_err(|source| WireError::Checksum {
        field: field.to_owned(),
        source,
    })
}

/// The message in a field that must be there.
pub fn required<T: Wire>(field: &str, message: Option<T::Message>) -> Result<T, WireError> {
    let message = message.ok_or_else(|| missing(field))?;
    T::from_wire(message).map_err(|error| error.within(field))
}

/// The message in a field that may be left out.
pub fn optional<T: Wire>(field: &str, message: Option<T::Message>) -> Result<Option<T>, WireError> {
    let read = message.map(T::from_wire).transpose();
    read.map_err(|error| error.within(field))
}

/// The message in a field; left out, the default.
pub fn or_default<T: Wire + Default>(
    field: &str,
    message: Option<T::Message>,
) -> Result<T, WireError> {
    Ok(optional(field, message)?.unwrap_or_default())
}

/// The messages in a field.
pub fn all<T: Wire>(field: &str, messages: Vec<T::Message>) -> Result<Vec<T>, WireError> {
    let read = messages.into_iter().map(T::from_wire).enumerate();
    read.map(|(at, read)| read.map_err(|error| error.within(&format!("{field}[{at}]"))))
        .collect()
}

/// All as messages.
pub fn all_into<T: Wire>(values: impl IntoIterator<Item = T>) -> Vec<T::Message> {
    values.into_iter().map(Wire::into_wire).collect()
}

/// The value of an enum in a field.
fn choice<T>(field: &str, value: i32) -> Result<T, WireError>
where
    T: Wire,
    T::Message: TryFrom<i32>,
{
    let message = T::Message::try_from(value).map_err(|_| WireError::Unknown {
        field: field.to_owned(),
        value: value.to_string(),
    })?;
    T::from_wire(message).map_err(|error| match error {
        // The value that says nothing: then the field is missing.
        WireError::Missing { .. } => missing(field),
        error => error.within(field),
    })
}

/// A time.
pub fn time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.as_nanos();
    prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// The time in a field.
pub fn read_time(
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Result<Timestamp, WireError> {
    let time = time.ok_or_else(|| missing(field))?;
    let nanos = time.seconds.checked_mul(1_000_000_000);
    let nanos = nanos.and_then(|nanos| nanos.checked_add(i64::from(time.nanos)));
    let nanos = nanos.ok_or_else(|| WireError::Invalid {
        field: field.to_owned(),
        rule: "a time between the years 1678 and 2261 is needed",
    })?;
    Ok(Timestamp::from_nanos(nanos))
}

/// A number in a smaller field of the domain.
fn small<T: TryFrom<u32>>(field: &str, value: u32) -> Result<T, WireError> {
    T::try_from(value).map_err(|_| WireError::Invalid {
        field: field.to_owned(),
        rule: "the number is too large",
    })
}

/// The stable name serde knows a plain enum's value by.
fn name_of<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// The value of a plain enum by the name serde knows it by.
fn named<T: DeserializeOwned>(field: &str, name: &str) -> Result<T, WireError> {
    let value = T::deserialize(StrDeserializer::<ValueError>::new(name));
    value.map_err(|_| WireError::Unknown {
        field: field.to_owned(),
        value: name.to_owned(),
    })
}

fn metadata(map: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Bytes> {
    map.into_iter()
        .map(|(key, value)| (key, Bytes::from(value)))
        .collect()
}

fn read_metadata(map: BTreeMap<String, Bytes>) -> BTreeMap<String, Vec<u8>> {
    map.into_iter()
        .map(|(key, value)| (key, Vec::from(value)))
        .collect()
}
