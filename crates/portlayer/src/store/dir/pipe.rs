//! A tar of a tree as a stream: its end is only seen when the whole tree was written, else the writer's error.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use crate::archive::{ArchiveError, Root, write_tree};
use crate::element::DataStream;

/// Bytes on the way between writer and reader.
const BUFFER: usize = 256 << 10;

/// Writes the tree on a blocking thread. A reader that goes away ends it with a broken pipe.
pub(super) fn tar_of(root: Root) -> DataStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let out = SyncIoBridge::new(ours);
    let task = tokio::task::spawn_blocking(move || write_tree(&root, out).map(|_| ()));
    Box::pin(Tar {
        pipe: theirs,
        task: Some(task),
    })
}

struct Tar {
    pipe: DuplexStream,
    task: Option<JoinHandle<Result<(), ArchiveError>>>,
}

impl AsyncRead for Tar {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.pipe).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(task) = &mut this.task else {
            return Poll::Ready(Ok(()));
        };
        let written = std::task::ready!(Pin::new(task).poll(cx));
        this.task = None;
        Poll::Ready(match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}
