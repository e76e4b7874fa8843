//! Who has which range of host user ids. Two executors never have the same one: both directions are written in one
//! transaction, and a range is free only when its executor is gone.

use std::ops::Range;

use super::{Ledger, LedgerError, Txn, codec, keys};
use crate::element::ElementId;

impl Txn<'_> {
    /// The number of the executor's range: the one it has, else a free one of those there are to give, which it has from now on.
    /// `None`: all are taken. Idempotent.
    pub fn allocate_ids(&mut self, executor: &ElementId) -> Result<Option<u32>, LedgerError> {
        if let Some(slot) = self.get_value(&keys::ids_of(executor))? {
            return Ok(Some(slot));
        }
        // From a place of the executor's own, so that a search among many is short.
        let digest = executor.digest_hex();
        let Range { start, end } = *self.id_ranges;
        let count = end.saturating_sub(start).max(1);
        let first = start + u32::from_str_radix(&digest[..8], 16).unwrap_or_default() % count;
        for slot in (first..end).chain(start..first.min(end)) {
            let key = keys::ids_slot(slot);
            if self.get_value::<ElementId>(&key)?.is_none() {
                self.put_value(key, executor)?;
                self.put_value(keys::ids_of(executor), &slot)?;
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Frees the executor's range. What has none is fine.
    pub fn free_ids(&mut self, executor: &ElementId) -> Result<(), LedgerError> {
        let of = keys::ids_of(executor);
        if let Some(slot) = self.get_value(&of)? {
            self.own.insert(keys::ids_slot(slot), None);
            self.own.insert(of, None);
        }
        Ok(())
    }
}

impl Ledger {
    /// The number of the executor's range.
    pub fn ids(&self, executor: &ElementId) -> Result<Option<u32>, LedgerError> {
        let key = keys::ids_of(executor);
        let Some(bytes) = Ledger::value(self, &key)? else {
            return Ok(None);
        };
        codec::decode(&key, &bytes).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LedgerConfig;

    fn executor(number: u32) -> ElementId {
        format!("executor://x/e{number}").parse().unwrap()
    }

    #[tokio::test]
    async fn every_executor_has_a_range_of_its_own_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let config = LedgerConfig {
            id_ranges: 100..108,
            ..LedgerConfig::new(directory.path())
        };
        let ledger = Ledger::open(&config).unwrap();
        let take = async |number: u32| {
            let taken: Result<_, LedgerError> = ledger
                .write(move |txn| txn.allocate_ids(&executor(number)))
                .await;
            taken.unwrap()
        };
        let mut slots = Vec::new();
        for number in 0..8 {
            slots.push(take(number).await.unwrap());
        }
        assert_eq!(
            take(3).await,
            Some(slots[3]),
            "asking again changes nothing"
        );
        assert_eq!(ledger.ids(&executor(3)).unwrap(), Some(slots[3]));
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        assert_eq!(distinct, (100..108).collect::<Vec<_>>());
        assert_eq!(take(8).await, None);
        let freed: Result<_, LedgerError> = ledger.write(|txn| txn.free_ids(&executor(5))).await;
        freed.unwrap();
        assert_eq!(ledger.ids(&executor(5)).unwrap(), None);
        assert_eq!(take(8).await, Some(slots[5]));
        let report = ledger.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}
