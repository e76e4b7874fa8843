//! Bounded volumes: ext4 in a sparse file, mounted over a loop device. Full means full: `ENOSPC` at the bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use nix::mount::MsFlags;
use portlayer::archive::{ExtractOptions, Limits, scan};
use portlayer::element::{Body, DataStream, ElementId, Record, StoreKeys, VolumeSpec};
use portlayer::store::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};

use super::locks::{Held, Locks};
use super::populate::{fill, read_out, refused, set_root};
use super::{spec_in, spec_of};
use crate::image::{blocking, io_failed, spool};
use crate::mount::{
    Attachments, User, available_bytes, ensure_room, ignore_missing, mount_file, private_directory,
};
use crate::program::run;

/// Record key: the volume's file.
const KEY_FILE: &str = "file";
/// Smaller, and the file system's own tables leave nothing.
const SMALLEST: u64 = 4 << 20;
/// ext4's journal and tables: what is added to the bytes wanted.
const OVERHEAD: u64 = 8 << 20;

/// Settings of a block location.
#[derive(Debug, Clone)]
pub struct BlockConfig {
    /// Holds the files; ours alone.
    pub directory: PathBuf,
    /// Where volumes are mounted, below our state directory.
    pub mounts: PathBuf,
    /// What a data stream may cost.
    pub limits: Limits,
    /// Size of a volume for which neither a bound nor free space was asked, in bytes.
    pub default_bytes: u64,
}

/// Volumes as file systems in files.
#[derive(Debug, Clone)]
pub struct BlockVolumes {
    config: BlockConfig,
    attachments: Attachments,
    locks: Locks,
    /// Tells exports of one volume apart.
    exports: Arc<AtomicU64>,
}

impl BlockVolumes {
    /// Makes the directory when needed. Blocking, at start-up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(config: BlockConfig) -> Result<BlockVolumes, StoreError> {
        private_directory(&config.directory)?;
        let attachments = Attachments::new(&config.mounts);
        Ok(BlockVolumes {
            config,
            attachments,
            locks: Locks::default(),
            exports: Arc::default(),
        })
    }

    fn file(&self, digest_hex: &str) -> PathBuf {
        self.config.directory.join(format!("{digest_hex}.ext4"))
    }

    /// The volume, once nobody else works on it.
    async fn disk(&self, digest_hex: &str) -> Disk {
        Disk {
            file: self.file(digest_hex),
            volume: digest_hex.to_owned(),
            attachments: self.attachments.clone(),
            held: self.locks.hold(digest_hex).await,
        }
    }

    /// Whether this volume's file is in our directory.
    fn is_ours(&self, parent: &Record) -> bool {
        let file = self.file(&parent.id.digest_hex()).display().to_string();
        matches!(&parent.body, Body::Volume(volume) if volume.keys.get(KEY_FILE) == Some(&file))
    }

    /// A volume's content as a tar; unmounted when the reader is done.
    async fn tree(&self, digest_hex: &str) -> Result<DataStream, StoreError> {
        let user = User::Job(format!(
            "export {}",
            self.exports.fetch_add(1, Ordering::Relaxed)
        ));
        let (disk, reader) = (self.disk(digest_hex).await, user.clone());
        let path = blocking("mount volume", move || disk.attach(&reader)).await??;
        let (attachments, volume) = (self.attachments.clone(), digest_hex.to_owned());
        Ok(read_out(path, move || attachments.detach(&volume, &user)))
    }
}

/// One volume's file, locked as long as this or a clone of it lives. Blocking.
#[derive(Debug, Clone)]
struct Disk {
    file: PathBuf,
    volume: String,
    attachments: Attachments,
    /// Not read: it keeps the volume locked.
    held: Held,
}

impl Disk {
    fn create(&self, bytes: u64, inodes: u64) -> Result<(), StoreError> {
        ensure_room(&self.file, bytes)?;
        self.set_size(bytes)?;
        let inodes = inodes.to_string();
        let arguments = [
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            "-N",
            &inodes,
        ];
        run("mkfs.ext4", &arguments, &self.file, 0).map(drop)
    }

    fn set_size(&self, bytes: u64) -> Result<(), StoreError> {
        let open = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file);
        open.and_then(|file| file.set_len(bytes))
            .map_err(|e| io_failed("size", &self.file, e))
    }

    fn size(&self) -> Result<u64, StoreError> {
        match fs::metadata(&self.file) {
            Ok(meta) => Ok(meta.len()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::Missing(self.file.display().to_string()))
            }
            Err(e) => Err(io_failed("look at", &self.file, e)),
        }
    }

    fn attach(&self, user: &User) -> Result<PathBuf, StoreError> {
        self.size()?;
        self.attachments.attach(&self.volume, user, |target| {
            mount_file(&self.file, "ext4", target, MsFlags::MS_NODEV)?;
            // A volume starts empty; e2fsck makes it again should it ever need it.
            match fs::remove_dir(target.join("lost+found")) {
                Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
                other => {
                    ignore_missing(other).map_err(|e| io_failed("remove lost+found in", target, e))
                }
            }
        })
    }

    fn detach(&self, user: &User) -> Result<(), StoreError> {
        self.attachments.detach(&self.volume, user)
    }

    /// Grows until so many bytes are free, with the file system unmounted: this kernel refuses to grow it mounted.
    fn ensure_free(&self, free: u64, bound: u64) -> Result<(), StoreError> {
        if !self.attachments.users(&self.volume)?.is_empty() {
            return Err(StoreError::InUse("a bound volume cannot be resized"));
        }
        // Growing adds tables too, so the first step may fall short.
        for _ in 0..6 {
            let path = self.attach(&job())?;
            let have = available_bytes(&path);
            self.detach(&job())?;
            let have = have?;
            if have >= free {
                return Ok(());
            }
            let size = self.size()?;
            let wanted =
                (size + (free - have) + (free - have) / 16 + (1 << 20)).next_multiple_of(4096);
            let wanted = if bound > 0 { wanted.min(bound) } else { wanted };
            if wanted <= size {
                return Err(StoreError::InsufficientSpace {
                    need_bytes: free,
                    have_bytes: have,
                });
            }
            ensure_room(&self.file, wanted - size)?;
            run("e2fsck", &["-f", "-p"], &self.file, 1)?;
            self.set_size(wanted)?;
            run("resize2fs", &[], &self.file, 0)?;
        }
        Err(StoreError::InsufficientSpace {
            need_bytes: free,
            have_bytes: 0,
        })
    }

    fn destroy(&self) -> Result<(), StoreError> {
        self.attachments.release(&self.volume)?;
        ignore_missing(fs::remove_file(&self.file)).map_err(|e| io_failed("remove", &self.file, e))
    }
}

/// Filling and resizing: never both at once on one volume.
fn job() -> User {
    User::Job("work".to_owned())
}

/// Size and number of inodes for content of so many bytes in so many entries.
fn plan(spec: &VolumeSpec, default: u64, content: u64, entries: u64) -> (u64, u64) {
    let rounded = content.saturating_add(entries.saturating_mul(4096));
    let bytes = match (spec.size_bytes, spec.freespace_bytes) {
        (0, 0) => rounded.saturating_add(default),
        (0, free) => rounded
            .saturating_add(free)
            .saturating_add(free / 16)
            .saturating_add(OVERHEAD),
        (bound, _) => bound,
    };
    let bytes = bytes.max(SMALLEST).next_multiple_of(4096);
    (
        bytes,
        (bytes / 16384)
            .max(entries.saturating_add(entries / 8))
            .max(256),
    )
}

#[async_trait]
impl Store for BlockVolumes {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: true,
            parent_volume: true,
            data: true,
            bounded: true,
            persistent: true,
        }
    }

    fn shares_backing(&self, parent: &Record) -> bool {
        self.is_ours(parent)
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        let spec = spec_of(put.spec)?.clone();
        if spec.size_bytes > 0 && spec.size_bytes < SMALLEST {
            return Err(StoreError::InsufficientSpace {
                need_bytes: SMALLEST,
                have_bytes: spec.size_bytes,
            });
        }
        let mut limits = self.config.limits;
        let copied = match put
            .parent
            .filter(|parent| put.data.is_none() && self.is_ours(parent))
        {
            // Our own archive of a tree that is there already: no limits.
            Some(parent) => {
                limits = Limits {
                    bytes: u64::MAX,
                    entries: u64::MAX,
                    depth: usize::MAX,
                    ..limits
                };
                Some(self.tree(&parent.id.digest_hex()).await?)
            }
            None => None,
        };
        let is_copy = copied.is_some();
        let data = copied.or(put.data.take());
        if put.parent.is_some() && data.is_none() {
            return Err(StoreError::InvalidParent(
                "its file system was not given, and a block volume can only copy",
            ));
        }
        let disk = self.disk(&put.id.digest_hex()).await;
        let mut stored = Stored {
            keys: StoreKeys::from([(KEY_FILE.to_owned(), disk.file.display().to_string())]),
            ..Stored::default()
        };
        // The size of the file system depends on the data, so all of it is taken in first.
        let mut source = None;
        let (mut content, mut entries) = (0, 0);
        if let Some(data) = data {
            let spooled = spool(
                data,
                &self.config.directory,
                limits.bytes,
                put.checksum,
                put.progress.as_ref(),
            )
            .await?;
            if !is_copy {
                stored.checksum = Some(spooled.checksum);
                stored.size = spooled.size;
            }
            let file = spooled.file.clone();
            let scanned = blocking("check data", move || {
                scan(rewound(&file)?, &limits, |_| Ok(())).map_err(refused)
            })
            .await??;
            (content, entries) = (scanned.file_bytes, scanned.entries);
            source = Some(spooled.file);
        }
        let (bytes, inodes) = plan(&spec, self.config.default_bytes, content, entries);
        let made = disk.clone();
        let result = async {
            let root = blocking("make volume", move || {
                made.destroy()?;
                made.create(bytes, inodes)?;
                made.attach(&job())
            })
            .await??;
            let has_content = source.is_some();
            if let Some(file) = source {
                let file = blocking("read data", move || rewound(&file)).await??;
                // What is copied from a parent keeps its setuid files; a caller's archive does not bring any.
                let options = ExtractOptions {
                    limits,
                    keep_setid: put.parent.is_some(),
                    ..ExtractOptions::default()
                };
                let data: DataStream = Box::pin(tokio::fs::File::from_std(file));
                fill(&root, data, None, options, None, disk.held.clone()).await?;
            }
            let made = disk.clone();
            blocking("finish volume", move || {
                set_root(&root, &spec, has_content)?;
                made.detach(&job())?;
                made.ensure_free(spec.freespace_bytes, spec.size_bytes)
            })
            .await?
        };
        match result.await {
            Ok(()) => Ok(stored),
            Err(error) => {
                let undone = disk.clone();
                if let Err(undo) = blocking("remove volume", move || undone.destroy()).await? {
                    tracing::warn!(id = %put.id, %undo, "a volume that failed to fill could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        let disk = self.disk(&id.digest_hex()).await;
        blocking("remove volume", move || disk.destroy()).await?
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        self.tree(&record.id.digest_hex()).await
    }

    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let disk = self.disk(&record.id.digest_hex()).await;
        let user = User::Executor(executor.digest_hex());
        Ok(MountSource::Path(
            blocking("mount volume", move || disk.attach(&user)).await??,
        ))
    }

    async fn detach(
        &self,
        id: &ElementId,
        _keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError> {
        let disk = self.disk(&id.digest_hex()).await;
        let user = User::Executor(executor.digest_hex());
        blocking("unmount volume", move || disk.detach(&user)).await?
    }

    async fn detach_leftovers(&self, used: &BTreeSet<(String, String)>) -> Result<(), StoreError> {
        let (attachments, used) = (self.attachments.clone(), used.clone());
        blocking("unmount volumes", move || {
            attachments.release_leftovers(&used)
        })
        .await?
    }

    async fn ensure_freespace(
        &self,
        record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        let disk = self.disk(&record.id.digest_hex()).await;
        let bound = spec_in(record)?.size_bytes;
        blocking("resize volume", move || {
            disk.ensure_free(freespace_bytes, bound)
        })
        .await?
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.config.directory.clone();
        blocking("list volumes", move || {
            let failed = |e| io_failed("list", &directory, e);
            let mut names = Vec::new();
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                names.extend(
                    name.to_str()
                        .and_then(|n| n.strip_suffix(".ext4"))
                        .map(str::to_owned),
                );
            }
            Ok(names)
        })
        .await?
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        let disk = self.disk(digest_hex).await;
        blocking("remove volume", move || disk.destroy()).await?
    }

    async fn health(&self) -> Result<(), StoreError> {
        let directory = self.config.directory.clone();
        blocking("look at the location", move || available_bytes(&directory))
            .await?
            .map(drop)
    }
}

/// The file again, from its start.
fn rewound(file: &fs::File) -> Result<fs::File, StoreError> {
    use std::io::Seek;
    let failed = |e| io_failed("read staged data", Path::new("data"), e);
    let mut file = file.try_clone().map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_leave_room_for_what_is_asked() {
        let spec = |size_bytes, freespace_bytes| VolumeSpec {
            size_bytes,
            freespace_bytes,
            ..VolumeSpec::default()
        };
        assert_eq!(plan(&spec(64 << 20, 0), 1 << 20, 10, 1).0, 64 << 20);
        assert!(plan(&spec(0, 48 << 20), 0, 1 << 20, 10).0 > 49 << 20);
        assert_eq!(plan(&spec(0, 0), 0, 0, 0).0, SMALLEST);
        assert!(plan(&spec(0, 0), 16 << 20, 0, 100_000).1 > 100_000);
    }
}
