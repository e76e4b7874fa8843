//! What the tests of the ledger share.

use super::{Ledger, LedgerConfig, LedgerError, Txn, keys};
use crate::Operation;
use crate::element::{Body, ElementId, Kind, Metadata, Record, State};
use crate::time::Timestamp;

/// An open ledger in a directory that goes with it.
pub(crate) struct Temporary {
    pub(crate) ledger: Option<Ledger>,
    pub(crate) config: LedgerConfig,
    _directory: tempfile::TempDir,
}

impl Temporary {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut LedgerConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = LedgerConfig::new(directory.path().join("ledger"));
        change(&mut config);
        Self {
            ledger: Some(Ledger::open(&config).unwrap()),
            config,
            _directory: directory,
        }
    }

    /// The open ledger.
    pub(crate) fn get(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    /// Closes and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.ledger = None;
        self.ledger = Some(Ledger::open(&self.config).unwrap());
    }
}

pub(crate) async fn write<T: Send + 'static>(
    ledger: &Ledger,
    change: impl FnOnce(&mut Txn<'_>) -> Result<T, LedgerError> + Send + 'static,
) -> T {
    ledger.write(change).await.unwrap()
}

pub(crate) fn id(name: &str) -> ElementId {
    ElementId::new(Kind::Volume, "default", name).unwrap()
}

/// A volume of 300 bytes or so, as elements are in practice.
pub(crate) fn record(name: &str, revision: u64) -> Record {
    let mut rw = Metadata::new();
    rw.insert("labels.team".into(), b"ledger".to_vec());
    rw.insert("filler".into(), vec![b'x'; 200]);
    Record {
        id: id(name),
        parent: None,
        owner: None,
        checksum: None,
        size: 0,
        ro: Metadata::new(),
        rw,
        revision,
        created: Timestamp::now(),
        modified: Timestamp::now(),
        state: State::Ready,
        hidden: false,
        body: Body::Volume(Box::default()),
    }
}

pub(crate) fn operation(id: &str) -> Operation {
    Operation {
        id: id.to_owned(),
        actor: "test".to_owned(),
    }
}

impl Ledger {
    /// Flips a bit of an element's record, as a failing disk would.
    pub(crate) fn damage(&self, id: &ElementId) {
        let key = keys::element(id);
        let mut record = self.shared.tree.get(&key).unwrap().unwrap().to_vec();
        *record.last_mut().unwrap() ^= 1;
        self.shared.tree.insert(key, record).unwrap();
    }
}
