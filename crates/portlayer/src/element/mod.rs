//! Elements: what the port layer keeps a record of, and what callers hand in and get back.

pub(crate) mod builtin;
pub mod checksum;
pub(crate) mod health;
pub mod id;
pub(crate) mod in_flight;
pub mod metadata;
mod record;
pub(crate) mod service;
pub mod stream;
mod sweep;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

pub use checksum::{Checksum, ChecksumError, Summing};
pub use id::{ElementId, IdError, IdRule};
pub use metadata::{EntryError, EntryRule, Metadata, Patch};
pub use record::{
    Body, ExecutorBody, ImageBody, LogBody, NetworkBody, Record, StoreKeys, TaskBody, VolumeBody,
};
pub(crate) use service::fields;
pub(crate) use service::store_keys;
pub use service::{DEFAULT_PAGE, Keys, ListQuery, MAX_PAGE, Page, Projection, ReadData, Updated};
pub use sweep::Swept;

use crate::task::{ExecutorSpec, TaskSpec};
use crate::time::Timestamp;

/// The six kinds of element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A root file system: immutable, may have an image as parent.
    Image,
    /// Storage that is mounted into executors.
    Volume,
    /// What to run: argv, environment, user, limits.
    Task,
    /// One container.
    Executor,
    /// A network executors can be joined to.
    Network,
    /// A destination for the output of tasks.
    Log,
}

impl Kind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Kind; 6] = [
        Kind::Image,
        Kind::Volume,
        Kind::Task,
        Kind::Executor,
        Kind::Network,
        Kind::Log,
    ];

    /// The scheme of ids of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Task => "task",
            Kind::Executor => "executor",
            Kind::Network => "network",
            Kind::Log => "log",
        }
    }

    /// The kind of this scheme; lower case only.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of an element. Which states a kind can have is said at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Usable (image, volume, task, network, log).
    Ready,
    /// Its location cannot be reached or its record is quarantined; never stored, computed when read.
    Unavailable,
    /// Composed or not, but no container exists (executor).
    Created,
    /// Its container runs (executor).
    Running,
    /// Its container is frozen (executor).
    Paused,
    /// Its last run ended; it can be started again (executor).
    Stopped,
}

impl State {
    /// The name used in filters and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Unavailable => "unavailable",
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

/// The bytes of an element on their way in or out. Never a path: so the same value can come over a socket.
pub type DataStream = Pin<Box<dyn AsyncRead + Send>>;

/// What Create takes. Only `id` is always needed.
pub struct NewElement {
    /// The id to create; its location must be configured and allow creation.
    pub id: ElementId,
    /// The element this one is made from. Images: an image. Volumes: an image or an unbound volume.
    /// Tasks: a task whose fields are inherited. Executors, networks, logs: none.
    pub parent: Option<ElementId>,
    /// Tasks only: the image or volume the task is stored with. Its paths are then relative to where that element is
    /// mounted, and deleting the owner deletes the task (seed 003).
    pub owner: Option<ElementId>,
    /// Images: an OCI archive, a docker archive or a layer (tar; plain, gzip or zstd). Volumes: a tar to start
    /// from. Tasks: the original definition, at most [`MAX_DEFINITION_BYTES`].
    pub data: Option<DataStream>,
    /// Verified against the data stream, byte for byte as given.
    pub checksum: Option<Checksum>,
    /// Metadata that never changes again.
    pub ro: Patch,
    /// Metadata that Update may patch; no key may be in `ro` too.
    pub rw: Patch,
    /// Hidden elements are left out of lists unless asked for (infrastructure, untagged layers).
    pub hidden: bool,
    /// What is particular to the kind.
    pub spec: Spec,
}

/// The largest data stream of a task element, in bytes.
pub const MAX_DEFINITION_BYTES: u64 = 1024 * 1024;

impl NewElement {
    /// A new element with nothing but its id and spec.
    pub fn new(id: ElementId, spec: Spec) -> Self {
        Self {
            id,
            parent: None,
            owner: None,
            data: None,
            checksum: None,
            ro: Patch::new(),
            rw: Patch::new(),
            hidden: false,
            spec,
        }
    }

    /// Sets the parent.
    #[must_use]
    pub fn parent(mut self, parent: ElementId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Sets the image or volume a task is stored with.
    #[must_use]
    pub fn owner(mut self, owner: ElementId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Sets the data stream.
    #[must_use]
    pub fn data(mut self, data: impl AsyncRead + Send + 'static) -> Self {
        self.data = Some(Box::pin(data));
        self
    }

    /// Sets the checksum the data stream must have.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Adds an immutable metadata entry.
    #[must_use]
    pub fn ro(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.ro.insert(key.into(), Some(value.into()));
        self
    }

    /// Adds a mutable metadata entry.
    #[must_use]
    pub fn rw(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.rw.insert(key.into(), Some(value.into()));
        self
    }
}

impl fmt::Debug for NewElement {
    /// Metadata values and data are left out: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewElement")
            .field("id", &self.id)
            .field("parent", &self.parent)
            .field("owner", &self.owner)
            .field("data", &self.data.is_some())
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}

/// The kind-specific part of [`NewElement`]; must match the kind of the id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spec {
    /// An image.
    Image(ImageSpec),
    /// A volume.
    Volume(VolumeSpec),
    /// A task.
    Task(Box<TaskSpec>),
    /// An executor.
    Executor(Box<ExecutorSpec>),
    /// A bridge network, as [`NetworkSpec::settings`](crate::network::NetworkSpec::settings) writes it.
    Network(BTreeMap<String, String>),
    /// A log destination, as [`LogSpec::of_settings`](crate::log::LogSpec::of_settings) reads it.
    Log(BTreeMap<String, String>),
}

impl Spec {
    /// The kind this spec belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Image(_) => Kind::Image,
            Spec::Volume(_) => Kind::Volume,
            Spec::Task(_) => Kind::Task,
            Spec::Executor(_) => Kind::Executor,
            Spec::Network(_) => Kind::Network,
            Spec::Log(_) => Kind::Log,
        }
    }
}

/// What can be asked of a new image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Bytes that must be left in the file system after unpacking (seed 003's freespace). 0 = no demand.
    pub freespace_bytes: u64,
}

/// What can be asked of a new volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VolumeSpec {
    /// Bytes that must be free after the volume was populated (seed 003's freespace). 0 = no demand.
    pub freespace_bytes: u64,
    /// Upper bound of the volume in bytes, where the location can hold to it. 0 = unbounded.
    pub size_bytes: u64,
    /// Owner of the volume's root directory.
    pub uid: u32,
    /// Group of the volume's root directory.
    pub gid: u32,
    /// Permission bits of the root directory; `None` = 0755.
    pub mode: Option<u32>,
}

/// What Read, Create and List return: everything known of an element except its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The element.
    pub id: ElementId,
    /// The parent given at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ElementId>,
    /// The element this one is stored with (tasks of an image or volume).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<ElementId>,
    /// SHA-256 of the data stream, computed by us; `None` where there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Bytes of the data stream.
    pub size: u64,
    /// Immutable metadata.
    #[serde(with = "record::metadata_text")]
    pub ro: Metadata,
    /// Mutable metadata.
    #[serde(with = "record::metadata_text")]
    pub rw: Metadata,
    /// Grows by one with every change of the record.
    pub revision: u64,
    /// When the element was created (wall clock).
    pub created: Timestamp,
    /// When the record was changed last (wall clock).
    pub modified: Timestamp,
    /// State as of the read.
    pub state: State,
    /// Left out of lists unless asked for.
    pub hidden: bool,
    /// What is particular to the kind.
    pub body: Body,
}

impl Descriptor {
    /// The kind of the element.
    pub fn kind(&self) -> Kind {
        self.id.kind()
    }
}
