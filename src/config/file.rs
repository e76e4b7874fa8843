//! The configuration file: TOML in which every key is optional and an unknown key is an error.

use std::path::PathBuf;

use serde::Deserialize;

use super::{LocationConfig, NetworkConfig};

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) embedded: Option<bool>,
    pub(super) engine: Engine,
    pub(super) locations: Option<Vec<LocationConfig>>,
    pub(super) networks: Vec<NetworkConfig>,
    pub(super) ledger: Ledger,
    pub(super) logs: Logs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Engine {
    pub(super) containerd: Option<String>,
    pub(super) runc: Option<String>,
    pub(super) network_namespace: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ledger {
    pub(super) cache: Option<String>,
    pub(super) event_retention: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Logs {
    pub(super) file: Option<String>,
    pub(super) files: Option<u32>,
}
