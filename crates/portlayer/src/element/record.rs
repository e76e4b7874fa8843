//! The record: what the ledger stores of an element. One record per element, one value per record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Checksum, Descriptor, ElementId, ImageSpec, Metadata, State, VolumeSpec};
use crate::compose::Composition;
use crate::task::{ExecutorSpec, ImageDefaults, TaskSpec};
use crate::time::Timestamp;

/// What a store remembers about an element's bytes (snapshot keys, paths, sizes). Belongs to the store alone;
/// callers see it read-only, never as metadata.
pub type StoreKeys = BTreeMap<String, String>;

/// One element as stored. Fields mean what they mean in [`Descriptor`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The element.
    pub id: ElementId,
    /// The parent given at creation.
    pub parent: Option<ElementId>,
    /// The storage element a task is stored with.
    pub owner: Option<ElementId>,
    /// Sum of the data stream.
    pub checksum: Option<Checksum>,
    /// Bytes of the data stream.
    pub size: u64,
    /// Immutable metadata.
    pub ro: Metadata,
    /// Mutable metadata.
    pub rw: Metadata,
    /// Grows by one with every change.
    pub revision: u64,
    /// Time of creation.
    pub created: Timestamp,
    /// Time of the last change.
    pub modified: Timestamp,
    /// Stored state.
    pub state: State,
    /// Left out of lists unless asked for.
    pub hidden: bool,
    /// What is particular to the kind.
    pub body: Body,
}

impl Record {
    /// The caller's view of the record.
    pub fn into_descriptor(self) -> Descriptor {
        let Record {
            id,
            parent,
            owner,
            checksum,
            size,
            ro,
            rw,
            revision,
            created,
            modified,
            state,
            hidden,
            body,
        } = self;
        Descriptor {
            id,
            parent,
            owner,
            checksum,
            size,
            ro,
            rw,
            revision,
            created,
            modified,
            state,
            hidden,
            body,
        }
    }
}

/// The kind-specific part of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// An image.
    Image(Box<ImageBody>),
    /// A volume.
    Volume(Box<VolumeBody>),
    /// A task.
    Task(Box<TaskBody>),
    /// An executor.
    Executor(Box<ExecutorBody>),
    /// A network.
    Network(NetworkBody),
    /// A log destination.
    Log(LogBody),
}

/// Stored with an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageBody {
    /// What was asked for.
    pub spec: ImageSpec,
    /// The image store's own keys. A metadata-only image holds a copy of its parent's.
    pub keys: StoreKeys,
    /// True when the image brought no data and shares its parent's snapshot.
    pub metadata_only: bool,
    /// What the image's configuration says about running it.
    pub defaults: ImageDefaults,
}

/// Stored with a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeBody {
    /// What was asked for.
    pub spec: VolumeSpec,
    /// The volume store's own keys.
    pub keys: StoreKeys,
}

/// Stored with a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskBody {
    /// What to run, inherited fields already filled in.
    pub spec: TaskSpec,
}

/// Stored with an executor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecutorBody {
    /// What was asked for.
    pub spec: ExecutorSpec,
    /// What is joined and bound, as last committed, with the state of every run.
    pub composition: Composition,
}

/// Stored with a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkBody {
    /// Settings, by name.
    pub settings: BTreeMap<String, String>,
}

/// Stored with a log destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogBody {
    /// Settings, by name.
    pub settings: BTreeMap<String, String>,
}

/// Metadata in human-readable formats: UTF-8 text as text, anything else as `{"base16": "..."}`.
pub(super) mod metadata_text {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Metadata;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Bytes { base16: String },
    }

    pub(crate) fn serialize<S: Serializer>(
        map: &Metadata,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return map.serialize(serializer);
        }
        let text: BTreeMap<&str, Value> = map
            .iter()
            .map(|(key, value)| {
                let value = match std::str::from_utf8(value) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Bytes {
                        base16: hex::encode(value),
                    },
                };
                (key.as_str(), value)
            })
            .collect();
        text.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Metadata, D::Error> {
        if !deserializer.is_human_readable() {
            return Metadata::deserialize(deserializer);
        }
        BTreeMap::<String, Value>::deserialize(deserializer)?
            .into_iter()
            .map(|(key, value)| match value {
                Value::Text(text) => Ok((key, text.into_bytes())),
                Value::Bytes { base16 } => hex::decode(base16)
                    .map(|bytes| (key, bytes))
                    .map_err(serde::de::Error::custom),
            })
            .collect()
    }
}
