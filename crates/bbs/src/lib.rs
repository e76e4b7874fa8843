//! Diego's own interface (its "BBS") over HTTP and protobuf, so that an unmodified client desires, lists, watches,
//! cancels and resolves tasks of this node.
//!
//! Every call is a POST whose answer has status 200 and its error inside. What belongs to long-running processes answers
//! empty lists and otherwise an error; what only cells call of each other is not there, for we are the cell.

mod message;
mod routes;
mod tls;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portlayer_taskdef::diego::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use tls::{TlsError, TlsFiles};

/// How long to wait when no connection can be taken for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves tasks to Diego's clients on one address.
pub struct Facade {
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    tasks: Tasks,
}

impl Facade {
    /// Takes a listener into service. Whoever has no certificate of the authority does not get in.
    ///
    /// # Errors
    /// [`TlsError`]: a file cannot be read or used.
    pub fn new(listener: TcpListener, files: &TlsFiles, tasks: Tasks) -> Result<Self, TlsError> {
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(files.server()?));
        Ok(Self {
            listener,
            tls,
            tasks,
        })
    }

    /// The address it has.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then takes nobody in, ends watches, and returns when every call was answered.
    pub async fn serve(self, stop: CancellationToken) {
        let calls = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (tls, tasks, stop) = (self.tls.clone(), self.tasks.clone(), stop.clone());
                    calls.spawn(async move {
                        if let Err(error) = connection(stream, &tls, tasks, stop).await {
                            tracing::debug!(%peer, %error, "a connection of a diego client ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        calls.close();
        calls.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    tls: &tokio_rustls::TlsAcceptor,
    tasks: Tasks,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
    let service = service_fn(|request| {
        let (tasks, stop) = (tasks.clone(), stop.clone());
        async move { Ok::<_, Infallible>(routes::answer(request, &tasks, stop).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    Ok(serving.await?)
}
