//! Read: one element, without its data.

use crate::PortLayer;
use crate::element::{Descriptor, ElementId, Record};
use crate::error::ReadError;
use crate::ledger::LedgerError;

impl PortLayer {
    /// Everything known of an element except its data. An element of a location that is away is read all the same;
    /// its state says so. Errors: `Location`, `NotFound`, `Quarantined`, `Ledger`.
    pub async fn read(&self, id: &ElementId) -> Result<Descriptor, ReadError> {
        self.record(id).map(|record| self.describe(record))
    }

    /// The record of an element.
    pub(crate) fn record(&self, id: &ElementId) -> Result<Record, ReadError> {
        self.location(id)?;
        match self.shared.ledger.get(id) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(ReadError::NotFound { id: id.clone() }),
            Err(LedgerError::Damaged { .. }) => Err(ReadError::Quarantined { id: id.clone() }),
            Err(error) => Err(error.into()),
        }
    }
}
