//! What a node tells of itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portlayer::element::Kind;
use portlayer::event::Sequence;
use portlayer::runtime::RuntimeInfo;
use portlayer::store::Policy;
use portlayer::time::Timestamp;
use serde::Serialize;

use crate::wire::Fault;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeInfo {
    /// Version of the program that serves it.
    pub version: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The engine.
    pub engine: RuntimeInfo,
    /// The configured locations.
    pub locations: Vec<LocationInfo>,
    /// How many elements there are of each kind; empty unless asked for.
    pub counts: BTreeMap<Kind, u64>,
    /// The sequence of the last event; 0 = none yet.
    pub last_sequence: Sequence,
}

/// A configured location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocationInfo {
    /// Its name, as in ids.
    pub name: String,
    /// The kinds it holds.
    pub kinds: Vec<Kind>,
    /// What callers may do.
    pub policy: Policy,
    /// What its bytes live on, by its name in the configuration.
    pub backing: String,
}

/// The process that serves a node, and where its things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// When it was ready.
    pub started: Timestamp,
    /// Its process id.
    pub pid: u32,
    /// Its open descriptors.
    pub descriptors: u64,
    /// Its threads.
    pub threads: u64,
    /// Its resident memory in bytes.
    pub memory_bytes: u64,
    /// Calls in flight, streams included.
    pub calls: u64,
    /// Subscriptions among them.
    pub subscriptions: u64,
    /// The engine answers.
    pub engine_available: bool,
    /// It ends: no new calls are taken.
    pub draining: bool,
    /// Where things are, by name.
    pub places: BTreeMap<String, String>,
}

/// What a sweep did in one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The location.
    pub location: String,
    /// Digests of the ids whose bytes were removed.
    pub removed: Vec<String>,
    /// What went wrong; the rest stays for the next sweep.
    pub fault: Option<Fault>,
}
