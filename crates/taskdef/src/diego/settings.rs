//! What the operator of a node decides about Diego's tasks. Defaults are Diego's own of today unless said otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portlayer::element::ElementId;

use super::Rules;
use crate::plan::Overflow;

/// Settings of the Diego front end.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How definitions are checked.
    pub rules: Rules,
    /// Root file systems by their `preloaded:` name.
    pub preloaded: BTreeMap<String, ElementId>,
    /// Location whose images are root file systems by their own name, where `preloaded` has no such name and the name is
    /// one word. Images of registries are in folders and so never meant.
    pub preloaded_location: Option<String>,
    /// Location of images of registries: `docker://` finds them there under their canonical name.
    pub image_location: String,
    /// Volume drivers by name: the location their volumes live in, by volume id.
    pub volume_drivers: BTreeMap<String, String>,
    /// The operator's certificates; `None` = `trusted_system_certificates_path` mounts nothing, as in Diego.
    pub trusted_certificates: Option<ElementId>,
    /// Most bytes of a result. Diego today: 51200 (10240 in the seed's document).
    pub result_limit_bytes: u64,
    /// What a larger result means. Diego today: fail (the seed's document: truncate).
    pub result_overflow: Overflow,
    /// Tags every task must ask for.
    pub required_tags: BTreeSet<String>,
    /// Tags a task may ask for besides.
    pub optional_tags: BTreeSet<String>,
    /// What the node has to give.
    pub capacity: Capacity,
    /// Name of this node as a cell.
    pub cell_id: String,
    /// The node's address, told to tasks.
    pub node_address: String,
    /// Timers of the life cycle.
    pub timers: Timers,
}

/// What a node has to give to tasks; `None` = not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Disk in MiB.
    pub disk_mb: Option<u64>,
    /// Containers at once.
    pub containers: u32,
}

/// Timers of the life cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// A task that is not started by then has failed.
    pub pending_expiry: Duration,
    /// A task that stays in resolving so long goes back to completed and its callback is repeated.
    pub kick: Duration,
    /// A completed task is deleted so long after it completed, whatever became of its callback.
    pub completed_expiry: Duration,
    /// One request of a callback may take so long.
    pub callback_timeout: Duration,
    /// How often a start that failed for a passing reason is repeated.
    pub start_retries: u32,
    /// How long to wait before that.
    pub start_retry: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            pending_expiry: Duration::from_secs(1800),
            kick: Duration::from_secs(30),
            completed_expiry: Duration::from_secs(120),
            callback_timeout: Duration::from_secs(10),
            start_retries: 3,
            start_retry: Duration::from_secs(30),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            preloaded: BTreeMap::new(),
            preloaded_location: None,
            image_location: "images".to_owned(),
            volume_drivers: BTreeMap::new(),
            trusted_certificates: None,
            result_limit_bytes: 51_200,
            result_overflow: Overflow::Fail,
            required_tags: BTreeSet::new(),
            optional_tags: BTreeSet::new(),
            capacity: Capacity {
                memory_mb: None,
                disk_mb: None,
                containers: 250,
            },
            cell_id: "portlayer".to_owned(),
            node_address: "127.0.0.1".to_owned(),
            timers: Timers::default(),
        }
    }
}
