//! Directories: plain ones on a file system of the host, or such as somebody else makes ([`Trees`]).
//!
//! ```text
//! <root>/live/<digest of the id>/            the root of the volume
//! <root>/init/<digest of the id>.<number>/   being filled or being removed
//! ```
//!
//! What is under `live` is whole: a volume is filled under `init` and renamed. What is left under `init` after a
//! crash is garbage, and so is what is under `live` without a record; both are in [`Store::list`].

mod fill;
mod trees;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
pub use trees::{Trees, writable_bytes};

use super::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};
use crate::archive::{Limits, Root, write_tree};
use crate::element::{DataStream, ElementId, Kind, Record, Spec, StoreKeys, VolumeSpec, stream};

/// Length of a SHA-256 in hex.
const DIGEST: usize = 64;

/// Volumes in directories. Cloning shares it.
#[derive(Clone)]
pub struct DirStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    limits: Limits,
    trees: Arc<dyn Trees>,
    /// Tells the directories under `init` of one start apart.
    next: AtomicU64,
}

impl DirStore {
    /// A store of plain directories in `root`, which is made when it is missing and is readable by its owner only. What is
    /// put into volumes is held to `limits`. Error: `Unavailable`; a store that cannot be opened now may be opened later.
    pub fn open(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, StoreError> {
        let store = Self::over(root, limits, Arc::new(trees::Plain));
        store.inner.make_own()?;
        Ok(store)
    }

    /// A store of directories that `trees` makes in `root`. Nothing is done until it is used.
    pub fn over(root: impl Into<PathBuf>, limits: Limits, trees: Arc<dyn Trees>) -> Self {
        let inner = Inner {
            root: root.into(),
            limits,
            trees,
            next: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || {
            inner.ready()?;
            work(&inner)
        });
        let done = done.await;
        done.map_err(|error| StoreError::Backend {
            verb: "work",
            object: "volume".into(),
            source: Box::new(error),
        })?
    }
}

impl Inner {
    fn ready(&self) -> Result<(), StoreError> {
        match self.trees.ready()? {
            true => self.make_own(),
            false => Ok(()),
        }
    }

    fn make_own(&self) -> Result<(), StoreError> {
        for directory in [self.root.clone(), self.live(), self.init()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&directory)
                .map_err(|error| {
                    StoreError::Unavailable(format!("{}: {error}", directory.display()))
                })?;
        }
        Ok(())
    }

    fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    fn init(&self) -> PathBuf {
        self.root.join("init")
    }

    fn volume(&self, digest: &str) -> PathBuf {
        self.live().join(digest)
    }

    /// A name under `init` nobody uses: number and process tell it from those of an earlier start.
    fn fresh(&self, digest: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.init()
            .join(format!("{digest}.{}-{number}", std::process::id()))
    }

    fn check_free(&self, path: &Path, need_bytes: u64) -> Result<(), StoreError> {
        if need_bytes == 0 {
            return Ok(());
        }
        let have_bytes = self.trees.free_bytes(path)?;
        if need_bytes > have_bytes {
            return Err(StoreError::InsufficientSpace {
                need_bytes,
                have_bytes,
            });
        }
        Ok(())
    }

    /// The existing directory of a volume.
    fn existing(&self, id: &ElementId) -> Result<PathBuf, StoreError> {
        let path = self.volume(&id.digest_hex());
        if path.is_dir() {
            Ok(path)
        } else {
            Err(StoreError::Missing(path.display().to_string()))
        }
    }

    /// Takes a volume out of `live` at once and then removes it.
    fn discard(&self, digest: &str) -> Result<(), StoreError> {
        let live = self.volume(digest);
        let dead = self.fresh(digest);
        match fs::rename(&live, &dead) {
            Ok(()) => self.trees.remove(&dead),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(backend("rename", &live, error)),
        }
    }

    /// Makes the directory a volume is filled in. True: it has all that the parent has.
    fn stage(
        &self,
        digest: &str,
        spec: &VolumeSpec,
        parent: Option<&Record>,
    ) -> Result<(PathBuf, bool), StoreError> {
        self.check_free(&self.root, spec.freespace_bytes)?;
        let staged = self.fresh(digest);
        if let Some(parent) = parent
            && self
                .trees
                .share(&self.existing(&parent.id)?, &staged, spec.size_bytes)?
        {
            return Ok((staged, true));
        }
        self.trees.create(&staged, spec.size_bytes)?;
        // By name, because the mode at creation is cut by the umask.
        let opened = fs::set_permissions(&staged, fs::Permissions::from_mode(0o755));
        opened.map_err(|error| backend("create", &staged, error))?;
        Ok((staged, false))
    }

    /// Puts a filled directory into its place.
    fn publish(&self, staged: &Path, digest: &str) -> Result<(), StoreError> {
        // Left by a create that crashed before its record was written.
        self.discard(digest)?;
        let live = self.volume(digest);
        fs::rename(staged, &live).map_err(|error| backend("rename", staged, error))?;
        let directory = fs::File::open(self.live()).and_then(|live| live.sync_all());
        directory.map_err(|error| backend("sync", &self.live(), error))
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut digests = Vec::new();
        for directory in [self.live(), self.init()] {
            let entries =
                fs::read_dir(&directory).map_err(|error| backend("read", &directory, error))?;
            for entry in entries {
                let entry = entry.map_err(|error| backend("read", &directory, error))?;
                let name = entry.file_name();
                if let Some(digest) = name.to_str().and_then(|name| name.get(..DIGEST)) {
                    digests.push(digest.to_owned());
                }
            }
        }
        digests.sort();
        digests.dedup();
        Ok(digests)
    }

    fn sweep(&self, digest: &str) -> Result<(), StoreError> {
        let hex = digest.len() == DIGEST && digest.bytes().all(|c| c.is_ascii_hexdigit());
        if !hex {
            return Err(StoreError::Missing(format!("{digest:?} is no digest")));
        }
        self.discard(digest)?;
        self.sweep_init(digest)
    }

    fn sweep_init(&self, digest: &str) -> Result<(), StoreError> {
        let init = self.init();
        for entry in fs::read_dir(&init).map_err(|error| backend("read", &init, error))? {
            let entry = entry.map_err(|error| backend("read", &init, error))?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(digest))
            {
                self.trees.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn health(&self) -> Result<(), StoreError> {
        for directory in [self.live(), self.init()] {
            fs::read_dir(&directory).map_err(|error| {
                StoreError::Unavailable(format!("{}: {error}", directory.display()))
            })?;
        }
        self.trees.free_bytes(&self.root).map(drop)
    }
}

#[async_trait]
impl Store for DirStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: true,
            parent_volume: true,
            data: true,
            bounded: self.inner.trees.bounded(),
            persistent: true,
        }
    }

    async fn put(&self, put: Put<'_>) -> Result<Stored, StoreError> {
        let Spec::Volume(spec) = put.spec else {
            return Err(StoreError::Unsupported("elements that are no volumes"));
        };
        let spec = spec.clone();
        let digest = put.id.digest_hex();
        let parent = put.parent.filter(|_| put.data.is_none());
        let (staged, shared) = {
            let (digest, spec, parent) = (digest.clone(), spec.clone(), parent.cloned());
            self.blocking(move |inner| inner.stage(&digest, &spec, parent.as_ref()))
                .await?
        };
        // From here on the guard removes what is staged, also when this future is dropped.
        let mut guard = fill::Staged::new(staged, self.inner.trees.clone());
        let (checksum, size) = match (put.data, put.parent) {
            (Some(data), _) => {
                let (sum, size) = fill::from_tar(
                    &mut guard,
                    data,
                    put.checksum,
                    put.progress,
                    self.inner.limits,
                )
                .await?;
                (Some(sum), size)
            }
            (None, Some(parent)) if !shared => {
                let (inner, parent) = (self.inner.clone(), parent.id.clone());
                fill::from_directory(&mut guard, move || inner.existing(&parent)).await?;
                (None, 0)
            }
            (None, _) => (None, 0),
        };
        let filled = checksum.is_some() || put.parent.is_some();
        self.blocking(move |inner| {
            own(guard.path(), &spec, filled)?;
            inner.check_free(guard.path(), spec.freespace_bytes)?;
            if filled {
                sync(guard.path())?;
            }
            inner.publish(guard.path(), &digest)?;
            guard.keep();
            Ok(())
        })
        .await?;
        Ok(Stored {
            checksum,
            size,
            ..Stored::default()
        })
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        let digest = id.digest_hex();
        self.blocking(move |inner| inner.discard(&digest)).await
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        let id = record.id.clone();
        let root = self.blocking(move |inner| {
            let path = inner.existing(&id)?;
            Root::open(&path).map_err(|errno| backend("open", &path, errno.into()))
        });
        let root = root.await?;
        Ok(stream::produce_blocking(move |out| {
            write_tree(&root, out).map(drop).map_err(io::Error::other)
        }))
    }

    fn shares_backing(&self, parent: &Record) -> bool {
        parent.id.kind() == Kind::Volume && self.inner.existing(&parent.id).is_ok()
    }

    async fn attach(
        &self,
        record: &Record,
        _executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let id = record.id.clone();
        self.blocking(move |inner| inner.existing(&id).map(MountSource::Path))
            .await
    }

    /// Nothing was done to attach it.
    async fn detach(
        &self,
        _id: &ElementId,
        _keys: &StoreKeys,
        _executor: &ElementId,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// A directory has all that the file system has, or its bound; there is nothing to grow.
    async fn ensure_freespace(
        &self,
        record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        let id = record.id.clone();
        self.blocking(move |inner| inner.check_free(&inner.existing(&id)?, freespace_bytes))
            .await
    }

    fn own_places(&self) -> Vec<PathBuf> {
        self.inner.trees.own_places()
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        self.blocking(Inner::list).await
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        let digest = digest_hex.to_owned();
        self.blocking(move |inner| inner.sweep(&digest)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.blocking(Inner::health).await
    }
}

fn backend(verb: &'static str, path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::InsufficientSpace {
                need_bytes: 0,
                have_bytes: 0,
            }
        }
        _ => StoreError::Backend {
            verb,
            object: path.display().to_string(),
            source: Box::new(error),
        },
    }
}

/// Gives the root the owner and mode asked for. A filled root keeps what its content said where nothing was asked.
fn own(path: &Path, spec: &VolumeSpec, filled: bool) -> Result<(), StoreError> {
    if !filled || spec.uid != 0 || spec.gid != 0 {
        chown(path, Some(spec.uid), Some(spec.gid))
            .map_err(|error| backend("chown", path, error))?;
    }
    match spec.mode {
        Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| backend("chmod", path, error)),
        None => Ok(()),
    }
}

/// A record must not be durable before the bytes it speaks of.
fn sync(path: &Path) -> Result<(), StoreError> {
    let directory = fs::File::open(path).map_err(|error| backend("open", path, error))?;
    nix::unistd::syncfs(&directory).map_err(|errno| backend("sync", path, errno.into()))
}

#[cfg(test)]
mod tests;
