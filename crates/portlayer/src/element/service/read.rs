//! Read: one element, with or without its data, whole or in part.

use std::collections::BTreeSet;

use crate::PortLayer;
use crate::element::{
    Checksum, DataStream, Descriptor, ElementId, Kind, Metadata, Record, builtin,
};
use crate::error::ReadError;
use crate::ledger::LedgerError;
use crate::store::StoreError;

/// Which metadata to return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection {
    /// Of the immutable map.
    pub ro: Keys,
    /// Of the mutable map.
    pub rw: Keys,
}

/// Which keys of a map to return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keys {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// These, as far as they are there.
    Only(BTreeSet<String>),
}

impl Projection {
    /// No metadata at all.
    pub fn without_metadata() -> Self {
        Self {
            ro: Keys::None,
            rw: Keys::None,
        }
    }

    pub(super) fn apply(&self, descriptor: &mut Descriptor) {
        self.ro.apply(&mut descriptor.ro);
        self.rw.apply(&mut descriptor.rw);
    }
}

impl Keys {
    fn apply(&self, map: &mut Metadata) {
        match self {
            Keys::All => {}
            Keys::None => map.clear(),
            Keys::Only(keys) => map.retain(|key, _| keys.contains(key)),
        }
    }
}

/// Whether a read returns the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadData {
    /// No.
    #[default]
    Never,
    /// Yes.
    Always,
    /// Only when the element's checksum is another: the caller has these bytes already.
    UnlessChecksum(Checksum),
}

impl PortLayer {
    /// Everything known of an element except its data. An element of a location that is away is read all the same;
    /// its state says so. Errors: `Location`, `NotFound`, `Quarantined`, `Ledger`.
    pub async fn read(&self, id: &ElementId) -> Result<Descriptor, ReadError> {
        self.record(id).map(|record| self.describe(record))
    }

    /// Reads a part of an element, and its data if asked for. Errors: as [`read`](Self::read) and
    /// [`export`](Self::export); `NoData` only for [`ReadData::Always`].
    pub async fn read_with(
        &self,
        id: &ElementId,
        projection: &Projection,
        data: ReadData,
    ) -> Result<(Descriptor, Option<DataStream>), ReadError> {
        let record = self.record(id)?;
        let stream = match data {
            ReadData::Never => None,
            ReadData::UnlessChecksum(sum) if record.checksum == Some(sum) => None,
            ReadData::UnlessChecksum(_) => match self.data_of(&record).await {
                Err(ReadError::NoData { .. }) => None,
                other => Some(other?),
            },
            ReadData::Always => Some(self.data_of(&record).await?),
        };
        let mut descriptor = self.describe(record);
        projection.apply(&mut descriptor);
        Ok((descriptor, stream))
    }

    /// The data of an element: of a task its definition, of an image an OCI archive, of a volume a tar of what is in
    /// it now. Errors: `Location` (also while it is away), `NotFound`, `Quarantined`, `NoData`, `Store`, `Ledger`.
    pub async fn export(&self, id: &ElementId) -> Result<DataStream, ReadError> {
        let record = self.record(id)?;
        self.data_of(&record).await
    }

    async fn data_of(&self, record: &Record) -> Result<DataStream, ReadError> {
        let id = &record.id;
        let no_data = || ReadError::NoData { id: id.clone() };
        let location = self.location(id)?;
        if id.kind() == Kind::Task {
            let bytes = self
                .shared
                .ledger
                .data(id)
                .map_err(|error| quarantined(id, error))?;
            return Ok(Box::pin(std::io::Cursor::new(bytes.ok_or_else(no_data)?)));
        }
        if !matches!(id.kind(), Kind::Image | Kind::Volume) || builtin::is_built_in(id) {
            return Err(no_data());
        }
        self.shared.health.check(&location.name)?;
        let failed = |source| ReadError::Store {
            id: id.clone(),
            source,
        };
        let store = location.store.as_ref();
        let store = store.ok_or_else(|| failed(StoreError::Unsupported("bytes")))?;
        store.export(record).await.map_err(|error| {
            self.shared.health.suspect(&error);
            failed(error)
        })
    }

    /// The record of an element.
    pub(crate) fn record(&self, id: &ElementId) -> Result<Record, ReadError> {
        self.location(id)?;
        let record = self
            .shared
            .ledger
            .get(id)
            .map_err(|error| quarantined(id, error))?;
        record.ok_or_else(|| ReadError::NotFound { id: id.clone() })
    }
}

fn quarantined(id: &ElementId, error: LedgerError) -> ReadError {
    match error {
        LedgerError::Damaged { .. } => ReadError::Quarantined { id: id.clone() },
        error => error.into(),
    }
}
