//! How a [`Containerd`] is opened over an engine, and the ways it is ended or left.

use std::sync::{Arc, Mutex};

use portlayer::runtime::RuntimeError;

use super::{Containerd, Shared, tracked::lock};
use crate::{
    cgroup::Layout,
    client::Client,
    engine::{Engine, EngineError, Places},
    error::failed,
    init,
    io::{Logs, Pump},
    network::Networks,
    probe,
    root::blocking,
};

impl Containerd {
    /// Takes an engine: finds out what it can do, installs init, begins to serve streams. Fails with a plain message when
    /// something that is needed is missing; then containerd is ended again if this engine started it.
    pub async fn open(engine: Engine) -> Result<Containerd, RuntimeError> {
        match Containerd::shared(&engine).await {
            Ok(shared) => Ok(Containerd {
                shared: Arc::new(shared),
                engine: Mutex::new(Some(engine)),
            }),
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
        Ok(Shared {
            networks,
            client: engine.client(),
            runc: engine.config().runc.clone(),
            layout: Layout::detect().map_err(failed("read", "/proc/self/mountinfo"))?,
            info,
            init,
            logs: Logs::new(places.directory.join("logs"), engine.config().logs),
            pump: Pump::start().map_err(failed("start", "the thread that serves streams"))?,
            tracked: Mutex::default(),
            users: Arc::default(),
            losses: engine.losses(),
            places,
        })
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
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) => engine.stop().await,
            None => Ok(()),
        }
    }

    /// Kills every task and ends the engine, but keeps images, volumes and logs for the next start. Idempotent.
    pub async fn halt(&self) -> Result<(), EngineError> {
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) => engine.halt().await,
            None => Ok(()),
        }
    }

    /// Ends containerd if this open started it and no task runs on it: for an open that fails in a later step. Further calls
    /// find no engine. Idempotent.
    pub async fn give_up(&self) -> Result<(), EngineError> {
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) => engine.give_up().await,
            None => Ok(()),
        }
    }
}

impl Drop for Containerd {
    /// Leaves engine and tasks as they are; whoever opens them next takes over their streams, so nothing of ours may go on.
    fn drop(&mut self) {
        for tracked in lock(&self.shared.tracked)
            .drain()
            .map(|(_, tracked)| tracked)
        {
            tracked.abandon();
        }
    }
}
