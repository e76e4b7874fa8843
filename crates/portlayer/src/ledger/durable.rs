//! Makes sled's flush durable.
//!
//! sled 0.34.7 calls `sync_file_range` where its documentation says fsync; after a power cut acknowledged writes are
//! gone or the database does not open (`reference/performance.md` 5.2). We define that symbol ourselves, so the
//! linker binds sled's call to it, and call `fdatasync`. [`open`] proves on every start that the call arrives here.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{LedgerConfig, LedgerError};

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Stands in for the libc function of this name for the whole program: `fdatasync` instead of a range hint.
/// Returns 0, or -1 with `errno` set by `fdatasync`.
#[allow(
    unsafe_code,
    reason = "the symbol must be unmangled to take the place of libc's"
)]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: i32, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller (sled) owns an open descriptor for the length of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    match nix::unistd::fdatasync(fd) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Keeps the linker from dropping the definition.
#[used]
static INTERPOSED: extern "C" fn(i32, i64, i64, u32) -> i32 = sync_file_range;

/// Opens sled and proves that a flush reaches the disk.
pub(super) fn open(config: &LedgerConfig) -> Result<sled::Db, LedgerError> {
    let db = sled::Config::new()
        .path(&config.path)
        .cache_capacity(config.cache_bytes)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(500))
        .open()
        .map_err(|error| match &error {
            sled::Error::Io(io) if io.kind() == std::io::ErrorKind::WouldBlock => {
                LedgerError::Locked {
                    path: config.path.clone(),
                }
            }
            _ => error.into(),
        })?;
    let before = SYNCS.load(Ordering::Relaxed);
    db.insert(b"durability-proof", &before.to_le_bytes())?;
    db.flush()?;
    if SYNCS.load(Ordering::Relaxed) == before {
        return Err(LedgerError::Backend {
            text: "sled's flush does not reach our fdatasync in this build".into(),
        });
    }
    Ok(db)
}
