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
    #[serde(with = "metadata_bytes")]
    pub ro: Metadata,
    /// Mutable metadata.
    #[serde(with = "metadata_bytes")]
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

/// Metadata with its values as byte strings. The stored form is the one of a plain map; but serde reads a `Vec<u8>`
/// number by number, which makes the read of an element with long values many times slower.
mod metadata_bytes {
    use std::collections::BTreeMap;
    use std::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Metadata;

    struct Bytes<'b>(&'b [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Buffer(Vec<u8>);

    impl<'de> Deserialize<'de> for Buffer {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_byte_buf(Buffers).map(Buffer)
        }
    }

    struct Buffers;

    impl<'de> Visitor<'de> for Buffers {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = seq.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    pub(super) fn serialize<S: Serializer>(
        map: &Metadata,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, value)| (key, Bytes(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Metadata, D::Error> {
        let map = BTreeMap::<String, Buffer>::deserialize(deserializer)?;
        Ok(map
            .into_iter()
            .map(|(key, Buffer(value))| (key, value))
            .collect())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Stored(#[serde(with = "super")] Metadata);

        #[test]
        fn the_stored_form_is_that_of_a_plain_map() {
            let map = Metadata::from([
                ("a".to_owned(), vec![0, 255, 10]),
                ("b".to_owned(), Vec::new()),
                ("c".to_owned(), vec![7; 300]),
            ]);
            let plain = postcard::to_allocvec(&map).unwrap();
            let stored = Stored(map);
            assert_eq!(postcard::to_allocvec(&stored).unwrap(), plain);
            assert_eq!(postcard::from_bytes::<Stored>(&plain).unwrap(), stored);
            let json = serde_json::to_string(&stored).unwrap();
            assert_eq!(serde_json::from_str::<Stored>(&json).unwrap(), stored);
        }
    }
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
