//! Diego's tasks on a node: what the configuration says, assembled.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portlayer::PortLayer;
use portlayer::element::{ElementId, IdError, Kind};
use portlayer_taskdef::diego::{Capacity, Rules, Settings, TaskError, Tasks};
use portlayer_taskdef::fetch::{Fetcher, Http};
use portlayer_taskdef::identity::{Authority, AuthorityError};
use portlayer_taskdef::plan::Overflow;
use portlayer_taskdef::recent::Recent;
use portlayer_taskdef::run::{RunSettings, Runner};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::config::{BbsConfig, Config, DiegoConfig, IdentityConfig, ResultOverflow};

/// Why there are no Diego tasks on a node.
#[derive(Debug, Error)]
pub enum DiegoError {
    /// The configuration says so.
    #[error("diego tasks are turned off on this node (diego.enabled)")]
    Off,
    /// A kind of element they need has no location.
    #[error("diego tasks need a location for {kind} elements")]
    Location {
        /// The kind.
        kind: Kind,
    },
    /// An id in the configuration.
    #[error("{key}")]
    Id {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
    /// The client for downloads.
    #[error("the client for downloads cannot be made: {0}")]
    Client(String),
    /// The directory of downloads.
    #[error("the directory of downloads {path} cannot be made")]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the authority.
    #[error("{path} of diego.identity cannot be read")]
    IdentityFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The authority itself.
    #[error("the authority of diego.identity cannot be used")]
    Identity(#[from] AuthorityError),
    /// Diego's own interface cannot be served.
    #[error("diego.bbs at {address} cannot be served")]
    Bbs {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The records of tasks.
    #[error("the recorded tasks cannot be taken up")]
    Tasks(#[from] TaskError),
}

/// Diego's tasks of a node, opened when they are first needed.
pub struct Diego {
    layer: PortLayer,
    config: Config,
    lines: Arc<Recent>,
    tasks: OnceCell<Tasks>,
}

impl Diego {
    /// Of an open node. It keeps the port layer in use until it is closed and dropped.
    pub fn of(config: &Config, node: &Node) -> Self {
        Self {
            layer: node.port_layer.with_actor("diego"),
            config: config.clone(),
            lines: Arc::default(),
            tasks: OnceCell::new(),
        }
    }

    /// The tasks. The first call takes up those that are recorded.
    pub async fn tasks(&self) -> Result<&Tasks, DiegoError> {
        self.tasks.get_or_try_init(|| self.open()).await
    }

    /// The newest lines of the tasks' logs.
    pub fn lines(&self) -> &Recent {
        &self.lines
    }

    /// Whether tasks can be desired at all.
    pub fn is_on(&self) -> bool {
        self.config.diego.enabled
    }

    /// Serves Diego's own interface, where it is configured.
    pub async fn serve(&self) -> Result<Serving, DiegoError> {
        let stop = CancellationToken::new();
        let facade = match &self.config.diego.bbs {
            Some(bbs) if self.is_on() => Some(self.facade(bbs, stop.clone()).await?),
            _ => None,
        };
        Ok(Serving { stop, facade })
    }

    #[cfg(feature = "bbs")]
    async fn facade(
        &self,
        bbs: &BbsConfig,
        stop: CancellationToken,
    ) -> Result<JoinHandle<()>, DiegoError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| DiegoError::Bbs {
            address: bbs.address.clone(),
            source,
        };
        let tasks = self.tasks().await?.clone();
        let files = portlayer_bbs::TlsFiles {
            certificate: bbs.certificate.clone(),
            key: bbs.key.clone(),
            client_authority: bbs.client_ca.clone(),
        };
        let listener = tokio::net::TcpListener::bind(&bbs.address).await;
        let listener = listener.map_err(|error| unusable(error.into()))?;
        let facade = portlayer_bbs::Facade::new(listener, &files, tasks);
        let facade = facade.map_err(|error| unusable(error.into()))?;
        tracing::info!(address = %bbs.address, "serving diego's own interface");
        Ok(tokio::spawn(facade.serve(stop)))
    }

    #[cfg(not(feature = "bbs"))]
    async fn facade(
        &self,
        bbs: &BbsConfig,
        _: CancellationToken,
    ) -> Result<JoinHandle<()>, DiegoError> {
        Err(DiegoError::Bbs {
            address: bbs.address.clone(),
            source: "this program was built without the feature bbs".into(),
        })
    }

    /// Waits until no task is pending or running, if any was opened here.
    pub async fn idle(&self) {
        if let Some(tasks) = self.tasks.get() {
            tasks.idle().await;
        }
    }

    /// Ends the work on tasks here. See [`Tasks::close`]. Idempotent.
    pub async fn close(&self) {
        if let Some(tasks) = self.tasks.get() {
            tasks.close().await;
        }
    }

    async fn open(&self) -> Result<Tasks, DiegoError> {
        let diego = &self.config.diego;
        if !diego.enabled {
            return Err(DiegoError::Off);
        }
        let location = |kind| {
            let location = self.config.default_location(kind).map(str::to_owned);
            location.ok_or(DiegoError::Location { kind })
        };
        let images = location(Kind::Image)?;
        let run = RunSettings {
            tasks: location(Kind::Task)?,
            executors: location(Kind::Executor)?,
            volumes: location(Kind::Volume)?,
            network: optional("diego.network", diego.network.as_deref())?,
            grace: Duration::from_secs(diego.grace_seconds),
            registries: diego.pull.then(|| {
                let pull = &self.config.pull;
                portlayer_registry::Config {
                    mirrors: pull.mirrors.clone(),
                    insecure: pull.insecure.clone(),
                    stall: Duration::from_secs(pull.stall_seconds),
                    retries: pull.retries,
                    max_bytes: pull.max_bytes,
                }
            }),
            authority: match &diego.identity {
                Some(identity) => Some(Arc::new(authority(identity).await?)),
                None => None,
            },
            ..RunSettings::default()
        };
        let client = Http::new().map_err(|error| DiegoError::Client(error.to_string()))?;
        let path = self.config.data_dir.join("diego");
        let fetcher = Fetcher::new(Arc::new(client), &path);
        let fetcher = fetcher.map_err(|source| DiegoError::Spool { path, source })?;
        let settings = settings(diego, &images)?;
        let records = run.tasks.clone();
        let runner = Runner::new(
            self.layer.clone(),
            Arc::new(fetcher),
            self.lines.clone(),
            run,
        );
        Ok(Tasks::open(runner, settings, &records).await?)
    }
}

/// What serves Diego's clients.
pub struct Serving {
    stop: CancellationToken,
    facade: Option<JoinHandle<()>>,
}

impl Serving {
    /// Ends it: streams end, calls in flight are answered.
    pub async fn end(self) {
        self.stop.cancel();
        if let Some(facade) = self.facade
            && let Err(error) = facade.await
        {
            tracing::error!(%error, "serving diego's clients panicked");
        }
    }
}

async fn authority(identity: &IdentityConfig) -> Result<Authority, DiegoError> {
    let read = async |path: &PathBuf| {
        let read = tokio::fs::read(path).await;
        read.map_err(|source| DiegoError::IdentityFile {
            path: path.clone(),
            source,
        })
    };
    let (certificate, key) = (
        read(&identity.certificate).await?,
        read(&identity.key).await?,
    );
    let validity = Duration::from_secs(u64::from(identity.hours) * 3600);
    Ok(Authority::new(&certificate, &key, validity)?)
}

fn id(key: &'static str, text: &str) -> Result<ElementId, DiegoError> {
    let parsed = text.parse();
    parsed.map_err(|source| DiegoError::Id { key, source })
}

fn optional(key: &'static str, text: Option<&str>) -> Result<Option<ElementId>, DiegoError> {
    text.map(|text| id(key, text)).transpose()
}

fn settings(diego: &DiegoConfig, images: &str) -> Result<Settings, DiegoError> {
    let preloaded = diego.preloaded.iter();
    let preloaded =
        preloaded.map(|(name, image)| Ok((name.clone(), id("diego.preloaded", image)?)));
    Ok(Settings {
        rules: Rules {
            strict: diego.strict,
        },
        preloaded: preloaded.collect::<Result<_, DiegoError>>()?,
        preloaded_location: Some(images.to_owned()),
        image_location: images.to_owned(),
        volume_drivers: diego.volume_drivers.clone(),
        trusted_certificates: optional(
            "diego.trusted_certificates",
            diego.trusted_certificates.as_deref(),
        )?,
        result_limit_bytes: diego.result_limit_bytes,
        result_overflow: match diego.result_overflow {
            ResultOverflow::Fail => Overflow::Fail,
            ResultOverflow::Truncate => Overflow::Truncate,
        },
        required_tags: diego.required_tags.iter().cloned().collect(),
        optional_tags: diego.optional_tags.iter().cloned().collect(),
        capacity: Capacity {
            memory_mb: diego.memory_mb,
            disk_mb: diego.disk_mb,
            containers: diego.containers,
        },
        cell_id: diego.cell_id.clone(),
        node_address: diego.node_address.clone(),
        ..Settings::default()
    })
}
