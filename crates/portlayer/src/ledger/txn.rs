//! One transaction on the writer: reads see the tree and everything staged before, writes are staged.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LedgerError, codec, keys, pieces};
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
    /// The numbers of ranges of user ids there are to give.
    pub(super) id_ranges: &'a Range<u32>,
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

    pub(super) fn of_class(class: u8) -> Option<Self> {
        [Index::Children, Index::References, Index::Owned]
            .into_iter()
            .find(|index| index.class() == class)
    }

    /// What the second of a pair is to the first.
    pub const fn as_str(self) -> &'static str {
        match self {
            Index::Children => "child",
            Index::References => "reference",
            Index::Owned => "owned",
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
        self.put_bytes(keys::data(id), codec::wrap(&bytes));
    }

    /// The data stream of a task element.
    pub fn data(&self, id: &ElementId) -> Result<Option<Vec<u8>>, LedgerError> {
        let key = keys::data(id);
        let Some(bytes) = self.bytes(&key)? else {
            return Ok(None);
        };
        codec::unwrap(&key, &bytes).map(|body| Some(body.to_vec()))
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
            found.push(keys::id_after(&key, prefix.len())?);
        }
        Ok(found)
    }

    /// Stores the exit record of a run; of a long message the first 4 KiB.
    pub fn put_exit(&mut self, exit: &ExitRecord) -> Result<(), LedgerError> {
        let mut exit = exit.clone();
        if let Some(message) = &mut exit.message {
            bound_text(message);
        }
        self.put_value(keys::exit(&exit.executor, &exit.task, exit.run), &exit)
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

    /// The intent of a commit in flight.
    pub fn intent<T: DeserializeOwned>(
        &self,
        executor: &ElementId,
    ) -> Result<Option<T>, LedgerError> {
        self.get_value(&keys::intent(executor))
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
        mut change: Change,
        reconciled: bool,
    ) -> Sequence {
        match &mut change {
            Change::Modified { keys } => bound_names(keys),
            Change::LocationHealth { reason, .. } => bound_text(reason),
            _ => {}
        }
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

    /// The sequence of the last event, this transaction's own included. What the transaction reads is the state
    /// after exactly these events: read, take this, then follow from the next one.
    pub fn last_sequence(&self) -> Sequence {
        self.next_sequence - 1
    }

    pub(super) fn get_value<T: DeserializeOwned>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, LedgerError> {
        match self.bytes(key)? {
            Some(bytes) => codec::decode(key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn put_value<T: Serialize>(
        &mut self,
        key: Vec<u8>,
        value: &T,
    ) -> Result<(), LedgerError> {
        let bytes = codec::encode(value)?;
        self.put_bytes(key, bytes);
        Ok(())
    }

    pub(super) fn put_bytes(&mut self, key: Vec<u8>, bytes: Vec<u8>) {
        self.own.insert(key, Some(bytes));
    }

    pub(super) fn remove_key(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }

    /// The whole stored value of a key.
    fn bytes(&self, key: &[u8]) -> Result<Option<sled::IVec>, LedgerError> {
        if let Some(staged) = self.own.get(key).or_else(|| self.group.get(key)) {
            return Ok(staged.as_deref().map(sled::IVec::from));
        }
        match self.tree.get(key)? {
            Some(entry) => pieces::whole(self.tree, key, entry).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn keys_with_prefix(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for key in self.tree.scan_prefix(prefix).keys() {
            found.insert(key?.to_vec(), true);
        }
        for staged in [self.group, &self.own] {
            for (key, value) in staged_with_prefix(staged, prefix) {
                found.insert(key.clone(), value.is_some());
            }
        }
        Ok(found
            .into_iter()
            .filter_map(|(key, there)| there.then_some(key))
            .collect())
    }

    /// The first entry under a prefix; short values only.
    pub(super) fn first_with_prefix(&self, prefix: &[u8]) -> Result<Option<Entry>, LedgerError> {
        let own = staged_with_prefix(&self.own, prefix);
        let group = staged_with_prefix(self.group, prefix);
        let candidates = [
            self.outermost_stored(self.tree.scan_prefix(prefix))?,
            self.outermost_staged(own, false),
            self.outermost_staged(group, true),
        ];
        Ok(candidates.into_iter().flatten().min())
    }

    /// The last entry under a prefix; short values only.
    pub(super) fn last_with_prefix(&self, prefix: &[u8]) -> Result<Option<Entry>, LedgerError> {
        let own = staged_with_prefix(&self.own, prefix).rev();
        let group = staged_with_prefix(self.group, prefix).rev();
        let candidates = [
            self.outermost_stored(self.tree.scan_prefix(prefix).rev())?,
            self.outermost_staged(own, false),
            self.outermost_staged(group, true),
        ];
        Ok(candidates.into_iter().flatten().max())
    }

    /// The first entry of the tree that nothing staged replaces or removes.
    fn outermost_stored(
        &self,
        entries: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
    ) -> Result<Option<Entry>, LedgerError> {
        for entry in entries {
            let (key, value) = entry?;
            if !self.own.contains_key(&*key) && !self.group.contains_key(&*key) {
                return Ok(Some((key.to_vec(), value)));
            }
        }
        Ok(None)
    }

    /// The first staged entry that is no removal and, for the group's, that this transaction does not replace.
    fn outermost_staged<'s>(
        &self,
        mut entries: impl Iterator<Item = (&'s Vec<u8>, &'s Option<Vec<u8>>)>,
        of_group: bool,
    ) -> Option<Entry> {
        entries.find_map(|(key, value)| {
            let value = value.as_ref()?;
            let replaced = of_group && self.own.contains_key(key);
            (!replaced).then(|| (key.clone(), value.as_slice().into()))
        })
    }
}

/// The most bytes of names or text in an event, audit row or exit record: they are entries of one piece.
const MAX_TEXT_BYTES: usize = 4096;

/// Cuts a text that is too long, between characters.
pub(super) fn bound_text(text: &mut String) {
    let mut at = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}

/// Of too many names keeps the first ones and says how many more there are.
pub(super) fn bound_names(names: &mut Vec<String>) {
    let mut bytes = 0;
    let fitting = names
        .iter()
        .take_while(|name| {
            bytes += name.len();
            bytes <= MAX_TEXT_BYTES
        })
        .count();
    let more = names.len() - fitting;
    if more > 0 {
        names.truncate(fitting);
        names.push(format!("(and {more} more)"));
    }
}

/// A key and its stored value.
pub(super) type Entry = (Vec<u8>, sled::IVec);

fn staged_with_prefix<'s>(
    staged: &'s Staged,
    prefix: &[u8],
) -> impl DoubleEndedIterator<Item = (&'s Vec<u8>, &'s Option<Vec<u8>>)> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        // Prefixes end with a class letter or a zero byte, so this cannot overflow.
        *last += 1;
    }
    staged.range(prefix.to_vec()..end)
}
