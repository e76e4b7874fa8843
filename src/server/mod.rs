//! The daemon's gRPC server: `portlayer.v1` over any [`PortLayer`], with health, reflection and access control.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use portlayer_node::config::Config;
//! use portlayer_node::server::{Access, Facts, Listener, Server};
//!
//! let config = Config::new("/var/lib/portlayer");
//! let node = portlayer_node::open(&config).await?;
//! let server = Server::new(node.port_layer.clone(), Facts::of(&config, &node), Access::own());
//! // In the same process, without a socket: what the command line does where no daemon runs.
//! let client = server.client().await?;
//! client.info(false).await?;
//! // On a socket: ends after `server.drain()`.
//! let listener = Listener::unix("/run/portlayer.sock".as_ref(), 0o660, None)?;
//! server.serve(listener).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A server can serve several listeners at once. After [`Server::drain`] it takes no new calls, ends streams with a
//! status that says so, lets calls in flight come to their end, and every [`Server::serve`] returns.

mod auth;
mod compositions;
mod copies;
mod daemon;
mod diego;
mod elements;
mod events;
mod facts;
mod gate;
mod health;
mod listen;
mod node;
mod pull;
mod tasks;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use portlayer::PortLayer;
use portlayer::element::ElementId;
use portlayer::error::ErrorKind;
use portlayer::time::Timestamp;
use portlayer_client::wire::{Fault, WireError};
use portlayer_client::{Client, Error as ClientError};
use portlayer_proto::v1::compositions_service_server::CompositionsServiceServer;
use portlayer_proto::v1::diego_service_server::DiegoServiceServer;
use portlayer_proto::v1::elements_service_server::ElementsServiceServer;
use portlayer_proto::v1::events_service_server::EventsServiceServer;
use portlayer_proto::v1::node_service_server::NodeServiceServer;
use portlayer_proto::v1::tasks_service_server::TasksServiceServer;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::diego::Diego;
use crate::metrics::{Metrics, Now};

pub use auth::{Access, Caller, Who};
pub use daemon::{DaemonError, run};
pub use facts::Facts;
pub use listen::{ListenError, Listener, TlsFiles};

/// The largest request: a handle or a definition; data is streamed in pieces.
const REQUEST_BYTES: usize = 16 << 20;
/// Calls under way at once on one connection; those beyond wait at their caller.
const STREAMS: u32 = 10_000;
/// Bytes of data in one message.
const PIECE: usize = 256 << 10;

/// Why serving ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The TLS settings cannot be used.
    #[error("the TLS settings cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// The listener failed.
    #[error("serving failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves a port layer. Cloning shares it.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    routes: Routes,
}

/// What all services know.
struct Shared {
    layer: PortLayer,
    metrics: Arc<Metrics>,
    facts: Facts,
    access: Access,
    diego: Option<Arc<Diego>>,
    started: Timestamp,
    /// Cancelled when it drains.
    drain: CancellationToken,
    /// Cancelled when it waits for calls no longer.
    cut: CancellationToken,
    calls: Arc<AtomicU64>,
    subscriptions: Arc<AtomicU64>,
    engine_available: AtomicBool,
}

impl Server {
    /// A server of a port layer. Must be called in a tokio runtime: from now on the engine is asked every second
    /// whether it is there, for the health service.
    pub fn new(layer: PortLayer, facts: Facts, access: Access) -> Self {
        Self::build(layer, facts, access, None)
    }

    /// [`Server::new`] with Diego's tasks.
    pub fn with_diego(layer: PortLayer, facts: Facts, access: Access, diego: Arc<Diego>) -> Self {
        Self::build(layer, facts, access, Some(diego))
    }

    fn build(layer: PortLayer, facts: Facts, access: Access, diego: Option<Arc<Diego>>) -> Self {
        let shared = Arc::new(Shared {
            layer,
            metrics: Arc::new(Metrics::new()),
            facts,
            access,
            diego,
            started: Timestamp::now(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            calls: Arc::default(),
            subscriptions: Arc::default(),
            engine_available: AtomicBool::new(true),
        });
        let health = health::start(&shared);
        let routes = Routes::new(health)
            .add_service(reflection_v1())
            .add_service(reflection_v1alpha())
            .add_service(
                ElementsServiceServer::new(elements::Elements(shared.clone()))
                    .max_decoding_message_size(REQUEST_BYTES),
            )
            .add_service(
                CompositionsServiceServer::new(compositions::Compositions)
                    .max_decoding_message_size(REQUEST_BYTES),
            )
            .add_service(
                TasksServiceServer::new(tasks::Tasks(shared.clone()))
                    .max_decoding_message_size(REQUEST_BYTES),
            )
            .add_service(
                DiegoServiceServer::new(diego::Diego(shared.clone()))
                    .max_decoding_message_size(REQUEST_BYTES),
            )
            .add_service(EventsServiceServer::new(events::Events(shared.clone())))
            .add_service(NodeServiceServer::new(node::Node(shared.clone())))
            .prepare();
        Self { shared, routes }
    }

    /// Serves a listener until the server drained.
    pub async fn serve(&self, listener: Listener) -> Result<(), ServeError> {
        let gate = |origin| gate::GateLayer {
            shared: self.shared.clone(),
            origin,
        };
        let stop = self.shared.drain.clone().cancelled_owned();
        let cut = self.shared.cut.clone();
        let server = tonic::transport::Server::builder()
            // Data is streamed: the default windows of 64 KiB would stop it at every turn.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            // A scheduler waits for each of its tasks, all over one connection.
            .max_concurrent_streams(Some(STREAMS))
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .tcp_nodelay(true);
        let served = match listener.0 {
            listen::Kind::Unix(listener) => {
                let incoming = listen::unix_connections(listener, cut);
                let mut server = server.layer(gate(auth::Origin::Unix));
                let router = server.add_routes(self.routes.clone());
                router.serve_with_incoming_shutdown(incoming, stop).await
            }
            listen::Kind::Tls { listener, settings } => {
                let server = server.tls_config(*settings).map_err(ServeError::Tls)?;
                let incoming = listen::tcp_connections(listener, cut);
                let mut server = server.layer(gate(auth::Origin::Tls));
                let router = server.add_routes(self.routes.clone());
                router.serve_with_incoming_shutdown(incoming, stop).await
            }
            listen::Kind::Pipe(pipe) => {
                let incoming = listen::one_connection(pipe, &cut);
                let mut server = server.layer(gate(auth::Origin::Embedded));
                let router = server.add_routes(self.routes.clone());
                router.serve_with_incoming_shutdown(incoming, stop).await
            }
        };
        served.map_err(ServeError::Transport)
    }

    /// A client in this process, over a pipe in memory. It may do everything; audit rows name this process's user.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let server = self.clone();
        tokio::spawn(async move {
            // The client sees a lost connection.
            if let Err(error) = server.serve(Listener(listen::Kind::Pipe(theirs))).await {
                tracing::warn!(%error, "the connection of this process ended");
            }
        });
        Client::over(ours).await
    }

    /// What is measured, in the text form Prometheus reads.
    pub async fn metrics(&self) -> String {
        let shared = &self.shared;
        let now = Now {
            engine_up: shared.engine_available.load(Ordering::Relaxed),
            calls: shared.calls.load(Ordering::Relaxed),
            subscribers: shared.subscriptions.load(Ordering::Relaxed),
        };
        shared.metrics.text(&shared.layer, now).await
    }

    /// Counts the events to come, until the server drained.
    async fn count_events(&self) {
        let Ok(mut events) = self.shared.layer.subscribe::<&str>(None, &[]) else {
            return;
        };
        loop {
            tokio::select! {
                () = self.shared.drain.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => self.shared.metrics.count(&event),
                    Some(Err(error)) => tracing::warn!(%error, "an event was not counted"),
                    None => return,
                },
            }
        }
    }

    /// Begins to drain. Idempotent; returns at once.
    pub fn drain(&self) {
        self.shared.drain.cancel();
    }

    /// Drains and cuts every connection off. Idempotent; returns at once.
    pub fn cut_off(&self) {
        self.drain();
        self.shared.cut.cancel();
    }

    /// Calls in flight, streams included.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }
}

fn reflection_builder() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(portlayer_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn reflection_v1() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    reflection_builder()
        .build_v1()
        .expect("the descriptors were made by our own build")
}

fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    reflection_builder()
        .build_v1alpha()
        .expect("the descriptors were made by our own build")
}

/// The port layer as the caller of a request may use it. The gate put it there.
fn layer_of<T>(request: &Request<T>) -> Result<PortLayer, Status> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| Status::internal("the call passed no gate"))?;
    Ok(caller.layer.clone())
}

/// The id in a field of a request; the call's span tells it.
fn id_in(field: &str, text: &str) -> Result<ElementId, Status> {
    let id = portlayer_client::wire::id(field, text).map_err(bad)?;
    tracing::Span::current().record("id", id.as_str());
    Ok(id)
}

/// The id in a field of a request that may be left out.
fn optional_id_in(field: &str, text: Option<&str>) -> Result<Option<ElementId>, Status> {
    portlayer_client::wire::optional_id(field, text).map_err(bad)
}

/// The call's span tells the revision it ended with.
fn tell_revision(revision: u64) {
    tracing::Span::current().record("revision", revision);
}

/// A request that means nothing.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn bad(error: WireError) -> Status {
    error.fault().into_status()
}

/// The daemon ends: another will answer soon.
fn draining() -> Status {
    let text = "the daemon is being stopped";
    Fault::new(ErrorKind::Unavailable, "draining", text).into_status()
}

impl Shared {
    /// What `wait` answers, unless the daemon ends before.
    async fn unless_draining<T>(
        &self,
        wait: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            biased;
            done = wait => done,
            () = self.drain.cancelled() => Err(draining()),
        }
    }

    /// The stream until the daemon ends, then a status that says so.
    fn until_draining<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        let state = Some((Box::pin(answers), self.drain.clone()));
        Box::pin(futures::stream::unfold(state, |state| async move {
            let (mut answers, drain) = state?;
            tokio::select! {
                biased;
                () = drain.cancelled() => Some((Err(draining()), None)),
                answer = answers.next() => Some((answer?, Some((answers, drain)))),
            }
        }))
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
