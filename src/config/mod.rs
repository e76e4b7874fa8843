//! Configuration: what a node needs to know to open, each value with where it came from.
//!
//! A value is taken from the first of: flag, environment (`PORTLAYER_*`), file, default. There are no globals:
//! [`load`] gets the flags, the environment and the file system it may look at, and returns one plain value.

mod diego;
mod file;
mod location;
mod network;
mod pull;
mod resolve;
mod serve;
mod size;
mod source;
#[cfg(test)]
mod tests;
mod way;

use std::ops::Range;
use std::path::PathBuf;

use portlayer::element::Kind;
use portlayer::log::{DEV_LOG, JOURNALD};
use portlayer::network::NetworkSpec;
use portlayer::runtime::IdRange;
use portlayer_runtime::LogBounds;
use serde::Serialize;
use thiserror::Error;

pub use diego::{BbsConfig, DiegoConfig, IdentityConfig, ResultOverflow};
pub use location::{Backing, LocationConfig};
pub use network::NetworkConfig;
pub use pull::PullSettings;
pub use resolve::{Flags, Loaded, load};
pub use serve::{Ids, Mode, Role, ServeSettings, TlsSettings};
pub use size::{SizeError, parse_size};
pub use source::{Environment, Origin, Setting};
pub use way::Way;

/// Name of the daemon's socket in its directory.
const SOCKET: &str = "portlayer.sock";

/// Everything a node needs to open. Values are final: nothing in it is looked up again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Directory of everything persistent: ledger, volumes, logs, the private engine.
    pub data_dir: PathBuf,
    /// Where the daemon of this node listens and commands look for it.
    pub socket: PathBuf,
    /// Commands open the node in their own process unless something more specific names a socket.
    pub embedded: bool,
    /// The engine.
    pub engine: EngineConfig,
    /// The configured locations; names are unique and none is `builtin` or `node`.
    pub locations: Vec<LocationConfig>,
    /// The bridge networks.
    pub networks: Vec<NetworkSpec>,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// Stored output of tasks.
    pub logs: LogSettings,
    /// How registries are reached.
    pub pull: PullSettings,
    /// How the daemon serves.
    pub serve: ServeSettings,
    /// Diego's tasks.
    pub diego: DiegoConfig,
    /// Where its spans go.
    pub trace: TraceSettings,
}

/// Where the daemon's spans go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TraceSettings {
    /// `http://host:port` of an OpenTelemetry collector that takes OTLP over gRPC; `None` = nowhere.
    pub endpoint: Option<String>,
}

/// The programs of the private engine: names, searched in `PATH`, or absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineConfig {
    /// containerd.
    pub containerd: String,
    /// The OCI runtime.
    pub runc: String,
    /// File of the network namespace in which bridges and the firewall's rules are made; `None` = that of the process.
    pub network_namespace: Option<PathBuf>,
    /// Most bytes of all bounded writable layers, which are then quota groups of a btrfs in one file; 0 = each is a file system of
    /// its own.
    pub disk_pool_bytes: u64,
    /// The numbers of the ranges of user ids that executors get, of 24,576; nodes of one host must not share any.
    pub id_ranges: Range<u32>,
}

/// How the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerSettings {
    /// Bytes of its page cache.
    pub cache_bytes: u64,
    /// How many events are kept for readers that resume.
    pub event_retention: u64,
}

/// How much output is stored per task and executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// Bytes of one log file, over both streams, before the next is begun.
    pub file_bytes: u64,
    /// Files kept, the newest included.
    pub files: u32,
    /// Places outside of the data directory that log elements may reach: `unix:<socket>`, `tcp:<host:port>`,
    /// `path:<file>`; with a slash at the end everything below.
    pub destinations: Vec<String>,
}

impl Config {
    /// The configuration of a node that keeps everything below `data_dir`, the socket too, with the private engine and
    /// the default locations: `images` (image), `volumes` and `scratch` (volume), `tasks` and `executors`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            socket: data_dir.join(SOCKET),
            embedded: false,
            serve: ServeSettings::default(),
            trace: TraceSettings::default(),
            data_dir,
            engine: EngineConfig::default(),
            locations: location::defaults(),
            networks: Vec::new(),
            diego: DiegoConfig::default(),
            ledger: LedgerSettings {
                cache_bytes: 256 << 20,
                event_retention: 1_000_000,
            },
            logs: LogSettings::default(),
            pull: PullSettings::default(),
        }
    }

    /// The first location that holds elements of this kind: what a name without location means on the command
    /// line.
    pub fn default_location(&self, kind: Kind) -> Option<&str> {
        self.locations
            .iter()
            .find(|location| location.kinds.contains(&kind))
            .map(|location| location.name.as_str())
    }
}

impl Default for EngineConfig {
    /// `containerd` and `runc` from `PATH`.
    fn default() -> Self {
        Self {
            containerd: "containerd".to_owned(),
            runc: "runc".to_owned(),
            network_namespace: None,
            disk_pool_bytes: 0,
            id_ranges: 0..IdRange::SLOTS,
        }
    }
}

impl Default for LogSettings {
    /// The bounds of the engine.
    fn default() -> Self {
        let bounds = LogBounds::default();
        Self {
            file_bytes: bounds.segment_bytes,
            files: bounds.segments,
            destinations: vec![format!("unix:{DEV_LOG}"), format!("unix:{JOURNALD}")],
        }
    }
}

/// A configuration that cannot be used; names the file, variable or flag and the key.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file that was asked for cannot be read.
    #[error("configuration file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML of ours; the cause names line and key.
    #[error("configuration file {path}: {}", one_line(&source.to_string()))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value breaks a rule.
    #[error("{key} from {origin}: {rule}")]
    Value {
        /// Name of the setting.
        key: String,
        /// Where the value came from.
        origin: Origin,
        /// The rule; never the value where it may be a secret.
        rule: String,
    },
    /// Neither a flag nor the environment says where data go, and there is no home directory.
    #[error("no data directory: set --data-dir or PORTLAYER_DATA_DIR")]
    NoDataDir,
}

/// The parser's message with its position and without its picture of the place.
fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with('|')
                && !line.contains(" | ")
                && !line
                    .trim_start_matches(|c: char| c.is_ascii_digit())
                    .trim()
                    .starts_with('|')
        })
        .collect::<Vec<_>>()
        .join(": ")
}
