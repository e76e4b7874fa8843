//! Where the data of a new element come from: a file, a directory, or standard input.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portlayer::archive::{ArchiveError, Root, write_tree};
use portlayer::element::DataStream;
use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

use super::failure::Failure;

/// Bytes of a directory's tar that may be ready before they are read.
const BUFFER_BYTES: usize = 1 << 20;

/// An open source.
pub(crate) struct Source {
    /// Its bytes.
    pub(crate) data: DataStream,
    /// How many, where that is known.
    pub(crate) bytes: Option<u64>,
}

/// Opens `-` (standard input), a file, or a directory: an OCI layout or any tree, made a tar while it is read.
pub(crate) async fn open(from: &str) -> Result<Source, Failure> {
    if from == "-" {
        return Ok(Source {
            data: Box::pin(tokio::io::stdin()),
            bytes: None,
        });
    }
    let failed = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure::from(error).context(format!("opening {from:?} failed"));
        if missing { failure.exit(3) } else { failure }
    };
    let metadata = tokio::fs::metadata(from).await.map_err(failed)?;
    if metadata.is_dir() {
        let root = Root::open(Path::new(from)).map_err(|errno| failed(errno.into()))?;
        return Ok(Source {
            data: Box::pin(TreeStream::new(root)),
            bytes: None,
        });
    }
    let file = tokio::fs::File::open(from).await.map_err(failed)?;
    Ok(Source {
        data: Box::pin(file),
        bytes: metadata.is_file().then_some(metadata.len()),
    })
}

/// A directory as a tar, written by a thread of its own while it is read. A directory that cannot be read to its end
/// is an error at the end of the stream, never a shorter archive.
struct TreeStream {
    reader: DuplexStream,
    writer: Option<JoinHandle<Result<u64, ArchiveError>>>,
}

impl TreeStream {
    fn new(root: Root) -> Self {
        let (reader, writer) = tokio::io::duplex(BUFFER_BYTES);
        let writer = SyncIoBridge::new(writer);
        Self {
            reader,
            writer: Some(tokio::task::spawn_blocking(move || {
                write_tree(&root, writer)
            })),
        }
    }
}

impl AsyncRead for TreeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        if let Some(writer) = &mut self.writer {
            let written = ready!(Pin::new(writer).poll(cx));
            self.writer = None;
            written
                .map_err(io::Error::other)?
                .map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn read(from: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut source = open(from).await.expect("the source opens");
        source.data.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_directory_is_tarred_and_a_file_is_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        // More than the buffer, so that the writer has to wait for the reader.
        let large = vec![7; 3 * BUFFER_BYTES];
        std::fs::write(dir.path().join("sub/large"), &large).unwrap();
        std::fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        let tar = read(dir.path().to_str().unwrap()).await.unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let entry = entry.unwrap();
            found.push((entry.path().unwrap().display().to_string(), entry.size()));
        }
        assert!(found.contains(&("oci-layout".to_owned(), 2)), "{found:?}");
        assert!(
            found.contains(&("sub/large".to_owned(), large.len() as u64)),
            "{found:?}"
        );

        let file = dir.path().join("sub/large");
        let file = file.to_str().unwrap();
        assert_eq!(
            open(file).await.map(|s| s.bytes).ok().flatten(),
            Some(large.len() as u64)
        );
        assert_eq!(read(file).await.unwrap(), large);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        let Err(failure) = open("/nonexistent/x").await else {
            panic!("opened");
        };
        assert_eq!(failure.code(), 3);
        assert!(failure.text(false).contains("/nonexistent/x"));
    }
}
