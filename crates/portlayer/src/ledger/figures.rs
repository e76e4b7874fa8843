//! What the writer did, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a ledger wrote since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerFigures {
    /// Groups of transactions, each with one flush.
    pub groups: u64,
    /// Records and events written or removed in them.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Time until they were durable.
    pub sync: Duration,
}

/// The same, being counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    groups: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    sync_nanos: AtomicU64,
}

impl Counts {
    /// A group is durable.
    pub(super) fn add(&self, records: u64, bytes: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> LedgerFigures {
        LedgerFigures {
            groups: self.groups.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            sync: Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed)),
        }
    }
}
