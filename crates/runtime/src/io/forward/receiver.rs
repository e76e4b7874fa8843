//! The connection to a receiver of lines.

use std::io;
use std::time::Duration;

use portlayer::log::{LogKind, LogSpec, SyslogAddress};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixDatagram};

use super::lines::Line;
use super::message::{self, Whose};

/// How long a receiver may take to answer the connection, and to take one piece.
const LIMIT: Duration = Duration::from_secs(10);

#[allow(unsafe_code, reason = "no crate wraps SIOCOUTQ")]
mod ioctl {
    nix::ioctl_read_bad!(
        /// Bytes of a socket that its peer's kernel has not taken yet (tcp(7): SIOCOUTQ, which is TIOCOUTQ).
        unsent,
        nix::libc::TIOCOUTQ,
        i32
    );

    /// Those bytes of a stream.
    pub(super) fn waiting(stream: &tokio::net::TcpStream) -> std::io::Result<i32> {
        let mut bytes = 0;
        // SAFETY: the descriptor is open for as long as the stream is borrowed, and the kernel writes one int.
        unsafe { unsent(std::os::fd::AsRawFd::as_raw_fd(stream), &raw mut bytes) }?;
        Ok(bytes)
    }
}

/// A receiver that can be reached.
#[derive(Debug)]
pub(super) enum Receiver {
    Datagrams(UnixDatagram),
    Stream(TcpStream),
}

impl Receiver {
    /// Reaches it.
    pub(super) async fn connect(spec: &LogSpec) -> io::Result<Receiver> {
        let connect = async {
            match &spec.kind {
                LogKind::Journald { socket: path, .. }
                | LogKind::Syslog {
                    to: SyslogAddress::Unix(path),
                    ..
                } => {
                    let socket = UnixDatagram::unbound()?;
                    socket.connect(path)?;
                    Ok(Receiver::Datagrams(socket))
                }
                LogKind::Syslog {
                    to: SyslogAddress::Tcp(address),
                    ..
                } => Ok(Receiver::Stream(
                    TcpStream::connect(address.as_str()).await?,
                )),
                LogKind::File(_) | LogKind::Null | LogKind::Path(_) => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "nothing is sent there",
                )),
            }
        };
        tokio::time::timeout(LIMIT, connect).await?
    }

    /// Whether what it took can be lost with the connection.
    pub(super) fn may_break(&self) -> bool {
        matches!(self, Receiver::Stream(_))
    }

    /// Whether its connection holds.
    pub(super) fn check(&self) -> io::Result<()> {
        match self {
            Receiver::Datagrams(_) => Ok(()),
            Receiver::Stream(stream) => open(stream),
        }
    }

    /// Sends lines; `sent` of them were before. When it fails, those that were taken for certain are counted in it.
    pub(super) async fn send(
        &mut self,
        spec: &LogSpec,
        whose: &Whose,
        lines: &[Line],
        sent: &mut usize,
    ) -> io::Result<()> {
        match self {
            Receiver::Datagrams(socket) => {
                for line in &lines[*sent..] {
                    let message = encode(spec, whose, line);
                    tokio::time::timeout(LIMIT, socket.send(&message)).await??;
                    *sent += 1;
                }
            }
            Receiver::Stream(stream) => {
                let mut bytes = Vec::new();
                for line in &lines[*sent..] {
                    bytes.extend(message::framed(&encode(spec, whose, line)));
                }
                // A peer that hung up takes what is written and throws it away.
                open(stream)?;
                let taken = async {
                    stream.write_all(&bytes).await?;
                    while ioctl::waiting(stream)? > 0 {
                        open(stream)?;
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                    open(stream)
                };
                tokio::time::timeout(LIMIT, taken).await??;
                *sent = lines.len();
            }
        }
        Ok(())
    }
}

fn encode(spec: &LogSpec, whose: &Whose, line: &Line) -> Vec<u8> {
    match &spec.kind {
        LogKind::Journald { identifier, .. } => message::journald(whose, identifier, line),
        LogKind::Syslog { facility, app, .. } => message::syslog(whose, *facility, app, line),
        LogKind::File(_) | LogKind::Null | LogKind::Path(_) => Vec::new(),
    }
}

/// Error when the peer has ended the connection. It has nothing to say otherwise.
fn open(stream: &TcpStream) -> io::Result<()> {
    let mut nothing = [0; 64];
    match stream.try_read(&mut nothing) {
        Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
