//! Takes a caller's stream into a private file, counted and summed, before anything looks at it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use portlayer::element::{Checksum, DataStream, Summing};
use portlayer::store::{Progress, ProgressSink, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A spooled stream. The file has no name: it is gone when the last descriptor is.
#[derive(Debug, Clone)]
pub(crate) struct Spooled {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
    pub(crate) checksum: Checksum,
}

/// Reads the stream to its end into an unnamed file in `staging`.
///
/// # Errors
/// [`StoreError::Data`] when the stream fails, [`StoreError::UnsupportedFormat`] past `limit` bytes,
/// [`StoreError::ChecksumMismatch`], and what writing says.
pub(crate) async fn spool(
    mut stream: DataStream,
    staging: &Path,
    limit: u64,
    expected: Option<Checksum>,
    progress: Option<&ProgressSink>,
) -> Result<Spooled, StoreError> {
    let broken = |e: std::io::Error| super::io_failed("spool data", staging, e);
    let directory = staging.to_owned();
    let file = super::blocking("spool data", move || tempfile::tempfile_in(directory))
        .await?
        .map_err(broken)?;
    let mut out = tokio::fs::File::from_std(file);
    let mut summing = Summing::default();
    let mut buf = vec![0u8; 256 << 10];
    loop {
        let n = stream.read(&mut buf).await.map_err(StoreError::Data)?;
        if n == 0 {
            break;
        }
        summing.update(&buf[..n]);
        if summing.bytes() > limit {
            return Err(StoreError::Archive {
                part: "data".to_owned(),
                source: portlayer::archive::ArchiveError::TooManyBytes { limit },
            });
        }
        out.write_all(&buf[..n]).await.map_err(broken)?;
        if let Some(progress) = progress {
            progress(Progress::Read {
                bytes: summing.bytes(),
            });
        }
    }
    out.flush().await.map_err(broken)?;
    let size = summing.bytes();
    let actual = summing.finish();
    match expected {
        Some(expected) if expected != actual => {
            Err(StoreError::ChecksumMismatch { expected, actual })
        }
        _ => Ok(Spooled {
            file: Arc::new(out.into_std().await),
            size,
            checksum: actual,
        }),
    }
}
