//! The way to a daemon, and what every call has in common: deadline, retry, errors.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response};

use crate::Error;

/// How long a call may take that only looks or makes one small change.
const QUICK: Duration = Duration::from_secs(30);
/// How long a call that changes nothing waits for a daemon that went away to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits between tries to reach a daemon that went away.
const WAITS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// The largest answer: a page of a thousand elements with all their metadata.
pub(crate) const ANSWER_BYTES: usize = 512 << 20;

/// Calls a daemon. Cheap to clone; all clones share one connection, which is made again when it was lost.
///
/// The methods are those of [`portlayer::PortLayer`], with the same domain types. Calls that change nothing are
/// repeated when the daemon goes away under them, for as long as the client's patience; a change is never sent twice.
#[derive(Clone)]
pub struct Client {
    pub(crate) channel: Channel,
    endpoint: Arc<str>,
    quick: Duration,
    long: Option<Duration>,
    patience: Duration,
}

/// A daemon behind TLS, and how both sides prove who they are.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `host:port`.
    pub address: String,
    /// The name in the server's certificate; `None` = the host.
    pub server_name: Option<String>,
    /// The authority that signed the server's certificate, PEM.
    pub authority: Vec<u8>,
    /// Our certificate and key, PEM, where the server asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    /// Connects to the daemon behind a unix socket. Errors: `Unreachable`.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, Error> {
        let socket: PathBuf = socket.as_ref().to_owned();
        let name = socket.display().to_string();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let connected = endpoint().connect_with_connector(connector).await;
        Self::connected(name, connected)
    }

    /// Connects to a daemon behind TLS. Errors: `Endpoint`, `Unreachable`.
    pub async fn connect_tls(tls: Tls) -> Result<Self, Error> {
        let name = format!("https://{}", tls.address);
        let unusable = |source| Error::Endpoint {
            endpoint: name.clone(),
            source,
        };
        let mut settings =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(tls.authority));
        if let Some(server) = tls.server_name {
            settings = settings.domain_name(server);
        }
        if let Some((certificate, key)) = tls.identity {
            settings = settings.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(name.clone()).map_err(unusable)?;
        let endpoint = windows(endpoint).tls_config(settings).map_err(unusable)?;
        Self::connected(name.clone(), endpoint.connect().await)
    }

    /// Over one connection that is there already, as one end of an in-memory pipe whose other end is served. It cannot
    /// be made again. Errors: `Unreachable`.
    pub async fn over<T>(connection: T) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut connection = Some(TokioIo::new(connection));
        let connector = tower::service_fn(move |_| {
            let taken = connection.take();
            let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
            async move { taken.ok_or_else(gone) }
        });
        let connected = endpoint().connect_with_connector(connector).await;
        Self::connected("the embedded port layer".to_owned(), connected)
    }

    fn connected(
        endpoint: String,
        channel: Result<Channel, tonic::transport::Error>,
    ) -> Result<Self, Error> {
        match channel {
            Ok(channel) => Ok(Self {
                channel,
                endpoint: endpoint.into(),
                quick: QUICK,
                long: None,
                patience: PATIENCE,
            }),
            Err(source) => Err(Error::Unreachable { endpoint, source }),
        }
    }

    /// The same client with this deadline for every call; for streams it is that of the whole stream. Without it calls
    /// that only look or make one small change have 30 s, all others as long as they take.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            quick: deadline,
            long: Some(deadline),
            ..self.clone()
        }
    }

    /// The same client, waiting so long for a daemon that went away before a call that changes nothing fails, or a
    /// stream of events ends. 0 = not at all.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    /// Where the daemon is, for people.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The connection, for other services of the same daemon (health, reflection).
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience {
            allowed: self.patience,
            since: None,
            wait: WAITS[0],
        }
    }

    /// The deadline of a call that may take long.
    pub(crate) fn long(&self) -> Option<Duration> {
        self.long
    }

    /// A call that only looks: repeated when the daemon goes away.
    pub(crate) async fn look<T, F>(
        &self,
        verb: &'static str,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        self.repeat(verb, Some(self.quick), call).await
    }

    /// A call that only looks and may take long: repeated when the daemon goes away.
    pub(crate) async fn watch<T, F>(
        &self,
        verb: &'static str,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        self.repeat(verb, self.long, call).await
    }

    async fn repeat<T, F>(
        &self,
        verb: &'static str,
        limit: Option<Duration>,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        let started = Instant::now();
        let mut patience = self.patience();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
            match within(verb, limit, left, call(self.channel.clone())).await {
                Err(error) if error.is_lost() && patience.wait().await => {}
                other => return other,
            }
        }
    }

    /// A call that makes one small change: sent once.
    pub(crate) async fn change<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        within(verb, Some(self.quick), Some(self.quick), call).await
    }

    /// A call that makes a change and may take long: sent once.
    pub(crate) async fn act<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        within(verb, self.long, self.long, call).await
    }
}

async fn within<T>(
    verb: &'static str,
    limit: Option<Duration>,
    left: Option<Duration>,
    call: impl Future<Output = Result<Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    let answer = match (limit, left) {
        (Some(limit), Some(left)) => tokio::time::timeout(left, call)
            .await
            .map_err(|_| Error::Deadline { verb, limit })?,
        _ => call.await,
    };
    Ok(answer?.into_inner())
}

/// A request that tells the server when nobody waits for the answer any more.
pub(crate) fn request<T>(message: T, limit: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(limit) = limit {
        request.set_timeout(limit);
    }
    request
}

/// How long a daemon that went away is waited for.
pub(crate) struct Patience {
    allowed: Duration,
    since: Option<Instant>,
    wait: Duration,
}

impl Patience {
    /// Waits a moment before the next try; false = no more.
    pub(crate) async fn wait(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.allowed {
            return false;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAITS[1]);
        true
    }

    /// The daemon answered: all patience is back.
    pub(crate) fn renew(&mut self) {
        self.since = None;
        self.wait = WAITS[0];
    }
}

/// The address is never used: connectors know theirs.
fn endpoint() -> Endpoint {
    windows(Endpoint::from_static("http://portlayer"))
}

/// Data is streamed: the default windows of 64 KiB would stop it at every turn. What a stream that nobody reads has taken
/// in counts against the window of the connection, which is so large that such streams do not hold up the others.
fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 30)
        .tcp_nodelay(true)
}
