//! Configuration: what a node needs to know to open, each value with where it came from.
//!
//! A value is taken from the first of: flag, environment (`PORTLAYER_*`, and containerd's own `CONTAINERD_ADDRESS`
//! and `CONTAINERD_NAMESPACE`), file, default. There are no globals: [`load`] gets the flags, the environment and
//! the file system it may look at, and returns one plain value.

mod file;
mod location;
mod resolve;
mod size;

use std::path::PathBuf;

use portlayer::element::Kind;
use serde::Serialize;
use thiserror::Error;

pub use location::{Backing, LocationConfig};
pub use resolve::{Environment, Flags, Loaded, Origin, Setting, load};
pub use size::{SizeError, parse_size};

/// Everything a node needs to open. Values are final: nothing in it is looked up again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Directory of everything persistent: ledger, volumes, logs, the private engine.
    pub data_dir: PathBuf,
    /// The engine.
    pub engine: EngineConfig,
    /// The configured locations; names are unique and none is `builtin` or `node`.
    pub locations: Vec<LocationConfig>,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// Stored output of tasks.
    pub logs: LogSettings,
}

/// Which containerd is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineConfig {
    /// Our own or the system's.
    pub mode: EngineMode,
    /// Socket of the system's containerd. Not used by a private engine, which has its own.
    pub address: PathBuf,
    /// containerd namespace everything of ours is in.
    pub namespace: String,
    /// Snapshotter for images and root file systems.
    pub snapshotter: String,
    /// Program of the private containerd; a name without `/` is searched in `PATH`.
    pub containerd: PathBuf,
    /// Parent of all our cgroups, absolute below each hierarchy.
    pub cgroup_parent: String,
}

/// Whose containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineMode {
    /// Started by us below the data directory, shared with nobody.
    Private,
    /// The one that listens at `address`.
    System,
}

impl std::str::FromStr for EngineMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(EngineMode::Private),
            "system" => Ok(EngineMode::System),
            _ => Err("expected private or system"),
        }
    }
}

/// How the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerSettings {
    /// Bytes of its page cache.
    pub cache_bytes: u64,
    /// How many events are kept for readers that resume.
    pub event_retention: u64,
}

/// How much output of tasks is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// Bytes of one log file before it is rotated.
    pub file_bytes: u64,
    /// Files kept per task, the newest included.
    pub files: u32,
}

impl Config {
    /// The configuration of a node that keeps everything below `data_dir`, with the private engine and the default
    /// locations: `images` (image), `volumes` and `scratch` (volume), `tasks` and `executors`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            engine: EngineConfig::default(),
            locations: location::defaults(),
            ledger: LedgerSettings {
                cache_bytes: 32 << 20,
                event_retention: 1_000_000,
            },
            logs: LogSettings {
                file_bytes: 16 << 20,
                files: 4,
            },
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
    /// A private containerd from `PATH`, namespace `portlayer`, overlay snapshots.
    fn default() -> Self {
        Self {
            mode: EngineMode::Private,
            address: PathBuf::from("/run/containerd/containerd.sock"),
            namespace: "portlayer".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            containerd: PathBuf::from("containerd"),
            cgroup_parent: "/portlayer".to_owned(),
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
