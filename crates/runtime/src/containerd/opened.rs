//! How a [`Containerd`] is opened over an engine, and the ways it is ended or left.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use portlayer::runtime::{DiskBound, RuntimeError};
use portlayer::store::dir::Trees;

use super::{Containerd, Shared, tracked::lock};
use crate::{
    cgroup::Layout,
    client::Client,
    engine::{Engine, EngineError, Places},
    error::failed,
    init,
    io::{Forwarders, Logs, Pump},
    moves::Moves,
    network::Networks,
    pool::{Pool, PoolConfig},
    probe,
    root::{blocking, error_text},
};

impl Containerd {
    /// Takes an engine: finds out what it can do, installs init, begins to serve streams. Fails with a plain message when
    /// something that is needed is missing; then containerd is ended again if this engine started it.
    pub async fn open(engine: Engine) -> Result<Containerd, RuntimeError> {
        match Containerd::shared(&engine).await {
            Ok(shared) => {
                let shared = Arc::new(shared);
                tokio::spawn(look_after_networks(Arc::downgrade(&shared)));
                let all = Arc::clone(&shared);
                let resumed =
                    blocking(move || all.forwarders.resume().map_err(failed("read", "logs")));
                if let Err(error) = resumed.await {
                    tracing::error!(%error, text = error.text, "stored output is not sent on");
                }
                Ok(Containerd {
                    shared,
                    engine: Mutex::new(Some(engine)),
                })
            }
            Err(error) => {
                if let Err(left) = engine.give_up().await {
                    tracing::error!(error = %left, "ending an engine that cannot be used failed");
                }
                Err(error)
            }
        }
    }

    async fn shared(engine: &Engine) -> Result<Shared, RuntimeError> {
        let info = probe::probe(engine).await?;
        let places = engine.places().clone();
        let directory = places.directory.clone();
        let init = blocking(move || {
            init::install(&directory)
                .map_err(failed("install init in", directory.display().to_string()))
        })
        .await?;
        let namespace = engine.config().network_namespace.as_deref();
        let networks = Networks::open(&places.directory, &places.namespace, namespace)
            .map_err(failed("write in", places.directory.display().to_string()))?;
        let logs = Logs::new(places.directory.join("logs"), engine.config().logs);
        let logs = Arc::new(logs);
        let layout = Layout::detect().map_err(failed("read", "/proc/self/mountinfo"))?;
        let disks = (info.isolation.disk == DiskBound::Pool).then(|| {
            Arc::new(Pool::new(PoolConfig {
                file: places.disks_file(),
                mount: places.disks(),
                bytes: engine.config().disk_pool_bytes,
            }))
        });
        // What is in it of containers that are no more must be seen by those who look for leaks.
        if let Some(pool) = disks.clone().filter(|_| places.disks_file().exists()) {
            let ready = blocking(move || Ok(pool.ready())).await?;
            if let Err(error) = ready {
                tracing::error!(%error, "the pool of writable layers cannot be used");
            }
        }
        Ok(Shared {
            networks,
            client: engine.client(),
            runc: engine.config().runc.clone(),
            moves: Moves::open(&layout).map_err(failed("start", "the thread for cgroups"))?,
            layout,
            info,
            init,
            forwarders: Forwarders::new(Arc::clone(&logs)),
            log_destinations: engine.config().log_destinations.clone(),
            logs,
            pump: Pump::start().map_err(failed("start", "the thread that serves streams"))?,
            tracked: Mutex::default(),
            users: Arc::default(),
            disks,
            losses: engine.losses(),
            places,
        })
    }

    /// The engine, to be ended: its networks go with it and must not come back.
    async fn take_engine(&self) -> Option<Engine> {
        let engine = lock(&self.engine).take();
        let shared = Arc::clone(&self.shared);
        // It fails only when the process ends.
        let _ = tokio::task::spawn_blocking(move || shared.networks.let_go()).await;
        engine
    }

    /// A client of the engine, for the stores.
    pub fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// Where the engine's things are.
    pub fn places(&self) -> &Places {
        &self.shared.places
    }

    /// Kills every task, ends the engine and removes its directory with everything in it. Further calls find no engine. Idempotent.
    pub async fn stop(&self) -> Result<(), EngineError> {
        let engine = self.take_engine().await;
        match engine {
            Some(engine) => engine.stop().await,
            None => Ok(()),
        }
    }

    /// Kills every task and ends the engine, but keeps images, volumes and logs for the next start. Idempotent.
    pub async fn halt(&self) -> Result<(), EngineError> {
        let engine = self.take_engine().await;
        match engine {
            Some(engine) => engine.halt().await,
            None => Ok(()),
        }
    }

    /// Ends containerd if this open started it and no task runs on it: for an open that fails in a later step. Further calls
    /// find no engine. Idempotent.
    pub async fn give_up(&self) -> Result<(), EngineError> {
        let engine = self.take_engine().await;
        match engine {
            Some(engine) => engine.give_up().await,
            None => Ok(()),
        }
    }
}

/// How often the rules of networks are looked at.
const NETWORKS_EVERY: Duration = Duration::from_secs(1);

/// Loads the rules of networks again when somebody has removed them, for as long as the engine is open.
async fn look_after_networks(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(NETWORKS_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let checked = tokio::task::spawn_blocking(move || shared.networks.check());
        match checked.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(
                error = error_text(&error),
                "the rules of networks cannot be looked after"
            ),
            Err(_) => return,
        }
    }
}

impl Drop for Containerd {
    /// Leaves engine and tasks as they are; whoever opens them next takes over their streams, so nothing of ours may go on.
    fn drop(&mut self) {
        self.shared.networks.let_go();
        for tracked in lock(&self.shared.tracked)
            .drain()
            .map(|(_, tracked)| tracked)
        {
            tracked.abandon();
        }
    }
}
