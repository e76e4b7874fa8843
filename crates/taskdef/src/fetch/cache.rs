//! The fetcher: attempts, sums, bounds, and the cache of files by key.
//!
//! The cache is a directory: `<md5 of the key>` is the content, `<md5 of the key>.json` what is known of it. It outlives
//! the process, and what is damaged in it is as if it were not there.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Answer, Fetch, FetchError, SendFile, Sums, Validators};
use crate::plan::Archive;

/// Attempts of a download.
const DOWNLOADS: u32 = 4;
/// Attempts of an upload.
const UPLOADS: u32 = 3;
/// First pause between attempts; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Moved at once, each way.
const AT_ONCE: usize = 5;

/// Fetches and sends for all tasks of a node.
pub struct Fetcher {
    fetch: Arc<dyn Fetch>,
    directory: PathBuf,
    /// Most bytes of one download.
    limit_bytes: u64,
    /// Most bytes the cache keeps.
    cache_bytes: u64,
    downloads: Semaphore,
    uploads: Semaphore,
    /// One at a time per key would do; one for all is simpler and holds no lock while it waits for a server.
    index: Mutex<()>,
}

/// Something fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes; the file lives as long as it is open, whatever becomes of the cache.
    pub file: File,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Bytes that came over the network; `None` = the cached content is still the newest.
    pub downloaded_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    validators: Validators,
    sha256: String,
    bytes: u64,
}

impl Fetcher {
    /// A fetcher that keeps its cache and its temporary files in a directory of its own, made when it is missing.
    pub fn new(fetch: Arc<dyn Fetch>, directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            fetch,
            directory,
            limit_bytes: 16 << 30,
            cache_bytes: 10 << 30,
            downloads: Semaphore::new(AT_ONCE),
            uploads: Semaphore::new(AT_ONCE),
            index: Mutex::default(),
        })
    }

    /// A directory for temporary files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The client below.
    pub fn client(&self) -> &Arc<dyn Fetch> {
        &self.fetch
    }

    /// Fetches an archive, from the cache where it is still the newest. The sum is checked in both cases.
    ///
    /// # Errors
    /// [`FetchError`]; `Cancelled` as soon as `cancel` says so.
    pub async fn fetch(
        &self,
        archive: &Archive,
        cancel: &CancellationToken,
    ) -> Result<Fetched, FetchError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(FetchError::Cancelled),
            fetched = self.fetch_now(archive) => fetched,
        }
    }

    async fn fetch_now(&self, archive: &Archive) -> Result<Fetched, FetchError> {
        // The semaphore is never closed.
        let _permit = self
            .downloads
            .acquire()
            .await
            .map_err(|_| FetchError::Cancelled)?;
        let place = archive
            .cache_key
            .as_deref()
            .map(|key| Place::new(&self.directory, key));
        let known = match &place {
            Some(place) => place.known(),
            None => None,
        };
        let mut pause = PAUSE;
        for left in (0..DOWNLOADS).rev() {
            match self.attempt(archive, place.as_ref(), known.as_ref()).await {
                Err(error) if left > 0 && error.is_passing() => {
                    tracing::debug!(%error, left, "a download failed, trying again");
                    tokio::time::sleep(pause + Duration::from_millis(fastrand_ms())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
        Err(FetchError::Cancelled)
    }

    async fn attempt(
        &self,
        archive: &Archive,
        place: Option<&Place>,
        known: Option<&Known>,
    ) -> Result<Fetched, FetchError> {
        let validators = known.map(|known| &known.validators);
        match self.fetch.get(&archive.url, validators).await? {
            Answer::NotModified => {
                let (Some(place), Some(known)) = (place, known) else {
                    return Err(FetchError::Format(
                        "the server says not modified and was not asked",
                    ));
                };
                let fetched = place.open(known, archive).await;
                if fetched.is_err() {
                    // Damaged or of another sum: the next attempt of anybody asks for all of it.
                    place.forget();
                }
                fetched
            }
            Answer::Body { validators, bytes } => {
                let (file, sums, size) = self.spool(archive, bytes).await?;
                let fetched = Fetched {
                    sha256: sums.sha256_hex(),
                    downloaded_bytes: Some(size),
                    file,
                };
                if let Some(place) = place.filter(|_| !validators.is_empty()) {
                    let known = Known {
                        validators,
                        sha256: fetched.sha256.clone(),
                        bytes: size,
                    };
                    self.keep(place, known, &fetched.file).await?;
                }
                Ok(fetched)
            }
        }
    }

    /// Writes a stream to an unnamed file and checks its sum.
    async fn spool(
        &self,
        archive: &Archive,
        mut bytes: portlayer::element::DataStream,
    ) -> Result<(File, Sums, u64), FetchError> {
        let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(&self.directory)?);
        let mut sums = Sums::new(archive.checksum.as_ref());
        let mut size = 0;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = bytes
                .read(&mut buffer)
                .await
                .map_err(|error| FetchError::Connection {
                    host: "the server".to_owned(),
                    text: error.to_string(),
                })?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > self.limit_bytes {
                return Err(FetchError::TooLarge {
                    limit: self.limit_bytes,
                });
            }
            sums.update(&buffer[..read]);
            file.write_all(&buffer[..read]).await?;
        }
        file.flush().await?;
        sums.check(archive.checksum.as_ref())?;
        Ok((file.into_std().await, sums, size))
    }

    /// Puts a file into the cache and makes room for it.
    async fn keep(&self, place: &Place, known: Known, file: &File) -> io::Result<()> {
        let _index = self.index.lock().await;
        let (place, directory, limit) = (place.clone(), self.directory.clone(), self.cache_bytes);
        let from = file.try_clone()?;
        let kept = tokio::task::spawn_blocking(move || {
            place.store(&known, from, &directory)?;
            make_room(&directory, limit, &place.content)
        });
        kept.await.map_err(io::Error::other)?
    }

    /// Sends a file; answers its size in bytes.
    ///
    /// # Errors
    /// The error of the last attempt; `Cancelled` as soon as `cancel` says so.
    pub(crate) async fn send(
        &self,
        url: &str,
        path: &Path,
        sums: &Sums,
        bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<(), FetchError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(FetchError::Cancelled),
            sent = self.send_now(url, path, sums, bytes) => sent,
        }
    }

    async fn send_now(
        &self,
        url: &str,
        path: &Path,
        sums: &Sums,
        bytes: u64,
    ) -> Result<(), FetchError> {
        let _permit = self
            .uploads
            .acquire()
            .await
            .map_err(|_| FetchError::Cancelled)?;
        let (md5, sha256) = sums.base64();
        let file = SendFile {
            path,
            bytes,
            md5,
            sha256,
        };
        let mut left = UPLOADS;
        loop {
            left -= 1;
            match self.fetch.post_file(url, &file).await {
                Err(error) if left > 0 && error.is_passing() => {
                    tracing::debug!(%error, left, "an upload failed, trying again");
                }
                other => return other,
            }
        }
    }
}

/// Up to 200 ms, so that what failed together is not repeated together.
fn fastrand_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::from(now.unwrap_or_default().subsec_nanos()) % 200
}

/// Where a key's content is kept.
#[derive(Debug, Clone)]
struct Place {
    content: PathBuf,
    record: PathBuf,
}

impl Place {
    fn new(directory: &Path, key: &str) -> Self {
        let name = hex::encode(Md5::digest(key.as_bytes()));
        Self {
            record: directory.join(format!("{name}.json")),
            content: directory.join(name),
        }
    }

    /// What is known of the content, when it is whole.
    fn known(&self) -> Option<Known> {
        let known: Known = serde_json::from_slice(&std::fs::read(&self.record).ok()?).ok()?;
        let size = std::fs::metadata(&self.content).ok()?.len();
        (size == known.bytes).then_some(known)
    }

    fn forget(&self) {
        // What cannot be removed is looked at again the next time.
        let _ = std::fs::remove_file(&self.record);
    }

    /// Opens the content and checks it against what is demanded now (Diego does not, after a 304).
    async fn open(&self, known: &Known, archive: &Archive) -> Result<Fetched, FetchError> {
        let (content, demanded) = (self.content.clone(), archive.checksum.clone());
        let expected = known.sha256.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = File::open(&content)?;
            let mut sums = Sums::new(demanded.as_ref());
            let mut buffer = vec![0; 128 << 10];
            loop {
                let read = io::Read::read(&mut file, &mut buffer)?;
                if read == 0 {
                    break;
                }
                sums.update(&buffer[..read]);
            }
            if sums.sha256_hex() != expected {
                return Err(FetchError::Format("the cached content is damaged"));
            }
            sums.check(demanded.as_ref())?;
            // Its time of change is the time of its last use.
            file.set_modified(SystemTime::now())
                .or_else(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => Ok(()),
                    _ => Err(error),
                })?;
            Ok(file)
        });
        Ok(Fetched {
            file: opened.await.map_err(io::Error::other)??,
            sha256: known.sha256.clone(),
            downloaded_bytes: None,
        })
    }

    /// Content first, record last: a record without its content is never believed.
    fn store(&self, known: &Known, mut from: File, directory: &Path) -> io::Result<()> {
        io::Seek::seek(&mut from, io::SeekFrom::Start(0))?;
        let mut copy = tempfile::NamedTempFile::new_in(directory)?;
        io::copy(&mut from, &mut copy)?;
        self.forget();
        copy.persist(&self.content)?;
        let mut record = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut record, known)?;
        record.persist(&self.record)?;
        Ok(())
    }
}

/// Removes what was not used for the longest time until the rest fits. `newest` stays.
fn make_room(directory: &Path, limit: u64, newest: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let content = path.with_extension("");
            if let Ok(data) = std::fs::metadata(&content) {
                kept.push((data.modified()?, data.len(), content, path));
            }
        }
    }
    kept.sort();
    let mut total: u64 = kept.iter().map(|(_, bytes, ..)| bytes).sum();
    for (_, bytes, content, record) in kept {
        if total <= limit {
            break;
        }
        if content != newest {
            std::fs::remove_file(record)?;
            std::fs::remove_file(content)?;
            total -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
