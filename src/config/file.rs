//! The configuration file: TOML in which every key is optional and an unknown key is an error.

use std::path::PathBuf;

use serde::Deserialize;

use super::{DiegoConfig, Ids, LocationConfig, NetworkConfig, Role};

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
    pub(super) pull: super::pull::Pull,
    pub(super) serve: Serve,
    pub(super) diego: Option<DiegoConfig>,
    pub(super) trace: Trace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Engine {
    pub(super) containerd: Option<String>,
    pub(super) runc: Option<String>,
    pub(super) network_namespace: Option<PathBuf>,
    pub(super) disk_pool: Option<String>,
    pub(super) id_ranges: Option<String>,
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
    pub(super) destinations: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Trace {
    pub(super) endpoint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Serve {
    pub(super) mode: Option<String>,
    pub(super) group: Option<String>,
    pub(super) read_write_uids: Option<Ids>,
    pub(super) read_write_gids: Option<Ids>,
    pub(super) read_only_uids: Option<Ids>,
    pub(super) read_only_gids: Option<Ids>,
    pub(super) drain_seconds: Option<u64>,
    pub(super) metrics: Option<String>,
    pub(super) tls: Tls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) address: Option<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) role: Option<Role>,
}
