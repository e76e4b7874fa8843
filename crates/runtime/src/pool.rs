//! A pool: a btrfs in a sparse file, mounted over a loop device. What is made in it is a subvolume with a quota group of its own, so
//! a bound is exact, costs no file system of its own, and a copy shares all its blocks.
//!
//! ```text
//! <file>            the file system, as large as the pool may get
//! <mount>/          mounted, for as long as the engine has its data directory
//! ```
//!
//! A task must not be able to make subvolumes: they would be in none of our groups. The kernel lets everybody, so the filter of
//! system calls does not (`compose/seccomp.rs`). Beyond a bound the kernel says `EDQUOT`. Files are not counted, only bytes.

mod subvolume;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::mount::MsFlags;
use portlayer::store::StoreError;
use portlayer::store::dir::{Trees, writable_bytes};

use crate::image::io_failed;
use crate::mount::{mount_file, private_directory};
use crate::program::{self, run};

/// Smallest pool: mkfs.btrfs makes nothing below 109 MiB.
const SMALLEST_POOL: u64 = 128 << 20;

/// Smallest bound: the kernel reserves some pages of tables in the group for every change.
pub(crate) const SMALLEST_BOUND: u64 = 1 << 20;

/// Where a pool is, and how large.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The file, in a directory of ours.
    pub file: PathBuf,
    /// Where it is mounted, below our state directory.
    pub mount: PathBuf,
    /// Most bytes of it; a pool that is there already grows to that and never shrinks.
    pub bytes: u64,
}

/// A pool. Made and mounted when it is first used.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    /// One at a time makes and mounts it.
    opening: Mutex<()>,
}

impl Pool {
    /// A pool that may be there or not. Nothing is done yet.
    pub fn new(config: PoolConfig) -> Pool {
        Pool {
            config,
            opening: Mutex::default(),
        }
    }

    /// Where its directories are, when it is mounted.
    pub fn directory(&self) -> &Path {
        &self.config.mount
    }

    fn open(&self) -> Result<(), StoreError> {
        let PoolConfig { file, mount, bytes } = &self.config;
        if is_mounted(mount)? {
            return Ok(());
        }
        for directory in [file.parent(), Some(mount.as_path())].into_iter().flatten() {
            private_directory(directory)?;
        }
        let found = match fs::metadata(file) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                *bytes
            }
            Err(error) => return Err(io_failed("look at", file, error)),
        };
        if found < *bytes {
            set_size(file, *bytes)?;
        }
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
        mount_file(file, "btrfs", mount, flags)?;
        if found < *bytes {
            btrfs(&["filesystem", "resize", "max"], mount)?;
        }
        btrfs(&["quota", "enable"], mount).map(drop)
    }

    /// Under another name first: what has the name is whole.
    fn make(&self) -> Result<(), StoreError> {
        let PoolConfig { file, bytes, .. } = &self.config;
        if *bytes < SMALLEST_POOL {
            return Err(StoreError::InsufficientSpace {
                need_bytes: SMALLEST_POOL,
                have_bytes: *bytes,
            });
        }
        let new = file.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_failed("remove", &new, error));
            }
            _ => {}
        }
        set_size(&new, *bytes)?;
        // One copy of its tables, as of its data: the disk below is one.
        run("mkfs.btrfs", &["--quiet", "--metadata", "single"], &new, 0)?;
        let directory = file.parent().unwrap_or(Path::new("/"));
        fs::File::open(&new)
            .and_then(|made| made.sync_all())
            .and_then(|()| fs::rename(&new, file))
            .and_then(|()| fs::File::open(directory)?.sync_all())
            .map_err(|error| io_failed("rename", &new, error))
    }

    /// What of its bound a subvolume holds, and the bound; `None` = it has none.
    fn group(&self, path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
        let arguments = ["qgroup", "show", "--raw", "--sync", "-r", "-f"];
        let text = btrfs(&arguments, path)?;
        // A head, a line below it, and one line: id, referenced, exclusive, most referenced.
        let line = text.lines().find(|line| line.starts_with("0/"));
        let mut fields = line
            .into_iter()
            .flat_map(str::split_ascii_whitespace)
            .skip(1);
        let held = fields.next().and_then(|text| text.parse().ok());
        let bound = fields.nth(1).and_then(|text| text.parse().ok());
        Ok(held.zip(bound))
    }

    /// 0 = no bound.
    fn bound(&self, path: &Path, bytes: u64) -> Result<(), StoreError> {
        if bytes == 0 {
            return Ok(());
        }
        subvolume::limit(path, bytes).map_err(|error| io_failed("bound", path, error))
    }

    fn fits(&self, path: &Path, bytes: u64) -> Result<(), StoreError> {
        match self.group(path)? {
            Some((held, _)) if bytes > 0 && held > bytes => Err(StoreError::InsufficientSpace {
                need_bytes: held,
                have_bytes: bytes,
            }),
            _ => Ok(()),
        }
    }
}

impl Trees for Pool {
    fn ready(&self) -> Result<bool, StoreError> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        self.open().map(|()| true).map_err(|error| match error {
            StoreError::Backend { verb, source, .. } if !is_possible() => {
                StoreError::Unavailable(format!(
                    "{verb} failed, and btrfs-progs, the loop driver or the kernel's btrfs is missing: {source}"
                ))
            }
            other => StoreError::Unavailable(crate::root::error_text(&other)),
        })
    }

    fn bounded(&self) -> bool {
        true
    }

    fn create(&self, path: &Path, bytes: u64) -> Result<(), StoreError> {
        check_bound(bytes)?;
        subvolume::create(path).map_err(|error| io_failed("make subvolume", path, error))?;
        or_remove(self.bound(path, bytes), path)
    }

    fn share(&self, from: &Path, to: &Path, bytes: u64) -> Result<bool, StoreError> {
        check_bound(bytes)?;
        subvolume::snapshot(from, to).map_err(|error| io_failed("make snapshot", to, error))?;
        let bounded = self.bound(to, bytes).and_then(|()| self.fits(to, bytes));
        or_remove(bounded, to).map(|()| true)
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        remove(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StoreError> {
        let pool = writable_bytes(path)?;
        // It has no bound, and to ask for its group writes out all of the pool.
        if path == self.config.mount {
            return Ok(pool);
        }
        Ok(match self.group(path)? {
            Some((held, bound)) => bound.saturating_sub(held).min(pool),
            None => pool,
        })
    }

    fn own_places(&self) -> Vec<PathBuf> {
        vec![self.config.mount.clone(), self.config.file.clone()]
    }
}

/// The result, with the subvolume gone where it is an error.
fn or_remove(result: Result<(), StoreError>, path: &Path) -> Result<(), StoreError> {
    result.inspect_err(|_| {
        if let Err(error) = remove(path) {
            tracing::warn!(path = %path.display(), %error, "a subvolume is left to the sweep");
        }
    })
}

fn check_bound(bytes: u64) -> Result<(), StoreError> {
    if bytes > 0 && bytes < SMALLEST_BOUND {
        return Err(StoreError::InsufficientSpace {
            need_bytes: SMALLEST_BOUND,
            have_bytes: bytes,
        });
    }
    Ok(())
}

fn btrfs(arguments: &[&str], path: &Path) -> Result<String, StoreError> {
    run("btrfs", arguments, path, 0)
}

fn is_mounted(path: &Path) -> Result<bool, StoreError> {
    crate::host::is_mount_point(path).map_err(|error| io_failed("look at", path, error))
}

/// Removes a subvolume of whatever pool; what is gone is fine.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    if is_gone(path)? {
        return Ok(());
    }
    match subvolume::remove(path) {
        // The sweep and the one that was filling it come here at once.
        Err(_) if is_gone(path)? => Ok(()),
        removed => removed.map_err(|error| io_failed("remove subvolume", path, error)),
    }
}

/// Whether this host can make and mount one.
pub(crate) fn is_possible() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known.lines().any(|line| line.trim() == "btrfs");
    known && program::can_make("mkfs.btrfs")
}

fn is_gone(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(io_failed("look at", path, error)),
        Ok(_) => Ok(false),
    }
}

fn set_size(file: &Path, bytes: u64) -> Result<(), StoreError> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(file);
    opened
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| io_failed("size", file, error))
}
