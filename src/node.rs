//! A node: a configuration becomes a private engine, its stores and a port layer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portlayer::PortLayer;
use portlayer::archive::Limits;
use portlayer::element::{Kind, ListQuery};
use portlayer::error::ReadError;
use portlayer::ledger::LedgerConfig;
use portlayer::runtime::{Runtime, RuntimeError, RuntimeInfo};
use portlayer::store::{Location, Store, StoreError, dir::DirStore};
use portlayer_runtime::connection::Connection;
use portlayer_runtime::image::{ImageLimits, ImageStore, ImageStoreConfig};
use portlayer_runtime::pool::{Pool, PoolConfig};
use portlayer_runtime::volume::{
    BlockConfig, BlockVolumes, CowConfig, CowVolumes, KernelNfs, NfsConfig, NfsMount,
    NfsTargetError, NfsVolumes, TmpfsVolumes,
};
use portlayer_runtime::{
    Containerd, Engine, EngineConfig, EngineError, LogBounds, Places, SNAPSHOTTER,
};
use thiserror::Error;

use crate::config::{Backing, Config, LocationConfig};

/// How long an NFS server may take for one operation before its location counts as unavailable.
const NFS_DEADLINE: Duration = Duration::from_secs(10);

/// Why a node cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// containerd cannot be started or taken over.
    #[error("the engine cannot be started")]
    Engine(#[from] EngineError),
    /// Something that is needed of containerd, runc or the kernel is missing.
    #[error("the engine cannot be used: {}", .0.text)]
    Runtime(#[from] RuntimeError),
    /// A location cannot be set up.
    #[error("location {location:?} cannot be opened")]
    Location {
        /// The location.
        location: String,
        /// Cause.
        #[source]
        source: LocationFault,
    },
    /// The port layer cannot be opened: the ledger is in use, damaged or newer.
    #[error("the port layer cannot be opened")]
    PortLayer(#[from] portlayer::OpenError),
}

/// Why a location cannot be set up.
#[derive(Debug, Error)]
pub enum LocationFault {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its NFS address.
    #[error(transparent)]
    Nfs(#[from] NfsTargetError),
}

/// Why a node cannot be closed.
#[derive(Debug, Error)]
pub enum CloseError {
    /// Something still uses the port layer.
    #[error(transparent)]
    InUse(#[from] portlayer::StillInUse),
    /// containerd or what it left cannot be removed.
    #[error("the engine cannot be ended")]
    Engine(#[from] EngineError),
}

/// An open node: the port layer and the private containerd it stands on.
///
/// Dropping it leaves containerd and every task running; the next [`open`] of the same data directory takes them over.
pub struct Node {
    /// Everything a caller does goes through it.
    pub port_layer: PortLayer,
    runtime: Arc<Containerd>,
}

/// Opens the node of a configuration: starts its containerd (or takes over the one that runs), opens the ledger,
/// reconciles. One process at a time can have a data directory; the second gets an error at once.
pub async fn open(config: &Config) -> Result<Node, OpenError> {
    open_with(config, Arc::new(KernelNfs)).await
}

/// [`open`] with another way to mount NFS exports: for tests, and for hosts where somebody else mounts them.
pub async fn open_with(config: &Config, nfs: Arc<dyn NfsMount>) -> Result<Node, OpenError> {
    let engine = EngineConfig {
        containerd: config.engine.containerd.clone(),
        runc: config.engine.runc.clone(),
        logs: LogBounds {
            segment_bytes: config.logs.file_bytes,
            segments: config.logs.files,
        },
        network_namespace: config.engine.network_namespace.clone(),
        log_destinations: config.logs.destinations.clone(),
        disk_pool_bytes: config.engine.disk_pool_bytes,
        ..EngineConfig::new(&config.data_dir)
    };
    let runtime = Arc::new(Containerd::open(Engine::start(engine).await?).await?);
    match open_layer(config, &runtime, &nfs).await {
        Ok(port_layer) => Ok(Node {
            port_layer,
            runtime,
        }),
        Err(error) => {
            if let Err(left) = runtime.give_up().await {
                tracing::error!(error = %left, "ending an engine whose port layer does not open failed");
            }
            Err(error)
        }
    }
}

/// Locations and ledger on a running engine.
async fn open_layer(
    config: &Config,
    runtime: &Arc<Containerd>,
    nfs: &Arc<dyn NfsMount>,
) -> Result<PortLayer, OpenError> {
    let connection = Connection::new(runtime.client(), SNAPSHOTTER);
    let mut locations = Vec::new();
    for location in &config.locations {
        let store = store_of(location, &config.data_dir, &connection, nfs);
        let store = store.map_err(|source| OpenError::Location {
            location: location.name.clone(),
            source,
        })?;
        locations.push(Location {
            name: location.name.clone(),
            kinds: location.kinds.clone(),
            policy: location.policy,
            store,
        });
    }
    let ledger = LedgerConfig {
        cache_bytes: config.ledger.cache_bytes,
        event_retention: config.ledger.event_retention,
        id_ranges: config.engine.id_ranges.clone(),
        ..LedgerConfig::new(config.data_dir.join("ledger"))
    };
    let config = portlayer::Config {
        ledger,
        locations,
        networks: config.networks.clone(),
        runtime: runtime.clone(),
    };
    Ok(PortLayer::open(config).await?)
}

/// Removes everything of a data directory that no process has open: containerd, tasks, mounts, cgroups, files.
/// Idempotent. Blocks.
pub fn clean(data_dir: &Path) -> Result<(), EngineError> {
    Engine::clean(data_dir)
}

impl Node {
    /// Versions and abilities of the engine.
    pub async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        self.runtime.info().await
    }

    /// Whether no executor runs.
    pub async fn is_idle(&self) -> Result<bool, ReadError> {
        let query = ListQuery {
            filters: vec!["state==running".to_owned(), "state==paused".to_owned()],
            kind: Some(Kind::Executor),
            limit: 1,
            hidden: true,
            ..ListQuery::default()
        };
        let page = self.port_layer.list(query).await?;
        Ok(page.items.is_empty())
    }

    /// Closes the port layer and leaves containerd and every task running.
    pub async fn close(self) -> Result<(), CloseError> {
        Ok(self.port_layer.close().await?)
    }

    /// Where the private containerd's things are: for those who look at them beside the port layer.
    pub fn places(&self) -> &Places {
        self.runtime.places()
    }

    /// Kills every task, ends containerd and keeps the data: elements, images, volumes, logs.
    pub async fn halt(self) -> Result<(), CloseError> {
        self.port_layer.close().await?;
        Ok(self.runtime.halt().await?)
    }

    /// Kills every task, ends containerd and removes the data directory with everything in it.
    pub async fn remove(self) -> Result<(), CloseError> {
        self.port_layer.close().await?;
        Ok(self.runtime.stop().await?)
    }
}

/// The store of a location; `None` for kinds without bytes. Everything is below the data directory unless the
/// configuration names a path.
fn store_of(
    location: &LocationConfig,
    data: &Path,
    connection: &Connection,
    nfs: &Arc<dyn NfsMount>,
) -> Result<Option<Arc<dyn Store>>, LocationFault> {
    let name = &location.name;
    let mounts = data.join("mounts").join(name);
    let volumes = data.join("volumes").join(name);
    Ok(Some(match &location.backing {
        Backing::None => return Ok(None),
        Backing::Overlay {} => Arc::new(ImageStore::new(
            connection.clone(),
            ImageStoreConfig {
                location: name.clone(),
                staging: private_directory(data.join("staging").join(name))?,
                space: data.to_owned(),
                limits: ImageLimits::default(),
            },
        )),
        Backing::Dir { path } => Arc::new(DirStore::open(
            path.clone().unwrap_or(volumes),
            Limits::default(),
        )?),
        Backing::Cow {} => Arc::new(CowVolumes::new(
            connection.clone(),
            CowConfig {
                location: name.clone(),
                mounts,
                space: data.to_owned(),
                limits: Limits::default(),
            },
        )),
        Backing::Tmpfs { .. } => Arc::new(TmpfsVolumes),
        Backing::Block { path, size } => Arc::new(BlockVolumes::new(BlockConfig {
            directory: path.clone().unwrap_or(volumes),
            mounts,
            limits: Limits::default(),
            default_bytes: *size,
        })?),
        Backing::Btrfs { path, size } => {
            let pool = Pool::new(PoolConfig {
                file: path.clone().unwrap_or(volumes.join("pool.btrfs")),
                mount: mounts,
                bytes: *size,
            });
            let directory = pool.directory().to_owned();
            Arc::new(DirStore::over(directory, Limits::default(), Arc::new(pool)))
        }
        Backing::Nfs { url } => Arc::new(NfsVolumes::new(
            NfsConfig {
                target: url.parse()?,
                mount_point: mounts,
                deadline: NFS_DEADLINE,
                limits: Limits::default(),
            },
            nfs.clone(),
        )),
    }))
}

/// Makes a directory only we can look into. Idempotent.
fn private_directory(path: PathBuf) -> Result<PathBuf, StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&path);
    made.map_err(|source| StoreError::Backend {
        verb: "make directory",
        object: path.display().to_string(),
        source: Box::new(source),
    })?;
    Ok(path)
}
