//! Fills a staged directory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::io::SyncIoBridge;

use super::{StoreError, Trees, backend};
use crate::archive::{ArchiveError, ExtractOptions, Limits, Root, extract};
use crate::element::{Checksum, DataStream, Summing};
use crate::store::{Progress, ProgressSink};

/// A directory under `init` that is removed unless it was kept.
pub(super) struct Staged {
    path: PathBuf,
    trees: Arc<dyn Trees>,
    kept: bool,
    /// Tells the thread that fills it to stop.
    abandoned: Arc<AtomicBool>,
    /// A thread still writes into it and will remove it itself.
    handed_over: bool,
}

impl Staged {
    pub(super) fn new(path: PathBuf, trees: Arc<dyn Trees>) -> Self {
        Self {
            path,
            trees,
            kept: false,
            abandoned: Arc::default(),
            handed_over: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        if self.kept || self.handed_over {
            return;
        }
        if let Err(error) = self.trees.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a staged volume is left to the sweep");
        }
    }
}

/// Extracts a tar stream, adding up what passes. Errors: `Archive`, `Data`, `ChecksumMismatch`,
/// `InsufficientSpace`, `Backend`.
pub(super) async fn from_tar(
    staged: &mut Staged,
    data: DataStream,
    expected: Option<Checksum>,
    progress: Option<ProgressSink>,
    limits: Limits,
) -> Result<(Checksum, u64), StoreError> {
    let (path, trees) = (staged.path.clone(), staged.trees.clone());
    let abandoned = staged.abandoned.clone();
    let reader = Passing {
        stream: SyncIoBridge::new(data),
        summing: Summing::default(),
        progress,
        abandoned: abandoned.clone(),
    };
    // If this future is dropped while the thread writes, the thread removes what it wrote.
    staged.handed_over = true;
    let work = tokio::task::spawn_blocking(move || {
        let done = extract_all(reader, &path, limits);
        if abandoned.load(Ordering::Relaxed)
            && let Err(error) = trees.remove(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a staged volume is left to the sweep");
        }
        done
    });
    let done = work.await;
    staged.handed_over = false;
    let summing = done.map_err(|error| StoreError::Backend {
        verb: "extract",
        object: staged.path.display().to_string(),
        source: Box::new(error),
    })??;
    let size = summing.bytes();
    let actual = summing.finish();
    match expected {
        Some(expected) if expected != actual => {
            Err(StoreError::ChecksumMismatch { expected, actual })
        }
        _ => Ok((actual, size)),
    }
}

fn extract_all(mut reader: Passing, path: &Path, limits: Limits) -> Result<Summing, StoreError> {
    let root = Root::open(path).map_err(|errno| backend("open", path, errno.into()))?;
    let options = ExtractOptions {
        limits,
        keep_setid: false,
        ..ExtractOptions::default()
    };
    extract(&mut reader, &root, &options).map_err(|error| refused(error, path))?;
    // What is left of the stream (padding) is part of its sum.
    let rest = io::copy(&mut (&mut reader).take(limits.bytes), &mut io::sink());
    rest.map_err(StoreError::Data)?;
    Ok(reader.summing)
}

fn refused(error: ArchiveError, path: &Path) -> StoreError {
    if error.is_no_space() {
        return StoreError::InsufficientSpace {
            need_bytes: 0,
            have_bytes: 0,
        };
    }
    match error {
        ArchiveError::Read(error) => StoreError::Data(error),
        error @ ArchiveError::Tree { .. } => StoreError::Backend {
            verb: "extract",
            object: path.display().to_string(),
            source: Box::new(error),
        },
        error => StoreError::Archive {
            part: "data".into(),
            source: error,
        },
    }
}

/// The stream as it passes: summed, reported, and ended when nobody waits for it any more.
struct Passing {
    stream: SyncIoBridge<DataStream>,
    summing: Summing,
    progress: Option<ProgressSink>,
    abandoned: Arc<AtomicBool>,
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(io::Error::other("the caller went away"));
        }
        let count = self.stream.read(buffer)?;
        self.summing.update(&buffer[..count]);
        if let Some(progress) = &self.progress {
            progress(Progress::Read {
                bytes: self.summing.bytes(),
            });
        }
        Ok(count)
    }
}

/// Copies another volume of this store, sharing its blocks where the file system can. Nobody writes to it meanwhile:
/// the service lets only unbound volumes be parents. coreutils' `cp` keeps what a tar would lose: attributes, holes,
/// devices.
pub(super) async fn from_directory(
    staged: &mut Staged,
    source: impl FnOnce() -> Result<PathBuf, StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    let found = tokio::task::spawn_blocking(source).await;
    let source = found.map_err(|error| StoreError::Backend {
        verb: "open",
        object: "parent".into(),
        source: Box::new(error),
    })??;
    let copied = tokio::process::Command::new("cp")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["--archive", "--reflink=auto", "--sparse=auto", "--"])
        .arg(source.join("."))
        .arg(&staged.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| backend("start cp for", &source, error))?;
    if copied.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&copied.stderr).into_owned();
    let full = nix::sys::statvfs::statvfs(&staged.path)
        .is_ok_and(|stat| stat.blocks_available() == 0 || stat.files_available() == 0);
    if full {
        return Err(StoreError::InsufficientSpace {
            need_bytes: 0,
            have_bytes: 0,
        });
    }
    Err(backend("copy", &source, io::Error::other(said)))
}
