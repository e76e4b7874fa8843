//! The life of a daemon: open, reconcile, serve, drain, close. Running tasks outlive it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Access, Facts, ListenError, Listener, ServeError, Server, TlsFiles};
use crate::config::Config;
use crate::diego::{Diego, DiegoError};
use crate::{CloseError, Node, OpenError};

/// Why a daemon cannot serve or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The node cannot be opened: another process has it, containerd does not start, the ledger is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Serving failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Diego's clients cannot be served.
    #[error(transparent)]
    Diego(#[from] DiegoError),
    /// The node cannot be closed.
    #[error(transparent)]
    Close(#[from] CloseError),
}

/// Runs a daemon until `stop` is ready, then drains: no new calls are taken, streams end with a status that says so,
/// calls in flight have the configured time. Tasks go on; the next daemon takes them over. An engine nothing runs in is
/// ended too.
///
/// A socket that the service manager passed is served instead of the configured one. The service manager is told READY
/// when the node is reconciled and its sockets take calls. Call it before other threads run: it takes the variables of
/// passed sockets.
pub async fn run(config: &Config, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let passed = Listener::passed()?;
    let node = crate::open(config).await?;
    let own = passed.is_none();
    let diego = Arc::new(Diego::of(config, &node));
    let server = Server::with_diego(
        node.port_layer.clone(),
        Facts::of(config, &node),
        Access::of(config),
        diego.clone(),
    );
    let served = match listeners(config, passed).await {
        Ok(listeners) => {
            take_up(&diego).await;
            match diego.serve().await {
                Ok(serving) => {
                    let served = serve_all(&server, listeners, config, stop).await;
                    serving.end().await;
                    served
                }
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    };
    diego.close().await;
    if own && served.is_ok() {
        remove(&config.socket);
    }
    drop((server, diego));
    let closed = close(node).await;
    served?;
    closed
}

/// Takes up Diego's tasks. The node is of use without them: each of their calls says what is wrong.
async fn take_up(diego: &Diego) {
    if diego.is_on()
        && let Err(error) = diego.tasks().await
    {
        tracing::error!(
            error = format!("{:#}", anyhow::Error::new(error)),
            "diego tasks are not taken up"
        );
    }
}

async fn listeners(
    config: &Config,
    passed: Option<Listener>,
) -> Result<Vec<Listener>, ListenError> {
    let serve = &config.serve;
    let mut listeners = vec![match passed {
        Some(listener) => listener,
        None => Listener::unix(&config.socket, serve.mode.0, serve.group.as_deref())?,
    }];
    if let Some(tls) = &serve.tls {
        let files = TlsFiles {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            client_authority: tls.client_ca.clone(),
        };
        listeners.push(Listener::tls(&tls.address, &files).await?);
    }
    Ok(listeners)
}

async fn serve_all(
    server: &Server,
    listeners: Vec<Listener>,
    config: &Config,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let metrics = metrics(server, config).await?;
    let mut serving = JoinSet::new();
    for listener in listeners {
        let server = server.clone();
        serving.spawn(async move { server.serve(listener).await });
    }
    let socket = config.socket.display();
    tracing::info!(%socket, "serving");
    tell(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving on {socket}")),
    ]);
    let failed = tokio::select! {
        () = stop => None,
        ended = serving.join_next() => ended,
    };
    tracing::info!(calls = server.calls(), "draining");
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    server.drain();
    let mut drained = Box::pin(async { while serving.join_next().await.is_some() {} });
    let limit = Duration::from_secs(config.serve.drain_seconds);
    if tokio::time::timeout(limit, &mut drained).await.is_err() {
        tracing::warn!(calls = server.calls(), "calls are cut off");
        server.cut_off();
        drained.await;
    }
    // They are told until the last call ended.
    drop(metrics);
    match failed {
        Some(Ok(ended)) => Ok(ended?),
        // A panic of ours: the service manager starts the next daemon.
        Some(Err(error)) => {
            tracing::error!(%error, "serving panicked");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Counts and tells what is measured for as long as the set lives; nothing where no address is configured.
async fn metrics(server: &Server, config: &Config) -> Result<JoinSet<()>, ListenError> {
    let mut tasks = JoinSet::new();
    let Some(address) = &config.serve.metrics else {
        return Ok(tasks);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ListenError::Io {
        verb: "listen on",
        object: address.clone(),
        source,
    })?;
    tracing::info!(%address, "metrics");
    let counting = server.clone();
    tasks.spawn(async move { counting.count_events().await });
    let server = server.clone();
    let text = move || {
        let server = server.clone();
        async move { server.metrics().await }
    };
    tasks.spawn(crate::metrics::serve(listener, text));
    Ok(tasks)
}

async fn close(node: Node) -> Result<(), DaemonError> {
    match node.is_idle().await {
        Ok(true) => Ok(node.halt().await?),
        // What cannot be asked is left as it is.
        Ok(false) | Err(_) => Ok(node.close().await?),
    }
}

/// Where no service manager listens this does nothing.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn remove(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(%error, socket = %socket.display(), "the socket is left");
    }
}
