//! How the directories of a [`super::DirStore`] are made, bounded and removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{StoreError, backend};

/// Makes the directories of volumes. Everything here blocks.
pub trait Trees: Send + Sync + 'static {
    /// Makes sure that what the directories are in is there. Called before anything else is. True: it is known to be, so what is
    /// missing in it is new and is to be made; false: what is missing has gone away. Idempotent.
    ///
    /// # Errors
    /// `Unavailable`: the location cannot be used now.
    fn ready(&self) -> Result<bool, StoreError>;

    /// Whether a directory can be held to a size.
    fn bounded(&self) -> bool;

    /// Makes an empty directory that never holds more than `bytes`; 0 = no bound.
    ///
    /// # Errors
    /// The kernel's; a bound below what the backing can hold to.
    fn create(&self, path: &Path, bytes: u64) -> Result<(), StoreError>;

    /// Makes `to` with all that `from` holds, without copying. False, and nothing made: it can only be copied.
    ///
    /// # Errors
    /// As [`Trees::create`]; `InsufficientSpace` when `from` holds more than `bytes`.
    fn share(&self, from: &Path, to: &Path, bytes: u64) -> Result<bool, StoreError>;

    /// Removes a directory and all below it; what is gone is fine. Links in it are removed, not followed.
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, path: &Path) -> Result<(), StoreError>;

    /// Bytes that can still be written to a directory.
    ///
    /// # Errors
    /// The kernel's.
    fn free_bytes(&self, path: &Path) -> Result<u64, StoreError>;

    /// As [`super::Store::own_places`].
    fn own_places(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Directories as they are, of a file system of the host: nothing holds them to a size.
#[derive(Debug)]
pub(super) struct Plain;

impl Trees for Plain {
    fn ready(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn bounded(&self) -> bool {
        false
    }

    fn create(&self, path: &Path, bytes: u64) -> Result<(), StoreError> {
        if bytes > 0 {
            return Err(StoreError::Unsupported("a size bound"));
        }
        let made = DirBuilder::new().mode(0o755).create(path);
        made.map_err(|error| backend("create", path, error))
    }

    fn share(&self, _from: &Path, _to: &Path, _bytes: u64) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(backend("remove", path, error))
            }
            _ => Ok(()),
        }
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, StoreError> {
        writable_bytes(path)
    }
}

/// Free bytes of the file system a path is in.
///
/// # Errors
/// `Unavailable` when nothing can be written to it; the kernel's.
pub fn writable_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat = statvfs(path).map_err(|errno| backend("statvfs", path, errno.into()))?;
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        let why = format!("{} is mounted read-only", path.display());
        return Err(StoreError::Unavailable(why));
    }
    Ok(stat.blocks_available() * stat.fragment_size())
}
