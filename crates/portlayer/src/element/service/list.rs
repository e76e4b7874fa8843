//! List: pages of what filters select, in the order of ids.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Projection;
use crate::PortLayer;
use crate::element::{Descriptor, ElementId, Kind, Record};
use crate::error::ReadError;
use crate::filter::{ElementField, ElementFilter, ElementView, Relations, Scan, plan};
use crate::ledger::{Index, Ledger, LedgerError};

/// Elements on a page when the query does not say.
pub const DEFAULT_PAGE: usize = 100;
/// Most elements on a page.
pub const MAX_PAGE: usize = 1000;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Filters; an element must pass one of them. Empty = all.
    pub filters: Vec<String>,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only ids that begin with this text.
    pub prefix: Option<String>,
    /// [`Page::next`] of the page before.
    pub page: Option<String>,
    /// Most elements on the page; 0 = [`DEFAULT_PAGE`], at most [`MAX_PAGE`].
    pub limit: usize,
    /// Hidden elements too. A filter that names `hidden` asks for them as well.
    pub hidden: bool,
    /// Which metadata to return.
    pub projection: Projection,
}

impl ListQuery {
    /// A query with one filter.
    pub fn filter(filter: impl Into<String>) -> Self {
        Self {
            filters: vec![filter.into()],
            ..Self::default()
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The elements, in the order of ids.
    pub items: Vec<Descriptor>,
    /// Ids in the page's range whose record is damaged; nothing can be said about whether they pass the filters.
    pub damaged: Vec<String>,
    /// There is more: the token for the next page. Elements created or deleted in between appear or not; all others
    /// appear exactly once.
    pub next: Option<String>,
}

impl PortLayer {
    /// One page of the elements a query selects. Errors: `InvalidFilter`, `InvalidPage`, `Ledger`.
    pub async fn list(&self, query: ListQuery) -> Result<Page, ReadError> {
        let filter = ElementFilter::parse(&query.filters)?;
        let after = query.page.as_deref().map(place).transpose()?;
        let layer = self.clone();
        // Reads as much as the filter refuses, so not on an async thread.
        let listed = tokio::task::spawn_blocking(move || layer.list_page(&filter, after, &query));
        listed.await.map_err(|_| LedgerError::Closed)?
    }

    fn list_page(
        &self,
        filter: &ElementFilter,
        after: Option<String>,
        query: &ListQuery,
    ) -> Result<Page, ReadError> {
        let limit = match query.limit {
            0 => DEFAULT_PAGE,
            limit => limit.min(MAX_PAGE),
        };
        let relations = LedgerRelations {
            ledger: &self.shared.ledger,
            failed: RefCell::new(None),
        };
        let hidden = query.hidden || names_hidden(filter);
        let passes = |record: &Record| {
            let view = ElementView {
                record,
                state: self.state_of(record),
            };
            (hidden || !record.hidden)
                && query.kind.is_none_or(|kind| record.id.kind() == kind)
                && query
                    .prefix
                    .as_ref()
                    .is_none_or(|prefix| record.id.as_str().starts_with(prefix))
                && filter.selects_element(&view, &relations)
        };
        let mut found = Found {
            ledger: &self.shared.ledger,
            after: after.as_deref(),
            // One more than asked for tells whether there is a next page.
            limit: limit + 1,
            entries: BTreeMap::new(),
        };
        for scan in narrowed(plan(filter), query) {
            found.scan(&scan, &passes)?;
        }
        if let Some(error) = relations.failed.into_inner() {
            return Err(error.into());
        }
        let more = found.entries.len() > limit;
        let mut page = Page {
            items: Vec::new(),
            damaged: Vec::new(),
            next: None,
        };
        for (at, (id, record)) in found.entries.into_iter().take(limit).enumerate() {
            if more && at + 1 == limit {
                page.next = Some(token(&id));
            }
            match record {
                Some(record) => {
                    let mut descriptor = self.describe(record);
                    query.projection.apply(&mut descriptor);
                    page.items.push(descriptor);
                }
                None => page.damaged.push(id),
            }
        }
        Ok(page)
    }
}

/// What the scans found, by id; `None` = damaged.
struct Found<'a> {
    ledger: &'a Ledger,
    after: Option<&'a str>,
    limit: usize,
    entries: BTreeMap<String, Option<Record>>,
}

impl Found<'_> {
    fn scan(&mut self, scan: &Scan, passes: &impl Fn(&Record) -> bool) -> Result<(), LedgerError> {
        let ids: BTreeSet<ElementId> = match scan {
            Scan::Prefix(prefix) => return self.scan_prefix(prefix, passes),
            Scan::One(id) => BTreeSet::from([id.clone()]),
            Scan::Children(parent) => self.linked(Index::Children, parent)?,
            Scan::UsersOf(element) => self.linked(Index::References, element)?,
            Scan::UsedBy(executor) => match self.ledger.get(executor)?.map(|record| record.body) {
                Some(crate::element::Body::Executor(body)) => {
                    body.composition.joined.into_keys().collect()
                }
                _ => BTreeSet::new(),
            },
        };
        let mut taken = 0;
        for id in ids {
            if taken == self.limit {
                break;
            }
            if self.after.is_some_and(|after| id.as_str() <= after) {
                continue;
            }
            match self.ledger.get(&id) {
                Ok(Some(record)) if passes(&record) => {
                    self.entries.insert(id.to_string(), Some(record));
                    taken += 1;
                }
                Ok(_) => {}
                Err(LedgerError::Damaged { .. }) => {
                    self.entries.insert(id.to_string(), None);
                    taken += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn scan_prefix(
        &mut self,
        prefix: &str,
        passes: &impl Fn(&Record) -> bool,
    ) -> Result<(), LedgerError> {
        let page = self.ledger.list(prefix, self.after, self.limit, passes)?;
        for record in page.records {
            self.entries.insert(record.id.to_string(), Some(record));
        }
        for id in page.damaged {
            self.entries.insert(id, None);
        }
        Ok(())
    }

    fn linked(&self, index: Index, id: &ElementId) -> Result<BTreeSet<ElementId>, LedgerError> {
        Ok(self.ledger.linked(index, id)?.into_iter().collect())
    }
}

/// The scans with kind and prefix of the query put into their prefixes.
fn narrowed(scans: Vec<Scan>, query: &ListQuery) -> Vec<Scan> {
    let kind = query.kind.map(|kind| format!("{kind}://"));
    let bounds = [kind.as_deref(), query.prefix.as_deref()];
    let mut scans: Vec<Scan> = scans
        .into_iter()
        .filter_map(|scan| {
            let Scan::Prefix(mut prefix) = scan else {
                return Some(scan);
            };
            for bound in bounds.into_iter().flatten() {
                if bound.starts_with(prefix.as_str()) {
                    prefix = bound.to_owned();
                } else if !prefix.starts_with(bound) {
                    return None;
                }
            }
            Some(Scan::Prefix(prefix))
        })
        .collect();
    scans.dedup();
    scans
}

fn names_hidden(filter: &ElementFilter) -> bool {
    filter
        .alternatives()
        .iter()
        .flatten()
        .any(|condition| condition.field == ElementField::Hidden)
}

struct LedgerRelations<'a> {
    ledger: &'a Ledger,
    /// The first failure; a filter cannot return one.
    failed: RefCell<Option<LedgerError>>,
}

impl LedgerRelations<'_> {
    fn or_failed<T: Default>(&self, answer: Result<T, LedgerError>) -> T {
        match answer {
            Ok(answer) => answer,
            // A damaged relative ends the chain, it does not hide its descendants.
            Err(LedgerError::Damaged { .. }) => T::default(),
            Err(error) => {
                self.failed.borrow_mut().get_or_insert(error);
                T::default()
            }
        }
    }
}

impl Relations for LedgerRelations<'_> {
    fn parent(&self, id: &ElementId) -> Option<ElementId> {
        self.or_failed(self.ledger.get(id))
            .and_then(|record| record.parent)
    }

    fn users(&self, id: &ElementId) -> Vec<ElementId> {
        self.or_failed(self.ledger.linked(Index::References, id))
    }
}

/// A token is the id after which the page begins, with a sum that tells ours from made-up ones.
fn token(id: &str) -> String {
    format!("{:08x}{}", crc32fast::hash(id.as_bytes()), hex::encode(id))
}

fn place(token: &str) -> Result<String, ReadError> {
    let (sum, id) = token.split_at_checked(8).ok_or(ReadError::InvalidPage)?;
    let id = hex::decode(id).map_err(|_| ReadError::InvalidPage)?;
    let id = String::from_utf8(id).map_err(|_| ReadError::InvalidPage)?;
    if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(id.as_bytes())) {
        return Err(ReadError::InvalidPage);
    }
    Ok(id)
}
