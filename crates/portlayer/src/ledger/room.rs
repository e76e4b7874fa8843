//! Room for the ledger: space on the disk that is the ledger's before it is needed.
//!
//! sled 0.34.7 writes nothing more once a write of its found the disk full, until it is opened again, and what became of
//! that write is not known. So it never comes to that: space beyond the end of its file is reserved ahead (`fallocate`
//! that does not grow the file), and a group that might not fit is refused before sled hears of it. Nothing is uncertain
//! then, nothing is opened again, and the next group is tried anew: there is room as soon as somebody made room.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::{LedgerError, pieces};

/// Always reserved beyond what a group needs: sled begins a segment, and moves pages of an old one, when it likes.
const RESERVE: u64 = 2 * pieces::SEGMENT_BYTES as u64;

/// How much longer than its values a group gets in sled's file, at most: pages are written with their neighbours.
const FACTOR: u64 = 4;

pub(super) struct Room {
    file: File,
    /// Everything up to here is reserved, as far as the file system can.
    reserved: u64,
}

impl Room {
    /// For the ledger in this directory. A full disk is no error: then the first group is refused.
    pub(super) fn open(directory: &Path) -> Result<Self, LedgerError> {
        let file = File::options().write(true).open(directory.join("db"))?;
        let mut room = Self { file, reserved: 0 };
        match room.ensure(0) {
            Ok(()) | Err(LedgerError::NoSpace) => Ok(room),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that a group of so many bytes fits. Costs one look at the file when it does. Error: `NoSpace`.
    pub(super) fn ensure(&mut self, bytes: u64) -> Result<(), LedgerError> {
        let metadata = self.file.metadata()?;
        let wanted = metadata.len() + RESERVE + FACTOR * bytes;
        // sled cuts its file now and then, which frees what was reserved beyond: then there are fewer blocks.
        let there = metadata.blocks() * 512;
        if wanted <= self.reserved && there >= self.reserved {
            return Ok(());
        }
        // Some more, so that not every group asks.
        self.reserve(wanted + RESERVE / 2)
            .or_else(|_| self.reserve(wanted))
    }

    fn reserve(&mut self, to: u64) -> Result<(), LedgerError> {
        let length = i64::try_from(to).map_err(|_| LedgerError::NoSpace)?;
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Ok(()) => {
                self.reserved = to;
                Ok(())
            }
            // A file system that cannot: a full disk is then found by sled.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(std::io::Error::from(errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_reserved_beyond_the_end_and_the_file_does_not_grow() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db"), vec![1; 10_000]).unwrap();
        let mut room = Room::open(directory.path()).unwrap();
        let metadata = room.file.metadata().unwrap();
        assert_eq!(metadata.len(), 10_000);
        assert!(metadata.blocks() * 512 >= RESERVE + 10_000);
        // Cut by somebody: reserved again.
        room.file.set_len(4096).unwrap();
        room.ensure(1 << 20).unwrap();
        let metadata = room.file.metadata().unwrap();
        assert_eq!(metadata.len(), 4096);
        assert!(metadata.blocks() * 512 >= 4096 + RESERVE + FACTOR * (1 << 20));
    }
}
