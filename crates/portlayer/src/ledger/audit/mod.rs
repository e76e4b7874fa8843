//! The audit log: per element an append-only chain of rows, each carrying the SHA-256 of the row before it.
//!
//! Rows are written in the transaction of the change they tell of. At most [`KEPT_ROWS`] per element are kept: the
//! first and the newest. Every row also carries the sum of the first, so what is kept verifies across what was
//! trimmed, and only a gap right after the first row is a legal one.
//!
//! One value binds the chains together: the exclusive or of the sums of every element's newest row (`m audit-heads`).
//! It changes with every row and finds a chain that was cut short, exchanged or dropped as a whole. None of this is
//! signed: who can rewrite the whole ledger can recompute it, unless a copy of the heads was kept elsewhere
//! ([`Ledger::audit_heads`](super::Ledger::audit_heads)).
//!
//! Failed verbs: a refusal is recorded when the element already has a log, and only the first of equal refusals in a
//! row. So neither unknown ids nor a caller in a loop can grow the ledger or push an element's history out of it.
//!
//! After a successful Delete the rows stay as a tombstone, for the [`KEPT_TOMBSTONES`] last deleted elements and at
//! most [`KEPT_TOMBSTONE_DAYS`] days. An element created again under the same id continues its chain.

mod append;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::element::Checksum;
use crate::time::Timestamp;

/// Rows kept of one element: the first and the newest 255.
pub const KEPT_ROWS: u64 = 256;
/// Deleted elements whose rows are kept.
pub const KEPT_TOMBSTONES: u64 = 10_000;
/// Days the rows of a deleted element are kept at most.
pub const KEPT_TOMBSTONE_DAYS: i64 = 30;

/// What was done to the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verb {
    /// Made.
    Create,
    /// Its mutable metadata patched.
    Update,
    /// Removed.
    Delete,
    /// Takes part in an executor from now on.
    Join,
    /// Activated in an executor; a task or executor started.
    Bind,
    /// Deactivated in an executor; a task or executor ended.
    Unbind,
    /// Takes part in an executor no more.
    Leave,
    /// A composition was committed (executors).
    Commit,
    /// Signalled, stopped, paused or resumed.
    Interrupt,
    /// Corrected after a restart or reconnect.
    Reconcile,
}

impl Verb {
    /// The name used in filters and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Join => "join",
            Verb::Bind => "bind",
            Verb::Unbind => "unbind",
            Verb::Leave => "leave",
            Verb::Commit => "commit",
            Verb::Interrupt => "interrupt",
            Verb::Reconcile => "reconcile",
        }
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Refused or failed, with a stable code in snake case (`in_use`, `checksum_mismatch`); never free text.
    Failed(String),
}

/// What a caller records. Holds names of metadata keys, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// What was done.
    pub verb: Verb,
    /// The element's revision before it; 0 = it did not exist.
    pub revision_before: u64,
    /// The element's revision after it; 0 = it is gone.
    pub revision_after: u64,
    /// How it went.
    pub outcome: Outcome,
    /// The element's checksum after it.
    pub checksum: Option<Checksum>,
    /// Names of the changed metadata keys.
    pub keys: Vec<String>,
}

impl AuditEntry {
    /// A verb that was done, from one revision to another.
    pub fn done(verb: Verb, revision_before: u64, revision_after: u64) -> Self {
        Self {
            verb,
            revision_before,
            revision_after,
            outcome: Outcome::Ok,
            checksum: None,
            keys: Vec::new(),
        }
    }

    /// A verb that was refused or failed and left the element at `revision`.
    pub fn failed(verb: Verb, revision: u64, code: &str) -> Self {
        Self {
            outcome: Outcome::Failed(code.to_owned()),
            ..Self::done(verb, revision, revision)
        }
    }

    /// Sets the checksum.
    #[must_use]
    pub fn checksum(mut self, checksum: Option<Checksum>) -> Self {
        self.checksum = checksum;
        self
    }

    /// Sets the names of the changed keys.
    #[must_use]
    pub fn keys(mut self, keys: Vec<String>) -> Self {
        self.keys = keys;
        self
    }
}

/// One row as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Place in the element's log; the first is 1.
    pub sequence: u64,
    /// Wall clock; for people, never for ordering.
    pub time: Timestamp,
    /// The id of the call from outside.
    pub operation: String,
    /// Who asked.
    pub actor: String,
    /// What was done.
    pub verb: Verb,
    /// The element's revision before it; 0 = it did not exist.
    pub revision_before: u64,
    /// The element's revision after it; 0 = it is gone.
    pub revision_after: u64,
    /// How it went.
    pub outcome: Outcome,
    /// The element's checksum after it.
    pub checksum: Option<Checksum>,
    /// Names of the changed metadata keys.
    pub keys: Vec<String>,
    /// Sum of the row before; all zero in the first row.
    pub previous: Checksum,
    /// Sum of the first row; all zero in the first row.
    pub first: Checksum,
}

/// No row before this one.
pub(super) const NONE: Checksum = Checksum::from_bytes([0; 32]);

/// The sum of a row: over its key (so it belongs to one element and place) and its stored bytes.
pub(super) fn sum(key: &[u8], stored: &[u8]) -> Checksum {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(stored);
    Checksum::from_bytes(hasher.finalize().into())
}

/// Puts the sum of a newest row into the heads, or takes it out.
pub(super) fn toggle(heads: Checksum, row: Checksum) -> Checksum {
    let mut bytes = *heads.as_bytes();
    for (byte, other) in bytes.iter_mut().zip(row.as_bytes()) {
        *byte ^= other;
    }
    Checksum::from_bytes(bytes)
}

/// The sequences an intact log with this newest row holds, the first left out.
pub(super) fn kept_after_first(last: u64) -> std::ops::RangeInclusive<u64> {
    last.saturating_sub(KEPT_ROWS - 2).max(2)..=last
}
