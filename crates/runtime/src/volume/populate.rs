//! Fills a new volume and reads one out again.

use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use portlayer::archive::{ArchiveError, ExtractOptions, Root, extract, write_tree};
use portlayer::element::{Checksum, DataStream, Summing, VolumeSpec};
use portlayer::store::{Progress, ProgressSink, StoreError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::io::SyncIoBridge;

use super::locks::Held;
use crate::image::{blocking, io_failed};
use portlayer::element::stream;

/// What came out of a data stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filled {
    pub(super) checksum: Option<Checksum>,
    pub(super) size: u64,
}

/// Extracts a tar stream (plain, gzip, zstd) into a directory nobody else uses yet, summing it on the way. The whole
/// stream is read, so that the sum is that of all of it.
///
/// # Errors
/// A refused archive, another sum than `expected`, a full volume, a failed stream. What was written stays: the caller
/// throws the volume away.
///
/// Keeps `held` until the last write, also when the future is dropped.
pub(super) async fn fill(
    root: &Path,
    data: DataStream,
    expected: Option<Checksum>,
    options: ExtractOptions,
    progress: Option<ProgressSink>,
    held: Held,
) -> Result<Filled, StoreError> {
    // Dropped with this future: the extraction then ends at its next read instead of waiting for a stream nobody feeds.
    let (alive, gone) = oneshot::channel();
    let bridge = SyncIoBridge::new(WhileWanted { inner: data, gone });
    let path = root.to_owned();
    let (summing, result) = blocking("extract data", move || {
        let mut source = Summed {
            inner: bridge,
            summing: Summing::default(),
            progress,
        };
        let result = extract_into(&mut source, &path, &options);
        drop(held);
        (source.summing, result)
    })
    .await?;
    drop(alive);
    result?;
    let size = summing.bytes();
    let actual = summing.finish();
    match expected {
        Some(expected) if expected != actual => {
            Err(StoreError::ChecksumMismatch { expected, actual })
        }
        _ => Ok(Filled {
            checksum: Some(actual),
            size,
        }),
    }
}

fn extract_into(
    source: &mut impl Read,
    path: &Path,
    options: &ExtractOptions,
) -> Result<(), StoreError> {
    let root = Root::open(path).map_err(|e| io_failed("open", path, e.into()))?;
    extract(&mut *source, &root, options).map_err(refused)?;
    io::copy(source, &mut io::sink()).map_err(StoreError::Data)?;
    Ok(())
}

/// What a failed extraction means to a store.
pub(super) fn refused(error: ArchiveError) -> StoreError {
    match error {
        ArchiveError::Read(error) => StoreError::Data(error),
        error if error.is_no_space() => StoreError::InsufficientSpace {
            need_bytes: 0,
            have_bytes: 0,
        },
        source if source.is_bad_archive() => StoreError::Archive {
            part: "data".to_owned(),
            source,
        },
        source => StoreError::Backend {
            verb: "extract",
            object: "data".to_owned(),
            source: Box::new(source),
        },
    }
}

/// A stream that breaks when nobody waits for its result any more.
struct WhileWanted {
    inner: DataStream,
    gone: oneshot::Receiver<()>,
}

impl AsyncRead for WhileWanted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if Pin::new(&mut this.gone).poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        this.inner.as_mut().poll_read(cx, buf)
    }
}

struct Summed<R> {
    inner: R,
    summing: Summing,
    progress: Option<ProgressSink>,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.summing.update(&buf[..n]);
        if let Some(progress) = self.progress.as_ref().filter(|_| n > 0) {
            progress(Progress::Read {
                bytes: self.summing.bytes(),
            });
        }
        Ok(n)
    }
}

/// Owner and mode of a volume's root directory. A volume with content keeps what the content says unless the spec
/// says otherwise. Blocking.
pub(super) fn set_root(
    path: &Path,
    spec: &VolumeSpec,
    has_content: bool,
) -> Result<(), StoreError> {
    let failed = |e| io_failed("set owner and mode of", path, e);
    if !has_content || (spec.uid, spec.gid) != (0, 0) {
        chown(path, Some(spec.uid), Some(spec.gid)).map_err(failed)?;
    }
    let mode = spec.mode.or((!has_content).then_some(0o755));
    match mode {
        Some(mode) => {
            let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
            std::fs::set_permissions(path, permissions).map_err(failed)
        }
        None => Ok(()),
    }
}

/// A directory as a tar stream; `done` runs afterwards, whether the reader stayed to the end or not.
pub(super) fn read_out(
    path: PathBuf,
    done: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> DataStream {
    stream::produce(move |out| async move {
        let mut bridge = SyncIoBridge::new(out);
        let work = move || -> io::Result<()> {
            let written = Root::open(&path)
                .map_err(io::Error::from)
                .and_then(|root| write_tree(&root, &mut bridge).map_err(io::Error::other))
                .and_then(|_| bridge.shutdown());
            let cleaned = done().map_err(io::Error::other);
            written.and(cleaned)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    })
}
