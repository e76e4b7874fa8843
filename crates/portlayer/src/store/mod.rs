//! Where bytes live. A [`Store`] moves bytes for one location and knows no rules: ids, parents' validity, metadata,
//! policy and references are the element service's.
//!
//! Terms: a *location* is a configured store with a policy; *put* makes the bytes of a new element; *attach* makes
//! them visible on the host for one executor and *detach* ends that. The ledger record is the only commit point:
//! bytes without a record are garbage, found by [`Store::list`] and removed by the sweep.

pub mod dir;
pub mod memory;
pub mod suite;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::element::{Checksum, DataStream, ElementId, Kind, Record, Spec, StoreKeys};
use crate::task::ImageDefaults;

/// What callers may do with a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Everything.
    #[default]
    ReadWrite,
    /// Nothing but read and use.
    ReadOnly,
    /// Create and use, no update, no delete.
    CreateOnly,
}

/// A configured location: name, the kinds it holds, policy and backing.
#[derive(Clone)]
pub struct Location {
    /// Name, as in ids.
    pub name: String,
    /// The kinds whose elements may live here.
    pub kinds: Vec<Kind>,
    /// What callers may do.
    pub policy: Policy,
    /// Moves the bytes; `None` for kinds without bytes (tasks, executors, networks, logs).
    pub store: Option<Arc<dyn Store>>,
}

/// What a store can do; asked once, when the location is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// Can make an element from a parent image.
    pub parent_image: bool,
    /// Can make an element from another, unbound volume of the same location.
    pub parent_volume: bool,
    /// Can fill a new element from a data stream.
    pub data: bool,
    /// Can hold to a size bound.
    pub bounded: bool,
    /// Bytes survive a detach; false for tmpfs.
    pub persistent: bool,
}

/// Progress of a put, for people; may be dropped at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the data stream read so far.
    Read {
        /// Bytes.
        bytes: u64,
    },
    /// Bytes that came from a registry so far; told by a pull, before the first byte is read.
    Pulled {
        /// There.
        bytes: u64,
        /// All.
        of: u64,
    },
    /// Layers unpacked so far.
    Unpacked {
        /// Done.
        layers: u32,
        /// All.
        of: u32,
    },
}

/// Where progress goes. Sending never blocks the put.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Everything a store needs to make the bytes of a new element.
pub struct Put<'a> {
    /// The new element.
    pub id: &'a ElementId,
    /// What was asked for; kind-checked.
    pub spec: &'a Spec,
    /// The parent's record; already checked to exist and to be of a kind the capabilities allow.
    pub parent: Option<&'a Record>,
    /// The parent's bytes for stores that can only copy: a tar of the parent's file system. `None` without parent
    /// or when the store shares a backing with it and finds them by the parent's keys.
    pub data: Option<DataStream>,
    /// Must match the SHA-256 of `data`, else [`StoreError::ChecksumMismatch`] and nothing is left behind.
    pub checksum: Option<Checksum>,
    /// Where progress goes.
    pub progress: Option<ProgressSink>,
}

/// What a put made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// The store's own keys, kept in the record and given back on every later call.
    pub keys: StoreKeys,
    /// Sum of the data stream, when there was one.
    pub checksum: Option<Checksum>,
    /// Bytes of the data stream.
    pub size: u64,
    /// Images: what the configuration says about running it.
    pub defaults: Option<ImageDefaults>,
    /// Images: no data came, the parent's snapshot is shared.
    pub metadata_only: bool,
}

/// How an attached element is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Readable and writable.
    ReadWrite,
    /// Readable only.
    ReadOnly,
}

/// What a volume looks like to an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A directory (or file) on the host to bind.
    Path(PathBuf),
    /// A fresh tmpfs inside the container; nothing on the host.
    Tmpfs {
        /// Most bytes; 0 = the kernel's default.
        size_bytes: u64,
        /// Permission bits of its root.
        mode: u32,
    },
}

/// Bytes for one location. Implementations move bytes and nothing else; all calls may run at once for different
/// elements, the caller never runs two for the same one.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What this store can do. Constant.
    fn capabilities(&self) -> StoreCapabilities;

    /// Makes the bytes of a new element. On error nothing is left behind. Not idempotent: leftovers of an earlier,
    /// crashed put of the same id are replaced.
    async fn put(&self, put: Put<'_>) -> Result<Stored, StoreError>;

    /// Removes an element's bytes. Idempotent: what is gone is fine. Shared parts (a layer two images use, the
    /// snapshot of a metadata-only image) stay as long as another element needs them.
    async fn remove(&self, id: &ElementId, keys: &StoreKeys) -> Result<(), StoreError>;

    /// The element's bytes as a tar stream (images: an OCI archive), with no path leaving its root.
    async fn export(&self, record: &Record) -> Result<DataStream, StoreError>;

    /// The element's file system as one tar stream: what a store that can only copy gets as [`Put::data`] of a child.
    /// The same as [`Store::export`] except for images.
    async fn export_tree(&self, record: &Record) -> Result<DataStream, StoreError> {
        self.export(record).await
    }

    /// Whether [`Store::put`] makes a child of this parent by itself, from the parent's keys. When false and the
    /// capabilities allow the parent, the service gives the parent's [`Store::export_tree`] as [`Put::data`].
    fn shares_backing(&self, _parent: &Record) -> bool {
        false
    }

    /// Makes a volume visible for `executor`. Idempotent per (element, executor); several executors may attach at
    /// once. Images are not attached: the runtime makes root file systems from their keys.
    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError>;

    /// Undoes [`Store::attach`]; the last executor's detach unmounts. Idempotent.
    async fn detach(
        &self,
        id: &ElementId,
        keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError>;

    /// Detaches what an earlier process of ours left attached: every pair of element and executor, by `digest_hex`, that
    /// is not in `used`, and what it was doing itself. Called before anything is attached. Idempotent.
    async fn detach_leftovers(&self, _used: &BTreeSet<(String, String)>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Grows an unbound element so that `freespace_bytes` are free. Stores that cannot: `Unsupported`.
    async fn ensure_freespace(
        &self,
        record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError>;

    /// Mount points, and files under loop devices, that belong to the location as a whole and to none of its elements: not for
    /// the audit to call leaks.
    fn own_places(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Names of everything this store holds: the `digest_hex` of the element ids, for the sweep and the audit.
    async fn list(&self) -> Result<Vec<String>, StoreError>;

    /// Removes what [`Store::list`] named and no record owns.
    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError>;

    /// Whether the location can be used now. Must answer within seconds, whatever hangs.
    async fn health(&self) -> Result<(), StoreError>;
}

/// What a store can say.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The data stream has another sum than the caller said.
    #[error("data does not match the checksum: expected {expected}, got {actual}")]
    ChecksumMismatch {
        /// As given.
        expected: Checksum,
        /// As computed.
        actual: Checksum,
    },
    /// The data is in no form this store reads.
    #[error("unsupported data format: {0}")]
    UnsupportedFormat(String),
    /// The data breaks a rule (path, type, limit); `entry` names the place inside the archive.
    #[error("refused archive entry {entry:?}: {rule}")]
    RefusedEntry {
        /// Entry, digest or document, as it stands in the archive (may hold any bytes: escape before showing).
        entry: String,
        /// The rule.
        rule: String,
    },
    /// The data, or a layer in it, is an archive that is refused.
    #[error("refused {part}")]
    Archive {
        /// Which part of the data: `data`, or a layer's digest.
        part: String,
        /// Entry and rule, escaped for showing.
        #[source]
        source: crate::archive::ArchiveError,
    },
    /// The caller's stream failed.
    #[error("reading the data stream failed")]
    Data(#[source] std::io::Error),
    /// Not enough room, now or for the free space asked for.
    #[error("insufficient space: need {need_bytes} bytes, have {have_bytes}")]
    InsufficientSpace {
        /// Bytes needed; 0 when only the kernel knows.
        need_bytes: u64,
        /// Bytes there.
        have_bytes: u64,
    },
    /// This store cannot do what was asked (a parent, a bound, data).
    #[error("this location does not support {0}")]
    Unsupported(&'static str),
    /// The parent cannot be used; why.
    #[error("invalid parent: {0}")]
    InvalidParent(&'static str),
    /// In use in a way that forbids this now (resize of a bound volume).
    #[error("not possible while it is in use: {0}")]
    InUse(&'static str),
    /// The location cannot be reached.
    #[error("location is unavailable: {0}")]
    Unavailable(String),
    /// The bytes of an element with a record are gone.
    #[error("the stored bytes are missing: {0}")]
    Missing(String),
    /// An operation of kernel or engine failed.
    #[error("{verb} failed for {object}")]
    Backend {
        /// What was tried (mount, mkfs, snapshot prepare, ...).
        verb: &'static str,
        /// On what.
        object: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
