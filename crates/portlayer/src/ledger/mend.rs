//! Taking out an element whose record cannot be read: everything that hangs on it is found by its id alone.

use super::txn::{Index, Txn};
use super::{LedgerError, keys};
use crate::element::ElementId;

impl Txn<'_> {
    /// Removes the record of an element, its data stream and intent, its numbers, and every index entry in which it depends on
    /// another element, without reading the record. What depends on it stays linked: ask [`Txn::linked`] before. Looks at
    /// every index entry and every number of the ledger.
    pub fn remove_unread(&mut self, id: &ElementId) -> Result<(), LedgerError> {
        for key in [keys::element(id), keys::data(id), keys::intent(id)] {
            // The head that counts the pieces may be what is damaged.
            for piece in self.keys_with_prefix(&keys::pieces(&key))? {
                self.remove_key(piece);
            }
            self.remove_key(key);
        }
        let end = [b"\0", id.as_str().as_bytes()].concat();
        for index in [Index::Children, Index::References, Index::Owned] {
            for key in self.keys_with_prefix(&[index.class()])? {
                if key.ends_with(&end) {
                    self.remove_key(key);
                }
            }
        }
        for key in self.keys_with_prefix(&keys::all_numbers())? {
            if self.get_value::<ElementId>(&key)?.as_ref() == Some(id) {
                self.remove_key(key);
            }
        }
        Ok(())
    }
}
