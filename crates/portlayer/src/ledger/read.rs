//! Reads outside transactions. All are synchronous and short: they cost what they return, not what the ledger holds.
//!
//! They see the newest written state, which for a moment may be one whose flush is still running; an event is only
//! seen after its flush.

use std::ops::Bound;

use serde::de::DeserializeOwned;

use super::audit::{self, AuditRow};
use super::{Index, Ledger, LedgerError, codec, keys, pieces};
use crate::element::{Checksum, ElementId, Record};
use crate::event::{Event, Sequence};
use crate::task::ExitRecord;

/// One page of a listing, in the order of ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The records that passed.
    pub records: Vec<Record>,
    /// Ids of elements whose record is damaged; they never reach the predicate.
    pub damaged: Vec<String>,
    /// Where to go on, when there may be more: pass it as `after`.
    pub next: Option<String>,
}

impl Ledger {
    /// Reads one record from memory or with one disk read; callers may use it on an async thread.
    pub fn get(&self, id: &ElementId) -> Result<Option<Record>, LedgerError> {
        let key = keys::element(id);
        let Some(bytes) = self.value(&key)? else {
            return Ok(None);
        };
        let record: Record = codec::decode(&key, &bytes)?;
        if record.id != *id {
            return Err(LedgerError::damaged(&key));
        }
        Ok(Some(record))
    }

    /// At most `limit` records whose id begins with `prefix`, comes after `after` and passes `predicate`.
    /// A page costs what it reads; with a predicate that refuses much, that is more than it returns, so read many
    /// pages from a blocking thread.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        mut predicate: impl FnMut(&Record) -> bool,
    ) -> Result<Page, LedgerError> {
        let tree = &self.shared.tree;
        let first = keys::elements(prefix);
        let from = match after.map(keys::elements) {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first.clone()),
        };
        let mut page = Page::default();
        let mut last = Vec::new();
        for entry in tree.range::<Vec<u8>, _>((from, Bound::Unbounded)) {
            let (key, entry) = entry?;
            if !key.starts_with(&first) {
                break;
            }
            if page.records.len() + page.damaged.len() >= limit {
                page.next = Some(text(&last));
                break;
            }
            let record = pieces::whole(tree, &key, entry)
                .and_then(|bytes| codec::decode::<Record>(&key, &bytes));
            match record {
                Ok(record) if record.id.as_str().as_bytes() != &key[1..] => {
                    page.damaged.push(text(&key));
                }
                Ok(record) => {
                    if predicate(&record) {
                        page.records.push(record);
                    }
                }
                Err(LedgerError::Damaged { .. }) => page.damaged.push(text(&key)),
                Err(error) => return Err(error),
            }
            last = key.to_vec();
        }
        Ok(page)
    }

    /// Everything linked to `first`, in the order of ids.
    pub fn linked(&self, index: Index, first: &ElementId) -> Result<Vec<ElementId>, LedgerError> {
        let prefix = keys::pairs(index.class(), first);
        let mut found = Vec::new();
        for key in self.shared.tree.scan_prefix(&prefix).keys() {
            let key = key?;
            found.push(keys::id_after(&key, prefix.len())?);
        }
        Ok(found)
    }

    /// The exit records of an executor, or of one task in it, in the order of task and run.
    pub fn exits(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
    ) -> Result<Vec<ExitRecord>, LedgerError> {
        let mut exits: Vec<ExitRecord> = Vec::new();
        for entry in self.shared.tree.scan_prefix(keys::exits(executor, task)) {
            let (key, value) = entry?;
            exits.push(codec::decode(&key, &value)?);
        }
        Ok(exits)
    }

    /// The exit record of one run.
    pub fn exit(
        &self,
        executor: &ElementId,
        task: &ElementId,
        run: u32,
    ) -> Result<Option<ExitRecord>, LedgerError> {
        let key = keys::exit(executor, task, run);
        match self.value(&key)? {
            Some(bytes) => codec::decode(&key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The intents of commits in flight, for recovery; one that cannot be read comes as its error.
    pub fn intents<T: DeserializeOwned>(&self) -> Result<Vec<Intent<T>>, LedgerError> {
        let tree = &self.shared.tree;
        let mut intents = Vec::new();
        for entry in tree.scan_prefix(keys::intents()) {
            let (key, entry) = entry?;
            let intent =
                pieces::whole(tree, &key, entry).and_then(|bytes| codec::decode::<T>(&key, &bytes));
            intents.push((keys::id_after(&key, 1)?, intent));
        }
        Ok(intents)
    }

    /// The intent of the commit in flight of one executor.
    pub fn intent<T: DeserializeOwned>(
        &self,
        executor: &ElementId,
    ) -> Result<Option<T>, LedgerError> {
        let key = keys::intent(executor);
        let bytes = self.value(&key)?;
        bytes.map(|bytes| codec::decode(&key, &bytes)).transpose()
    }

    /// The data stream of a task element.
    pub fn data(&self, id: &ElementId) -> Result<Option<Vec<u8>>, LedgerError> {
        let key = keys::data(id);
        let Some(bytes) = self.value(&key)? else {
            return Ok(None);
        };
        codec::unwrap(&key, &bytes).map(|body| Some(body.to_vec()))
    }

    /// The sequence of the last durable event; 0 = none yet. State read after this call holds at least what the
    /// events up to it tell; to follow from a state, take this first, read, then subscribe from the next sequence.
    pub fn last_sequence(&self) -> Sequence {
        self.shared.published.get()
    }

    /// At most `limit` durable stored events from `from` on. Where events are no longer stored, or one is damaged,
    /// there is a [`Change::Gap`](crate::event::Change::Gap); an empty answer means there is nothing at or after `from` yet.
    pub fn events(&self, from: Sequence, limit: usize) -> Result<Vec<Event>, LedgerError> {
        let to = self.last_sequence();
        let mut next = from.max(1);
        let mut events = Vec::new();
        let range = keys::event(next)..=keys::event(to.max(next));
        for entry in self.shared.tree.range(range) {
            let (key, value) = entry?;
            let sequence = keys::number(&key)?;
            if events.len() >= limit || sequence > to {
                break;
            }
            let event = codec::decode::<Event>(&key, &value).ok();
            if sequence > next {
                events.push(Event::gap(next, sequence - 1));
            }
            next = sequence + 1;
            events.push(event.unwrap_or_else(|| Event::gap(sequence, sequence)));
        }
        if events.is_empty() && next <= to && limit > 0 {
            events.push(Event::gap(next, to));
        }
        Ok(events)
    }

    /// The kept audit rows of an element, oldest first; also after its Delete, for a time.
    pub fn audit_log(&self, id: &ElementId) -> Result<Vec<AuditRow>, LedgerError> {
        let mut rows = Vec::new();
        for entry in self.shared.tree.scan_prefix(keys::audit_rows(id)) {
            let (key, value) = entry?;
            rows.push(codec::decode(&key, &value)?);
        }
        Ok(rows)
    }

    /// The value that binds all audit chains together; a copy kept elsewhere proves later that none was changed,
    /// as long as nothing was recorded in between.
    pub fn audit_heads(&self) -> Result<Checksum, LedgerError> {
        let key = keys::meta("audit-heads");
        match self.value(&key)? {
            Some(bytes) => codec::decode(&key, &bytes),
            None => Ok(audit::NONE),
        }
    }

    /// The whole stored value of a key.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<sled::IVec>, LedgerError> {
        match self.shared.tree.get(key)? {
            Some(entry) => pieces::whole(&self.shared.tree, key, entry).map(Some),
            None => Ok(None),
        }
    }
}

/// The executor of a commit in flight and what was stored about it.
pub type Intent<T> = (ElementId, Result<T, LedgerError>);

/// The id in an element's key, as text.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
}
