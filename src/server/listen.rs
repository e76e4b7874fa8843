//! Where calls come in: a unix socket, one passed by the service manager, TLS, a pipe in memory.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use nix::unistd::{Gid, Group, Uid, User};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// How long to wait when no connection can be taken for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Why there is nothing to listen on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another daemon answers on the socket.
    #[error("another daemon answers on {0}")]
    InUse(PathBuf),
    /// The group of the socket does not exist.
    #[error("group {0:?} does not exist")]
    UnknownGroup(String),
    /// A call of the kernel failed.
    #[error("cannot {verb} {object}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(verb: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> ListenError {
    let object = object.to_string();
    move |source| ListenError::Io {
        verb,
        object,
        source,
    }
}

/// Something that can be served once.
pub struct Listener(pub(super) Kind);

pub(super) enum Kind {
    Unix(UnixListener),
    Tls {
        listener: TcpListener,
        settings: Box<ServerTlsConfig>,
    },
    Pipe(DuplexStream),
}

/// The files of a TLS listener, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that signed the certificates of callers; `None` = callers need none.
    pub client_authority: Option<PathBuf>,
}

impl Listener {
    /// A unix socket at a path, with these permission bits and group (name or number). It appears with both in place; a
    /// socket nobody answers on is replaced. Must be called in a tokio runtime.
    pub fn unix(path: &Path, mode: u32, group: Option<&str>) -> Result<Self, ListenError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make", parent.display()))?;
        }
        let group = group.map(group_id).transpose()?;
        let fresh = path.with_extension(format!("{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = std::os::unix::net::UnixListener::bind(&fresh);
        let listener = listener.map_err(failed("listen on", path.display()))?;
        let placed = (|| {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))?;
            if let Some(group) = group {
                nix::unistd::chown(&fresh, None, Some(group)).map_err(io::Error::from)?;
            }
            std::fs::rename(&fresh, path)
        })();
        if let Err(error) = placed {
            // What can be done about the rest of a failed attempt was done.
            let _ = std::fs::remove_file(&fresh);
            return Err(failed("set up", path.display())(error));
        }
        Self::from_std(listener).map_err(failed("listen on", path.display()))
    }

    /// The unix socket the service manager passed (systemd's protocol), if it passed one. Call it once, early.
    pub fn passed() -> Result<Option<Self>, ListenError> {
        let taken = listenfd::ListenFd::from_env().take_unix_listener(0);
        match taken.map_err(failed("use", "the passed socket"))? {
            None => Ok(None),
            Some(listener) => Self::from_std(listener)
                .map(Some)
                .map_err(failed("use", "the passed socket")),
        }
    }

    fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Kind::Unix(UnixListener::from_std(listener)?)))
    }

    /// TLS on an address `host:port`.
    pub async fn tls(address: &str, files: &TlsFiles) -> Result<Self, ListenError> {
        let read = async |path: &Path| {
            let text = tokio::fs::read(path).await;
            text.map_err(failed("read", path.display()))
        };
        let identity = Identity::from_pem(read(&files.certificate).await?, read(&files.key).await?);
        let mut settings = ServerTlsConfig::new().identity(identity);
        if let Some(authority) = &files.client_authority {
            settings = settings.client_ca_root(Certificate::from_pem(read(authority).await?));
        }
        let listener = TcpListener::bind(address).await;
        Ok(Self(Kind::Tls {
            listener: listener.map_err(failed("listen on", address))?,
            settings: Box::new(settings),
        }))
    }

    /// The address a TLS listener got.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        match &self.0 {
            Kind::Tls { listener, .. } => listener.local_addr().ok(),
            Kind::Unix(_) | Kind::Pipe(_) => None,
        }
    }
}

fn group_id(group: &str) -> Result<Gid, ListenError> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        _ => Err(ListenError::UnknownGroup(group.to_owned())),
    }
}

/// Who is at the other end of a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// The group it had when it connected, and those of its user.
    pub(super) gids: Arc<[u32]>,
}

/// A connection that knows its peer and can be cut off.
pub(super) struct Connection<IO, P> {
    io: IO,
    peer: P,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Tells that it ended.
    _gone: Option<DropGuard>,
}

impl<IO, P> Connection<IO, P> {
    fn new(io: IO, peer: P, cut: &CancellationToken) -> Self {
        Self {
            io,
            peer,
            cut: Box::pin(cut.clone().cancelled_owned()),
            _gone: None,
        }
    }
}

/// The connections of a unix listener, for ever.
pub(super) fn unix_connections(
    listener: UnixListener,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection<UnixStream, Option<Peer>>>> {
    futures::stream::unfold((listener, cut), |(listener, cut)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let peer = peer_of(&stream).await;
                    let connection = Connection::new(stream, peer, &cut);
                    return Some((Ok(connection), (listener, cut)));
                }
                Err(error) => not_taken(&error).await,
            }
        }
    })
}

/// The connections of a TCP listener, for ever.
pub(super) fn tcp_connections(
    listener: TcpListener,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection<TcpStream, TcpConnectInfo>>> {
    futures::stream::unfold((listener, cut), |(listener, cut)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Slower without it, and no worse.
                    let _ = stream.set_nodelay(true);
                    let peer = stream.connect_info();
                    let connection = Connection::new(stream, peer, &cut);
                    return Some((Ok(connection), (listener, cut)));
                }
                Err(error) => not_taken(&error).await,
            }
        }
    })
}

/// Out of descriptors, or the peer is gone already: neither is the listener's end.
async fn not_taken(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    tokio::time::sleep(PAUSE).await;
}

/// One connection; the stream ends when the connection did.
pub(super) fn one_connection(
    pipe: DuplexStream,
    cut: &CancellationToken,
) -> impl Stream<Item = io::Result<Connection<DuplexStream, ()>>> + use<> {
    let gone = CancellationToken::new();
    let mut connection = Connection::new(pipe, (), cut);
    connection._gone = Some(gone.clone().drop_guard());
    let end = futures::stream::once(gone.cancelled_owned());
    let end = end.filter_map(|()| std::future::ready(None));
    futures::stream::iter([Ok(connection)]).chain(end)
}

async fn peer_of(stream: &UnixStream) -> Option<Peer> {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!(%error, "the peer of a connection is unknown");
            return None;
        }
    };
    let (uid, gid) = (credentials.uid(), credentials.gid());
    // Looks into the user database, which may be a slow one.
    let groups = tokio::task::spawn_blocking(move || groups_of(uid, gid)).await;
    Some(Peer {
        uid,
        gids: groups.unwrap_or_else(|_| vec![gid]).into(),
    })
}

fn groups_of(uid: u32, gid: u32) -> Vec<u32> {
    let mut gids = vec![gid];
    if let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid))
        && let Ok(name) = std::ffi::CString::new(user.name)
        && let Ok(groups) = nix::unistd::getgrouplist(&name, user.gid)
    {
        gids.extend(groups.into_iter().map(Gid::as_raw));
    }
    gids
}

impl<IO, P: Clone + Send + Sync + 'static> Connected for Connection<IO, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<IO: AsyncRead + Unpin, P: Unpin> AsyncRead for Connection<IO, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Connection<IO, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
