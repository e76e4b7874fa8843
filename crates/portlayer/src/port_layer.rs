//! [`PortLayer`]: the one value callers hold. Its verbs live with what they are about (`element::service`,
//! `compose::commit`, ...); here is what they share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;

use crate::compose::Composer;
use crate::element::health::Health;
use crate::element::in_flight::InFlight;
use crate::element::{ElementId, Kind, builtin};
use crate::error::LocationError;
use crate::ledger::{Ledger, LedgerConfig, LedgerError};
use crate::network::{self, NetworkSpec, SpecError};
use crate::recover::EngineStatus;
use crate::runtime::{Runtime, RuntimeError, RuntimeInfo};
use crate::store::Location;
use crate::time::Timestamp;

/// How to open a port layer.
pub struct Config {
    /// Where and how the ledger is kept.
    pub ledger: LedgerConfig,
    /// The configured locations; names are unique. The locations `builtin` and `node` are added by us.
    pub locations: Vec<Location>,
    /// The bridge networks; each is the element `network://node/<name>`.
    pub networks: Vec<NetworkSpec>,
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
}

/// Why a port layer cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The ledger.
    #[error("opening the ledger failed")]
    Ledger(#[from] LedgerError),
    /// Two locations of one name, or one named `builtin` or `node`.
    #[error("location {0:?} is configured twice")]
    DuplicateLocation(String),
    /// No element could live in the location: the name is not one an id can hold.
    #[error("location {0:?} has a name no id can hold")]
    LocationName(String),
    /// A network that cannot be.
    #[error("a network is not configured right")]
    Network(#[from] SpecError),
    /// The engine cannot say what it is: nothing could be started or recovered.
    #[error("asking the engine failed")]
    Runtime(#[source] RuntimeError),
}

/// Something still holds a port layer that was to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the port layer is still in use by another clone or a stream of events")]
pub struct StillInUse;

/// How long closing waits for others to let go.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Who does what, for the audit log: an operation id and the actor's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Unique per call from outside; shared by everything the call changes.
    pub id: String,
    /// Who asked: a user, a peer's credentials, a component.
    pub actor: String,
}

/// A port layer on one node. Cloning is cheap and shares everything; all verbs take `&self` and may run at once.
#[derive(Clone)]
pub struct PortLayer {
    pub(crate) shared: Arc<Shared>,
    /// Who calls through this clone.
    pub(crate) actor: Arc<str>,
}

pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) locations: BTreeMap<String, Location>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) in_flight: InFlight,
    pub(crate) health: Health,
    pub(crate) composer: Composer,
    /// How the engine has been since the open.
    pub(crate) engine: watch::Sender<EngineStatus>,
    /// How long recovery took, once it is over.
    pub(crate) recovery: OnceLock<Duration>,
}

impl PortLayer {
    /// Opens the port layer: the ledger, then the built-in elements. A location that cannot be reached does not stop
    /// it; its elements are unavailable until it can. Errors: `Ledger`, `DuplicateLocation`, `LocationName`, `Network`.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let Config {
            ledger,
            locations,
            networks,
            runtime,
        } = config;
        let locations = named(locations)?;
        network::check_all(&networks)?;
        let networks: BTreeMap<_, _> = networks
            .into_iter()
            .filter_map(|network| Some((network.id()?, network)))
            .collect();
        let begun = Instant::now();
        let ledger = tokio::task::spawn_blocking(move || Ledger::open(&ledger))
            .await
            .map_err(|_| LedgerError::Closed)??;
        let ledger_took = begun.elapsed();
        let info = runtime.info().await.map_err(OpenError::Runtime)?;
        let health = Health::default();
        let composer = Composer::new(
            ledger.clone(),
            locations.clone(),
            networks.clone(),
            health.clone(),
            runtime.clone(),
            &info,
        );
        let layer = Self {
            shared: Arc::new(Shared {
                ledger,
                locations,
                runtime,
                in_flight: InFlight::default(),
                health,
                composer,
                engine: watch::Sender::default(),
                recovery: OnceLock::new(),
            }),
            actor: "portlayer".into(),
        };
        let started = Instant::now();
        layer.add_built_in().await?;
        layer.set_networks(networks).await?;
        layer.watch_locations().await;
        // Before anything is listed: a loss from here on is seen.
        let losses = layer.shared.runtime.losses();
        let before_recovery = begun.elapsed();
        let leftovers = layer.recover().await?;
        let recovery_took = begun.elapsed() - before_recovery;
        crate::crash::point("recover.before-sweep");
        layer.sweep_at_open(leftovers).await;
        layer.shared.recovery.get_or_init(|| started.elapsed());
        layer.watch_engine(losses);
        tracing::info!(took = ?begun.elapsed(), ledger = ?ledger_took, recovery = ?recovery_took, "open");
        crate::crash::point("recover.after-open");
        Ok(layer)
    }

    /// Closes the port layer: tasks go on, and the next [`PortLayer::open`] takes them over. Returns when the ledger can
    /// be opened again. Error: after ten seconds something still holds it, a clone or a stream of events.
    pub async fn close(self) -> Result<(), StillInUse> {
        self.settle().await;
        let closed = self.shared.ledger.closed();
        drop(self);
        tokio::time::timeout(CLOSE_LIMIT, closed)
            .await
            .map_err(|_| StillInUse)
    }

    /// Versions and abilities of the engine, as found when it was opened.
    pub async fn engine_info(&self) -> Result<RuntimeInfo, RuntimeError> {
        self.shared.runtime.info().await
    }

    /// Whether the engine answers now.
    pub async fn ping_engine(&self) -> Result<(), RuntimeError> {
        self.shared.runtime.ping().await
    }

    /// How the engine has been since the open, and every change of that: its losses, and what became of what ran.
    pub fn engine_status(&self) -> watch::Receiver<EngineStatus> {
        self.shared.engine.subscribe()
    }

    /// A clone whose calls are recorded in the audit log as made by `actor`.
    #[must_use]
    pub fn with_actor(&self, actor: &str) -> Self {
        Self {
            shared: self.shared.clone(),
            actor: actor.into(),
        }
    }

    /// A new operation of this clone's actor, for the audit rows of one call.
    pub(crate) fn operation(&self) -> Operation {
        // Time tells starts of the program apart, the count the calls of one.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Operation {
            id: format!("{:x}-{count:x}", Timestamp::now().as_nanos()),
            actor: self.actor.to_string(),
        }
    }

    /// The configured location of an id. Errors: `Unknown`, `WrongKind`.
    pub(crate) fn location(&self, id: &ElementId) -> Result<&Location, LocationError> {
        let name = id.location();
        let location = self
            .shared
            .locations
            .get(name)
            .ok_or_else(|| LocationError::Unknown {
                id: id.clone(),
                location: name.to_owned(),
            })?;
        if !location.kinds.contains(&id.kind()) {
            return Err(LocationError::WrongKind {
                id: id.clone(),
                location: name.to_owned(),
                kind: id.kind(),
            });
        }
        Ok(location)
    }
}

fn named(configured: Vec<Location>) -> Result<BTreeMap<String, Location>, OpenError> {
    let mut locations: BTreeMap<_, _> = builtin::locations()
        .into_iter()
        .map(|location| (location.name.clone(), location))
        .collect();
    for location in configured {
        if ElementId::new(Kind::Task, &location.name, "x").is_err() {
            return Err(OpenError::LocationName(location.name));
        }
        if locations.contains_key(&location.name) {
            return Err(OpenError::DuplicateLocation(location.name));
        }
        locations.insert(location.name.clone(), location);
    }
    Ok(locations)
}
