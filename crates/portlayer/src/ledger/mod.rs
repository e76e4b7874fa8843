//! The ledger: every record, reference, claim, audit row, exit record and event, in one sled tree.
//!
//! One tree and one writer thread. A change is a closure that runs on the writer over a [`Txn`]; what it wrote is
//! staged, many closures share one sled batch (atomic) and one flush (durable), and only then are they answered
//! and their events delivered. So a transaction is serial by construction, may iterate, runs exactly once, and
//! sixteen writers cost little more than one (group commit).
//!
//! ```text
//! m <name>                            meta: schema version, next sequence, audit chain head
//! e <id>                              element record                        codec: version, crc, postcard
//! d <id>                              data stream of a task element
//! c <parent> 00 <child>               children index
//! r <target> 00 <referrer>            references: referrer (an executor) uses target
//! o <owner> 00 <task>                 tasks stored with a storage element
//! a <id> 00 <sequence, 8 bytes>       audit row
//! v <sequence, 8 bytes>               event
//! x <executor> 00 <task> 00 <run, 4>  exit record
//! i <executor>                        intent of a commit in flight
//! ```

mod codec;
mod durable;
mod keys;
mod txn;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::broadcast;

use crate::element::{ElementId, Record};
use crate::event::Event;

pub use txn::{Index, Txn};

/// Why the ledger cannot serve.
#[derive(Debug, Clone, Error)]
pub enum LedgerError {
    /// Another process has it open.
    #[error("the ledger at {path} is open in another process")]
    Locked {
        /// Its directory.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the ledger has schema {found}, this version reads up to {known}")]
    NewerSchema {
        /// As stored.
        found: u32,
        /// As known.
        known: u32,
    },
    /// The disk is full; reads go on.
    #[error("no space left for the ledger")]
    NoSpace,
    /// A record's checksum is wrong; the element is quarantined.
    #[error("damaged record at key {key}")]
    Damaged {
        /// The key, hex where not text.
        key: String,
    },
    /// An earlier write failed; nothing more is written until it is opened again.
    #[error("the ledger refuses writes after an earlier failure")]
    Failed,
    /// It is being closed.
    #[error("the ledger is closed")]
    Closed,
    /// The store below failed.
    #[error("the ledger's store failed: {text}")]
    Backend {
        /// What sled said; for people.
        text: String,
    },
}

impl From<sled::Error> for LedgerError {
    fn from(error: sled::Error) -> Self {
        match &error {
            sled::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => {
                LedgerError::NoSpace
            }
            _ => LedgerError::Backend {
                text: error.to_string(),
            },
        }
    }
}

/// How to open a ledger.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Its directory; created if missing.
    pub path: PathBuf,
    /// Bytes of sled's page cache.
    pub cache_bytes: u64,
    /// How many events are kept.
    pub event_retention: u64,
}

impl LedgerConfig {
    /// A ledger at `path` with 32 MiB of cache and 1,000,000 events kept.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 32 << 20,
            event_retention: 1_000_000,
        }
    }
}

/// The open ledger. Cloning shares it; the last clone's drop closes it.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    tree: sled::Tree,
    path: PathBuf,
    writer: writer::Writer,
    events: broadcast::Sender<Arc<Event>>,
}

impl Ledger {
    /// Opens or creates the ledger. Blocking: call from a blocking thread. Errors: `Locked`, `NewerSchema`,
    /// `NoSpace`, `Backend`.
    pub fn open(config: &LedgerConfig) -> Result<Self, LedgerError> {
        let db = durable::open(config)?;
        let tree = db.open_tree("ledger")?;
        let events = broadcast::Sender::new(4096);
        let writer =
            writer::Writer::start(db, tree.clone(), events.clone(), config.event_retention)?;
        Ok(Self {
            shared: Arc::new(Shared {
                tree,
                path: config.path.clone(),
                writer,
                events,
            }),
        })
    }

    /// The directory of the ledger.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Reads one record from memory or with one disk read; callers may use it on an async thread.
    pub fn get(&self, id: &ElementId) -> Result<Option<Record>, LedgerError> {
        let key = keys::element(id);
        match self.shared.tree.get(&key)? {
            Some(bytes) => codec::decode(&key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Runs `change` on the writer; when this returns `Ok` all it wrote is durable and its events are delivered.
    /// When `change` returns an error nothing it wrote happened.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        self.shared.writer.run(change).await
    }

    /// Live events from now on; lagging readers learn how many they missed.
    pub fn live_events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }
}
