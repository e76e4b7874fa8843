//! Opening sled so that it is safe: one owner, a durable flush, no panic.
//!
//! sled 0.34.7 calls `sync_file_range` where its documentation says fsync; after a power cut acknowledged writes are
//! gone or the database does not open (`reference/performance.md` 5.2). We define that symbol ourselves, so the
//! linker binds sled's call to it, and call `fdatasync`. [`open`] proves on every start that the call arrives here.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{LedgerConfig, LedgerError, export, pieces, power, schema};

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
    let seen = power::watching().then(|| power::flush_begins(fd)).flatten();
    match nix::unistd::fdatasync(fd) {
        Ok(()) => {
            if let Some(seen) = seen {
                power::flush_is_done(seen);
            }
            0
        }
        Err(_) => -1,
    }
}

/// Keeps the linker from dropping the definition.
#[used]
static INTERPOSED: extern "C" fn(i32, i64, i64, u32) -> i32 = sync_file_range;

/// Flushes that reached the disk since the program began.
#[cfg(test)]
pub(super) fn syncs() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

/// Held as long as the ledger is open.
pub(super) type Lock = Flock<File>;

/// Takes the ledger's lock, before sled touches anything. Error: `Locked` at once, for another process and for a
/// second open in this one alike.
pub(super) fn lock(path: &Path) -> Result<Lock, LedgerError> {
    std::fs::create_dir_all(path)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => LedgerError::Locked {
            path: path.to_owned(),
        },
        errno => std::io::Error::from(errno).into(),
    })
}

/// Opens sled, proves that a flush reaches the disk, and brings the schema up to date.
pub(super) fn open(config: &LedgerConfig) -> Result<(sled::Db, sled::Tree), LedgerError> {
    let unopenable = |text: String| LedgerError::Unopenable {
        path: config.path.clone(),
        text,
    };
    // sled panics on some states of its files. Nothing of it is used after a panic.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = open_unlocked(config)?;
        let tree = db.open_tree("ledger")?;
        Ok((db, tree))
    }));
    let (db, tree) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(sled::Error::Corruption { .. })) => {
            return Err(unopenable("its files are corrupt".into()));
        }
        Ok(Err(sled::Error::Io(io))) => return Err(io.into()),
        Ok(Err(error)) => return Err(unopenable(sled::Error::to_string(&error))),
        Err(_) => return Err(unopenable("sled panicked".into())),
    };
    prove_durable(&db)?;
    sync_files(&config.path)?;
    export::discard_unfinished(&tree)?;
    schema::bring_up(&tree)?;
    Ok((db, tree))
}

/// Opens sled, which has a lock of its own. Ours is held, so nobody else has the ledger open; but a program that is just
/// being started somewhere in this process has a copy of a closed ledger's descriptor until it is executed, and the
/// lock with it. That passes in moments.
fn open_unlocked(config: &LedgerConfig) -> Result<sled::Db, sled::Error> {
    let started = Instant::now();
    loop {
        match sled_config(config).open() {
            // How sled 0.34.7 says that its lock is taken: an error of its own making, without a code.
            Err(sled::Error::Io(io))
                if io.kind() == std::io::ErrorKind::Other
                    && io.raw_os_error().is_none()
                    && started.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// How long a copy of sled's lock may outlive the ledger that was closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Makes sled flush and looks whether our `fdatasync` was reached.
fn prove_durable(db: &sled::Db) -> Result<(), LedgerError> {
    let before = SYNCS.load(Ordering::Relaxed);
    // sled writes nothing when the value is the one it has, so it is removed first.
    db.remove(b"durability-proof")?;
    db.insert(b"durability-proof", &[])?;
    db.flush()?;
    if SYNCS.load(Ordering::Relaxed) == before {
        return Err(LedgerError::Backend {
            text: "sled's flush does not reach our fdatasync in this build".into(),
        });
    }
    Ok(())
}

/// sled leaves its settings file and the names of its files to chance; one sync per open makes them durable.
fn sync_files(path: &Path) -> Result<(), LedgerError> {
    for entry in std::fs::read_dir(path)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(path)?.sync_all()?;
    if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The segment size is no advertised setting of sled, but the only one that bounds what goes to unsynced files.
fn sled_config(config: &LedgerConfig) -> sled::Config {
    sled::Config::new()
        .path(&config.path)
        .cache_capacity(config.cache_bytes)
        .segment_size(pieces::SEGMENT_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(500))
}
