//! Configured locations: a name, what it holds, what callers may do and what its bytes live on.

use std::path::PathBuf;

use portlayer::element::Kind;
use portlayer::store::Policy;
use serde::{Deserialize, Serialize};

use super::size::parse_size;

/// One location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationConfig {
    /// Name, as in ids: 1 to 63 of `a-z 0-9 . _ -`, not `builtin` or `node`.
    pub name: String,
    /// The kinds it holds.
    pub kinds: Vec<Kind>,
    /// What callers may do with it.
    #[serde(default)]
    pub policy: Policy,
    /// What its bytes live on.
    #[serde(default)]
    pub backing: Backing,
}

/// What the bytes of a location live on. Paths left out are below the data directory, named after the location.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Backing {
    /// Nothing: tasks, executors, networks and logs have a record only.
    #[default]
    None,
    /// Images as snapshots of the engine.
    Overlay {},
    /// Volumes as directories.
    Dir {
        /// Where.
        path: Option<PathBuf>,
    },
    /// Volumes as snapshots of the engine: made from a parent without copying.
    Cow {},
    /// Volumes in memory, gone when detached.
    Tmpfs {
        /// Most bytes of one volume; 0 = the kernel's default.
        #[serde(default, deserialize_with = "size")]
        size: u64,
    },
    /// Volumes as file systems in files: bounded, can be grown while unbound.
    Block {
        /// Where.
        path: Option<PathBuf>,
        /// Bytes of a volume that asks for no size.
        #[serde(default = "default_block_size", deserialize_with = "size")]
        size: u64,
    },
    /// Volumes as subvolumes of a btrfs in one file: bounded, made from another volume without copying. Needs btrfs-progs.
    Btrfs {
        /// The file.
        path: Option<PathBuf>,
        /// Most bytes of all its volumes. It takes as much of the disk as they hold.
        #[serde(default = "default_pool_size", deserialize_with = "size")]
        size: u64,
    },
    /// Volumes as directories on an NFS server.
    Nfs {
        /// `nfs://host[:port]/export?uid=0&gid=0`.
        url: String,
    },
}

impl Backing {
    /// The kind of element this backing is for; `None` = the kinds without bytes.
    pub fn holds(&self, kind: Kind) -> bool {
        match self {
            Backing::None => !matches!(kind, Kind::Image | Kind::Volume),
            Backing::Overlay {} => kind == Kind::Image,
            Backing::Dir { .. }
            | Backing::Cow {}
            | Backing::Tmpfs { .. }
            | Backing::Block { .. }
            | Backing::Btrfs { .. }
            | Backing::Nfs { .. } => kind == Kind::Volume,
        }
    }
}

const fn default_block_size() -> u64 {
    1 << 30
}

const fn default_pool_size() -> u64 {
    10 << 30
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => parse_size(&text).map_err(serde::de::Error::custom),
    }
}

/// The locations of a node whose configuration names none.
pub(super) fn defaults() -> Vec<LocationConfig> {
    let location = |name: &str, kinds: &[Kind], backing| LocationConfig {
        name: name.to_owned(),
        kinds: kinds.to_vec(),
        policy: Policy::ReadWrite,
        backing,
    };
    vec![
        location("images", &[Kind::Image], Backing::Overlay {}),
        location("volumes", &[Kind::Volume], Backing::Dir { path: None }),
        location("scratch", &[Kind::Volume], Backing::Tmpfs { size: 0 }),
        location("tasks", &[Kind::Task], Backing::None),
        location("executors", &[Kind::Executor], Backing::None),
    ]
}

/// The first rule the list breaks: the field's path and the rule.
pub(super) fn check(locations: &[LocationConfig]) -> Result<(), (String, String)> {
    for (at, location) in locations.iter().enumerate() {
        let refuse = |field: &str, rule: String| Err((format!("locations[{at}].{field}"), rule));
        // The port layer keeps its built-in elements there.
        if matches!(location.name.as_str(), "builtin" | "node") {
            return refuse("name", format!("the location {:?} is ours", location.name));
        }
        // The grammar of ids is the judge of a location's name.
        if portlayer::element::ElementId::new(Kind::Task, &location.name, "x").is_err() {
            return refuse(
                "name",
                format!("{:?} is not 1 to 63 of a-z 0-9 . _ -", location.name),
            );
        }
        if locations[..at]
            .iter()
            .any(|other| other.name == location.name)
        {
            return refuse("name", format!("{:?} is there twice", location.name));
        }
        if location.kinds.is_empty() {
            return refuse("kinds", "at least one kind is needed".to_owned());
        }
        if let Some(kind) = location
            .kinds
            .iter()
            .find(|kind| !location.backing.holds(**kind))
        {
            return refuse(
                "backing",
                format!("this backing cannot hold elements of kind {kind}"),
            );
        }
        match &location.backing {
            Backing::Dir { path: Some(path) }
            | Backing::Block {
                path: Some(path), ..
            }
            | Backing::Btrfs {
                path: Some(path), ..
            } if !path.is_absolute() => {
                return refuse("backing.path", "an absolute path is needed".to_owned());
            }
            Backing::Nfs { url } if !url.starts_with("nfs://") => {
                return refuse("backing.url", "expected nfs://host/export".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}
