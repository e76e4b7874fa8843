//! The ledger: every record, reference, claim, audit row, exit record and event, in one sled tree.
//!
//! One tree and one writer thread. A change is a closure that runs on the writer over a [`Txn`]; what it wrote is
//! staged, many closures share one sled batch (atomic) and one flush (durable), and only then are they answered
//! and their events delivered. So a transaction is serial by construction, may iterate, runs exactly once, and
//! sixteen writers cost little more than one (group commit).
//!
//! ```text
//! m <name>                            meta: schema version, next sequence, audit heads
//! e <id>                              element record                        codec: version, crc, postcard
//! d <id>                              data stream of a task element         version, crc, bytes
//! c <parent> 00 <child>               children index
//! r <target> 00 <referrer>            references: referrer (an executor) uses target
//! o <owner> 00 <task>                 tasks stored with a storage element
//! a <id> 00 <sequence, 8 bytes>       audit row
//! t <number, 8 bytes>                 tombstone: whose audit rows outlive a Delete
//! v <sequence, 8 bytes>               event
//! x <executor> 00 <task> 00 <run, 4>  exit record
//! i <executor>                        intent of a commit in flight
//! u <number, 4>                       whose range of host user ids that is
//! w <executor>                        number of its range of host user ids
//! n <pool> 00 <number, 4>             owner of a number: an address of a network, a port of the host
//! k <key> 00 <number, 4>              piece of the long value at that key (e, d, i)
//! ```

mod audit;
mod codec;
mod durable;
mod error;
mod export;
mod figures;
mod follow;
mod ids;
mod keys;
mod mend;
mod numbers;
mod pieces;
mod power;
mod read;
mod room;
mod schema;
pub(crate) mod stored;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod txn;
mod verify;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use crate::event::Event;
use crate::runtime::IdRange;

pub use audit::{
    AuditEntry, AuditRow, KEPT_ROWS, KEPT_TOMBSTONE_DAYS, KEPT_TOMBSTONES, Outcome, Verb,
};
pub use error::LedgerError;
pub use export::{ExportError, ImportError};
pub use figures::LedgerFigures;
pub use follow::Events;
pub use power::{PowerCut, PowerReport};
pub use read::{Intent, Page};
pub use txn::{Index, Txn};
pub use verify::{BrokenChain, Dangling, Report};

/// How to open a ledger.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Its directory; created if missing.
    pub path: PathBuf,
    /// Bytes of sled's page cache.
    pub cache_bytes: u64,
    /// How many events are kept.
    pub event_retention: u64,
    /// The numbers of the ranges of user ids that it gives to executors, below [`IdRange::SLOTS`]. Nodes of one host that are to
    /// share none have different ones. Who has a range keeps it, whatever this becomes.
    pub id_ranges: Range<u32>,
}

impl LedgerConfig {
    /// A ledger at `path` with 256 MiB of cache, 1,000,000 events kept and all ranges of user ids.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 256 << 20,
            event_retention: 1_000_000,
            id_ranges: 0..IdRange::SLOTS,
        }
    }
}

/// The open ledger. Cloning shares it; the last clone's drop closes it.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    // Dropped in this order: the writer ends first, then the lock goes, then whoever waits for that learns of it.
    writer: writer::Writer,
    tree: sled::Tree,
    published: Arc<follow::Published>,
    path: PathBuf,
    _lock: durable::Lock,
    open: watch::Sender<()>,
}

impl Ledger {
    /// Opens or creates the ledger. Blocking: call from a blocking thread. Errors: `Locked` at once when it is open
    /// anywhere; `NewerSchema`; `Unopenable`, and nothing was touched; `NoSpace`; `Backend`.
    pub fn open(config: &LedgerConfig) -> Result<Self, LedgerError> {
        let lock = durable::lock(&config.path)?;
        crate::crash::point("ledger.open");
        let (db, tree) = durable::open(config)?;
        crate::crash::point("ledger.opened");
        Self::start(config, lock, db, tree)
    }

    fn start(
        config: &LedgerConfig,
        lock: durable::Lock,
        db: sled::Db,
        tree: sled::Tree,
    ) -> Result<Self, LedgerError> {
        let (writer, published) = {
            let room = room::Room::open(&config.path)?;
            writer::Writer::start(db, tree.clone(), room, config)?
        };
        Ok(Self {
            shared: Arc::new(Shared {
                writer,
                tree,
                published,
                path: config.path.clone(),
                _lock: lock,
                open: watch::Sender::new(()),
            }),
        })
    }

    /// Resolves when the last clone of this ledger is gone and its directory can be opened again.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut open = self.shared.open.subscribe();
        async move {
            // Nothing is ever sent: this ends when the sender is dropped.
            while open.changed().await.is_ok() {}
        }
    }

    /// The directory of the ledger.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `change` on the writer; when this returns `Ok` all it wrote is durable and its events are delivered.
    /// When `change` returns an error nothing it wrote happened. Errors of the ledger itself: `NoSpace` when the
    /// disk is full, and nothing was written: the next write is tried anew; `Backend` once, then `Failed` until it is
    /// opened again (whether the write it answers happened is unknown until then); `Panicked`; `Closed`.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        self.shared.writer.run(change).await
    }

    /// Returns when everything a read could see at the time of the call is durable. Reads do not wait for the flush of
    /// what they see; whoever passes on what was read as a promise waits here first.
    pub async fn synced(&self) -> Result<(), LedgerError> {
        if self.shared.writer.is_synced() {
            return Ok(());
        }
        // The writer answers in order, each only after its group is durable.
        self.write(|_| Ok(())).await
    }

    /// What was written since it was opened.
    pub fn figures(&self) -> LedgerFigures {
        self.shared.writer.figures()
    }

    /// Live events from now on; lagging readers learn how many they missed. [`Ledger::subscribe`] loses none.
    pub fn live_events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.published.subscribe()
    }
}
