//! Ways for `crates/fuzz` into what is not public. Nothing else calls them.

pub use crate::compose::documents;

use crate::element::Record;
use crate::ledger::stored;

/// Reads bytes as a stored record, behind a head that is made right; what is read is written and read again.
///
/// # Panics
/// When it is not the same.
pub fn record(body: &[u8]) {
    let Some(record) = stored::read::<Record>(body) else {
        return;
    };
    let again = stored::written(&record).and_then(|bytes| stored::read::<Record>(&bytes));
    assert_eq!(
        again.as_ref(),
        Some(&record),
        "a record does not survive being stored"
    );
}
