//! Pools of numbers that elements own: addresses of a network, ports of the host. A number has one owner at most.

use std::ops::RangeInclusive;

use super::{LedgerError, Txn, keys};
use crate::element::ElementId;

impl Txn<'_> {
    /// The lowest number of the range that nobody has.
    pub fn free_number(
        &self,
        pool: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, LedgerError> {
        let mut candidate = *range.start();
        for key in self.keys_with_prefix(&keys::numbers(pool))? {
            let taken = keys::number_of(&key)?;
            if taken < candidate {
                continue;
            }
            if taken > candidate {
                break;
            }
            candidate = match candidate.checked_add(1) {
                Some(next) => next,
                None => return Ok(None),
            };
        }
        Ok(range.contains(&candidate).then_some(candidate))
    }

    /// Who has a number.
    pub fn owner_of_number(
        &self,
        pool: &str,
        number: u32,
    ) -> Result<Option<ElementId>, LedgerError> {
        self.get_value(&keys::pool_number(pool, number))
    }

    /// Makes `owner` the owner of a number, whoever had it.
    pub fn take_number(
        &mut self,
        pool: &str,
        number: u32,
        owner: &ElementId,
    ) -> Result<(), LedgerError> {
        self.put_value(keys::pool_number(pool, number), owner)
    }

    /// Takes a number from its owner. Idempotent.
    pub fn release_number(&mut self, pool: &str, number: u32) {
        self.remove_key(keys::pool_number(pool, number));
    }
}
