//! Streams made by a task of ours: what it writes is what the reader reads, and its error is the reader's error.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use super::DataStream;

/// Bytes on the way between writer and reader.
const BUFFER: usize = 256 << 10;

/// Runs `write` on a task of its own. The reader sees the end only when `write` succeeded; its error otherwise.
/// A reader that goes away gives the writer a broken pipe; the writer then cleans up and ends.
pub fn produce<F, W>(write: W) -> DataStream
where
    W: FnOnce(DuplexStream) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    read_of(theirs, tokio::spawn(write(ours)))
}

/// The same for a `write` that blocks: it runs on a thread for such work.
pub fn produce_blocking<W>(write: W) -> DataStream
where
    W: FnOnce(SyncIoBridge<DuplexStream>) -> io::Result<()> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let out = SyncIoBridge::new(ours);
    read_of(theirs, tokio::task::spawn_blocking(move || write(out)))
}

fn read_of(pipe: DuplexStream, task: JoinHandle<io::Result<()>>) -> DataStream {
    Box::pin(Produced {
        pipe,
        task: Some(task),
    })
}

struct Produced {
    pipe: DuplexStream,
    task: Option<JoinHandle<io::Result<()>>>,
}

impl AsyncRead for Produced {
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
        let result = std::task::ready!(Pin::new(task).poll(cx));
        this.task = None;
        Poll::Ready(result.map_err(io::Error::other).flatten())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let mut stream = produce(|mut out| async move { out.write_all(&vec![7; 1_000_000]).await });
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), 1_000_000);
    }

    #[tokio::test]
    async fn a_failed_writer_is_no_end_of_stream() {
        let mut stream = produce(|mut out| async move {
            out.write_all(b"half").await?;
            Err(io::Error::other("lost"))
        });
        let mut bytes = Vec::new();
        assert_eq!(
            stream
                .read_to_end(&mut bytes)
                .await
                .unwrap_err()
                .to_string(),
            "lost"
        );
        assert_eq!(bytes, b"half");
    }

    #[tokio::test]
    async fn a_blocking_writer_is_read_and_its_error_told() {
        use std::io::Write;
        let mut stream = produce_blocking(|mut out| {
            out.write_all(b"half")?;
            Err(io::Error::other("lost"))
        });
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.to_string(), "lost");
        assert_eq!(bytes, b"half");
    }
}
