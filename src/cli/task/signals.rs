//! Signals to this process, as a stream.

use std::io;

use futures::stream::BoxStream;
use futures::stream::{SelectAll, StreamExt, select_all, unfold};
use nix::libc;
use tokio::signal::unix::{SignalKind, signal};

/// The signals that are passed on to a task. SIGPIPE, SIGCHLD and those of job control are about us.
const PROXIED: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// What this process was told.
pub(crate) struct Signals {
    received: SelectAll<BoxStream<'static, i32>>,
}

impl Signals {
    /// From now on these signals do not end this process but come from [`Signals::next`].
    pub(crate) fn listen() -> io::Result<Self> {
        let streams = PROXIED
            .into_iter()
            .chain([libc::SIGWINCH])
            .map(|number| {
                let source = signal(SignalKind::from_raw(number))?;
                Ok(unfold(source, move |mut source| async move {
                    source.recv().await.map(|()| (number, source))
                })
                .boxed())
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            received: select_all(streams),
        })
    }

    /// The next one that would end a process. Dropping the future loses nothing.
    pub(crate) async fn ending(&mut self) -> i32 {
        loop {
            let number = self.next().await;
            if number != libc::SIGWINCH {
                return number;
            }
        }
    }

    /// The next one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> i32 {
        match self.received.next().await {
            Some(number) => number,
            // Signal handlers are never taken away.
            None => std::future::pending().await,
        }
    }
}
