//! One transaction on the writer: reads see the tree and everything staged before, writes are staged.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LedgerError, codec, keys};
use crate::element::{ElementId, Record};
use crate::event::{Change, Event, Sequence};
use crate::task::ExitRecord;
use crate::time::Timestamp;

/// Staged writes: key to value, `None` = removed.
pub(super) type Staged = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A running transaction. Its own writes are applied only when its closure returns `Ok`.
pub struct Txn<'a> {
    pub(super) tree: &'a sled::Tree,
    /// Of earlier transactions of the same group.
    pub(super) group: &'a Staged,
    /// Of this one.
    pub(super) own: Staged,
    pub(super) next_sequence: Sequence,
    pub(super) events: Vec<Event>,
    pub(super) now: Timestamp,
}

/// The pair indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// Parent to child.
    Children,
    /// Used element to the executor using it.
    References,
    /// Storage element to the tasks stored with it.
    Owned,
}

impl Index {
    pub(super) const fn class(self) -> u8 {
        match self {
            Index::Children => b'c',
            Index::References => b'r',
            Index::Owned => b'o',
        }
    }
}

impl Txn<'_> {
    /// The time of this transaction.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The record of an element.
    pub fn get(&self, id: &ElementId) -> Result<Option<Record>, LedgerError> {
        self.get_value(&keys::element(id))
    }

    /// Stores a record.
    pub fn put(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.put_value(keys::element(&record.id), record)
    }

    /// Removes a record. What is gone is fine.
    pub fn remove(&mut self, id: &ElementId) {
        self.own.insert(keys::element(id), None);
    }

    /// Stores the data stream of a task element.
    pub fn put_data(&mut self, id: &ElementId, bytes: Vec<u8>) {
        self.own.insert(keys::data(id), Some(bytes));
    }

    /// Removes the data stream of a task element.
    pub fn remove_data(&mut self, id: &ElementId) {
        self.own.insert(keys::data(id), None);
    }

    /// Adds an entry to an index. Idempotent.
    pub fn link(&mut self, index: Index, first: &ElementId, second: &ElementId) {
        self.own
            .insert(keys::pair(index.class(), first, second), Some(Vec::new()));
    }

    /// Takes an entry from an index. Idempotent.
    pub fn unlink(&mut self, index: Index, first: &ElementId, second: &ElementId) {
        self.own
            .insert(keys::pair(index.class(), first, second), None);
    }

    /// Everything linked to `first`.
    pub fn linked(&self, index: Index, first: &ElementId) -> Result<Vec<ElementId>, LedgerError> {
        let prefix = keys::pairs(index.class(), first);
        let mut found = Vec::new();
        for key in self.keys_with_prefix(&prefix)? {
            let text = std::str::from_utf8(&key[prefix.len()..])
                .ok()
                .and_then(|text| text.parse().ok());
            found.push(text.ok_or_else(|| LedgerError::Damaged {
                key: key.escape_ascii().to_string(),
            })?);
        }
        Ok(found)
    }

    /// Stores the exit record of a run.
    pub fn put_exit(&mut self, exit: &ExitRecord) -> Result<(), LedgerError> {
        self.put_value(keys::exit(&exit.executor, &exit.task, exit.run), exit)
    }

    /// The exit record of a run.
    pub fn exit(
        &self,
        executor: &ElementId,
        task: &ElementId,
        run: u32,
    ) -> Result<Option<ExitRecord>, LedgerError> {
        self.get_value(&keys::exit(executor, task, run))
    }

    /// Stores the intent of a commit: what must be undone or finished if we die now.
    pub fn put_intent<T: Serialize>(
        &mut self,
        executor: &ElementId,
        intent: &T,
    ) -> Result<(), LedgerError> {
        self.put_value(keys::intent(executor), intent)
    }

    /// Removes the intent of a commit.
    pub fn remove_intent(&mut self, executor: &ElementId) {
        self.own.insert(keys::intent(executor), None);
    }

    /// Reports a change; the event gets the next sequence and is delivered when the transaction is durable.
    pub fn emit(&mut self, id: &ElementId, revision: u64, change: Change) -> Sequence {
        self.emit_event(id, revision, change, false)
    }

    /// The same for what was learned by reconciling.
    pub fn emit_reconciled(&mut self, id: &ElementId, revision: u64, change: Change) -> Sequence {
        self.emit_event(id, revision, change, true)
    }

    fn emit_event(
        &mut self,
        id: &ElementId,
        revision: u64,
        change: Change,
        reconciled: bool,
    ) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.events.push(Event {
            sequence,
            time: self.now,
            id: id.clone(),
            revision,
            reconciled,
            change,
        });
        sequence
    }

    pub(super) fn get_value<T: DeserializeOwned>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, LedgerError> {
        match self.own.get(key).or_else(|| self.group.get(key)) {
            Some(Some(bytes)) => codec::decode(key, bytes).map(Some),
            Some(None) => Ok(None),
            None => match self.tree.get(key)? {
                Some(bytes) => codec::decode(key, &bytes).map(Some),
                None => Ok(None),
            },
        }
    }

    pub(super) fn put_value<T: Serialize>(
        &mut self,
        key: Vec<u8>,
        value: &T,
    ) -> Result<(), LedgerError> {
        let bytes = codec::encode(value)?;
        self.own.insert(key, Some(bytes));
        Ok(())
    }

    fn keys_with_prefix(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for key in self.tree.scan_prefix(prefix).keys() {
            found.insert(key?.to_vec(), true);
        }
        for staged in [self.group, &self.own] {
            let range = staged.range::<[u8], _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ));
            for (key, value) in range.take_while(|(key, _)| key.starts_with(prefix)) {
                found.insert(key.clone(), value.is_some());
            }
        }
        Ok(found
            .into_iter()
            .filter_map(|(key, there)| there.then_some(key))
            .collect())
    }
}
