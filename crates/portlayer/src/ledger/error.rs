//! Why the ledger cannot serve.

use std::path::PathBuf;

use thiserror::Error;

/// Why the ledger cannot serve.
#[derive(Debug, Clone, Error)]
pub enum LedgerError {
    /// Another process, or another part of this one, has it open.
    #[error("the ledger at {path} is already open")]
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
    /// The store below does not open: its files are damaged as a whole. Nothing was moved, removed or replaced.
    #[error("the ledger at {path} does not open: {text}")]
    Unopenable {
        /// Its directory.
        path: PathBuf,
        /// What sled said; for people.
        text: String,
    },
    /// The disk is full; reads go on.
    #[error("no space left for the ledger")]
    NoSpace,
    /// A record's checksum is wrong; the element is quarantined.
    #[error("damaged record at key {key}")]
    Damaged {
        /// The key, escaped where not text.
        key: String,
    },
    /// An earlier write failed; nothing more is written until it is opened again.
    #[error("the ledger refuses writes after an earlier failure")]
    Failed,
    /// The closure of a transaction panicked; nothing of it was written and the ledger goes on.
    #[error("a ledger transaction panicked")]
    Panicked,
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

impl LedgerError {
    pub(super) fn damaged(key: &[u8]) -> Self {
        LedgerError::Damaged {
            key: key.escape_ascii().to_string(),
        }
    }
}

impl From<sled::Error> for LedgerError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(io) => io.into(),
            error => LedgerError::Backend {
                text: error.to_string(),
            },
        }
    }
}

impl From<std::io::Error> for LedgerError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                LedgerError::NoSpace
            }
            _ => LedgerError::Backend {
                text: error.to_string(),
            },
        }
    }
}
