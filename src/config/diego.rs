//! What the operator says about Diego's tasks: `[diego]` of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of Diego's tasks on this node. `docs/task-definitions.md` says what each means for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiegoConfig {
    /// Whether tasks can be desired.
    pub enabled: bool,
    /// Refuse what Diego refuses although its own documentation has it, and unknown fields.
    pub strict: bool,
    /// Images by their `preloaded:` name. A name that is not here is that of an image in the first image location.
    pub preloaded: BTreeMap<String, String>,
    /// Locations of volumes, by the name of their driver.
    pub volume_drivers: BTreeMap<String, String>,
    /// The volume with the operator's certificates, for `trusted_system_certificates_path`.
    pub trusted_certificates: Option<String>,
    /// Who signs the certificates of tasks; none = they get none.
    pub identity: Option<IdentityConfig>,
    /// The network that tasks join; without one they have a loopback, and those with egress rules are refused.
    pub network: Option<String>,
    /// Ask registries for images that are not on the node, as `[pull]` says.
    pub pull: bool,
    /// Most bytes of a result.
    pub result_limit_bytes: u64,
    /// What a larger result means.
    pub result_overflow: ResultOverflow,
    /// Tags every task must ask for.
    pub required_tags: Vec<String>,
    /// Tags a task may ask for besides.
    pub optional_tags: Vec<String>,
    /// Memory there is for tasks in MiB; none = not counted.
    pub memory_mb: Option<u64>,
    /// Disk there is for tasks in MiB; none = not counted.
    pub disk_mb: Option<u64>,
    /// Containers at once.
    pub containers: u32,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace_seconds: u64,
    /// Name of this node as a cell.
    pub cell_id: String,
    /// Address of this node, told to tasks.
    pub node_address: String,
    /// Diego's own interface over HTTP, for its clients; none = it is not served.
    pub bbs: Option<BbsConfig>,
}

/// What a larger result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultOverflow {
    /// The task fails, as in Diego today.
    Fail,
    /// Its beginning is taken, as the documentation says.
    Truncate,
}

/// The authority that signs the certificates of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Hours a certificate of a task holds; it is renewed before they are over.
    #[serde(default = "day")]
    pub hours: u32,
}

/// Diego's own default.
fn day() -> u32 {
    24
}

/// The listener of Diego's own interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BbsConfig {
    /// `host:port` to listen on.
    pub address: String,
    /// Our certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that signed the certificates of clients; nobody without one gets in.
    pub client_ca: PathBuf,
}

impl Default for DiegoConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            strict: false,
            preloaded: BTreeMap::new(),
            volume_drivers: BTreeMap::new(),
            trusted_certificates: None,
            identity: None,
            network: None,
            pull: true,
            result_limit_bytes: 51_200,
            result_overflow: ResultOverflow::Fail,
            required_tags: Vec::new(),
            optional_tags: Vec::new(),
            memory_mb: None,
            disk_mb: None,
            containers: 250,
            grace_seconds: 10,
            cell_id: "portlayer".to_owned(),
            node_address: "127.0.0.1".to_owned(),
            bbs: None,
        }
    }
}
