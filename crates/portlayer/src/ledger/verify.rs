//! Checking a whole ledger: every value's sum, every audit chain, every link.

use std::collections::BTreeSet;

use serde::Serialize;

use super::audit::{self, AuditRow, kept_after_first};
use super::{Index, Ledger, LedgerError, codec, keys, pieces};
use crate::element::{Checksum, ElementId, Kind, Record};
use crate::event::Event;
use crate::task::ExitRecord;

/// How often a chain or link that looks wrong is read again: it may just be changing.
const LOOKS: usize = 3;

/// What [`Ledger::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Element records read.
    pub records: u64,
    /// Audit rows read.
    pub audit_rows: u64,
    /// Audit chains followed.
    pub chains: u64,
    /// Events read.
    pub events: u64,
    /// Keys of values that are damaged or belong to nothing.
    pub damaged: Vec<String>,
    /// Audit logs that are not what was once written.
    pub broken_chains: Vec<BrokenChain>,
    /// Links whose one end does not exist.
    pub dangling: Vec<Dangling>,
    /// Whether the chains together are the ones last written; `None` when the ledger was written meanwhile.
    pub heads_match: Option<bool>,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.broken_chains.is_empty()
            && self.dangling.is_empty()
            && self.heads_match != Some(false)
    }
}

/// An audit log that does not verify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenChain {
    /// The element, as text.
    pub id: String,
    /// The first row at fault, as far as it can be told.
    pub row: u64,
}

/// A link with a missing end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dangling {
    /// `child`, `reference` or `owned`.
    pub index: &'static str,
    /// What is depended on.
    pub first: ElementId,
    /// What depends on it.
    pub second: ElementId,
    /// The end that does not exist.
    pub missing: ElementId,
}

impl Ledger {
    /// Reads everything and checks it; changes nothing. Blocking: takes seconds for a million elements. May run
    /// beside writers, then the audit heads are not compared. Errors: only the store's own.
    pub fn verify(&self) -> Result<Report, LedgerError> {
        let tree = &self.shared.tree;
        let before = self.audit_heads();
        let mut report = Report::default();
        let mut heads = audit::NONE;
        let mut chains = BTreeSet::new();
        let mut chain: Option<Vec<u8>> = None;
        for entry in tree.iter() {
            let (key, entry) = entry?;
            if key.first() == Some(&b'a') {
                report.audit_rows += 1;
                let prefix = key[..key.len().saturating_sub(8)].to_vec();
                if chain.as_ref() != Some(&prefix) {
                    report.chains += 1;
                    match self.check_chain(&prefix)? {
                        Ok(head) => heads = audit::toggle(heads, head),
                        Err(broken) => drop(chains.insert((chain_id(&prefix), broken))),
                    }
                    chain = Some(prefix);
                }
            } else if !self.check_value(&key, entry, &mut report)? {
                report.damaged.push(key.escape_ascii().to_string());
            }
        }
        report.broken_chains = chains
            .into_iter()
            .map(|(id, row)| BrokenChain { id, row })
            .collect();
        report.heads_match = match (before, self.audit_heads()) {
            (Ok(before), Ok(after)) if before == after => Some(before == heads),
            (Ok(_), Ok(_)) => None,
            _ => Some(false),
        };
        Ok(report)
    }

    /// Checks one value outside the audit log; false = damaged.
    fn check_value(
        &self,
        key: &[u8],
        entry: sled::IVec,
        report: &mut Report,
    ) -> Result<bool, LedgerError> {
        let class = key.first().copied().unwrap_or_default();
        if class == b'k' {
            // A piece is checked with its value; here only that there is one.
            let of = key.get(1..key.len().saturating_sub(5)).unwrap_or_default();
            return Ok(self.shared.tree.contains_key(of)?);
        }
        if let Some(index) = Index::of_class(class) {
            return self.check_link(index, key, report);
        }
        let value = match pieces::whole(&self.shared.tree, key, entry) {
            Ok(value) => value,
            Err(LedgerError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(match class {
            b'e' => {
                report.records += 1;
                codec::decode::<Record>(key, &value)
                    .is_ok_and(|record| record.id.as_str().as_bytes() == &key[1..])
            }
            b'd' => self.check_data(key, &value)?,
            b'v' => {
                report.events += 1;
                let event = codec::decode::<Event>(key, &value);
                event.is_ok_and(|event| Some(event.sequence) == keys::number(key).ok())
            }
            b'x' => codec::decode::<ExitRecord>(key, &value).is_ok(),
            b'n' => codec::decode::<ElementId>(key, &value).is_ok() && keys::number_of(key).is_ok(),
            _ => codec::unwrap(key, &value).is_ok(),
        })
    }

    /// A data stream is what its record's checksum says, where that is known.
    fn check_data(&self, key: &[u8], value: &[u8]) -> Result<bool, LedgerError> {
        let (Ok(body), Ok(id)) = (codec::unwrap(key, value), keys::id_after(key, 1)) else {
            return Ok(false);
        };
        match self.get(&id) {
            Ok(Some(record)) => Ok(record.checksum.is_none_or(|sum| sum == Checksum::of(body))),
            // The record's own entry tells of its damage.
            Err(LedgerError::Damaged { .. }) => Ok(true),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn check_link(
        &self,
        index: Index,
        key: &[u8],
        report: &mut Report,
    ) -> Result<bool, LedgerError> {
        let Some(middle) = key.iter().position(|byte| *byte == 0) else {
            return Ok(false);
        };
        let (first, second) = (
            keys::id_after(&key[..middle], 1),
            keys::id_after(key, middle + 1),
        );
        let (Ok(first), Ok(second)) = (first, second) else {
            return Ok(false);
        };
        let ends = [(&first, may_be_configured(&first)), (&second, false)];
        for (end, configured) in ends {
            let mut missing = !configured;
            for _ in 0..LOOKS {
                let tree = &self.shared.tree;
                missing =
                    missing && !tree.contains_key(keys::element(end))? && tree.contains_key(key)?;
            }
            if missing {
                report.dangling.push(Dangling {
                    index: index.as_str(),
                    first: first.clone(),
                    second: second.clone(),
                    missing: end.clone(),
                });
            }
        }
        Ok(true)
    }

    /// The sum of a chain's newest row, or the row at fault.
    fn check_chain(&self, prefix: &[u8]) -> Result<Result<Checksum, u64>, LedgerError> {
        let mut found = Ok(audit::NONE);
        for _ in 0..LOOKS {
            let rows: Result<Vec<_>, _> = self.shared.tree.scan_prefix(prefix).collect();
            found = follow_chain(&rows?);
            if found.is_ok() {
                break;
            }
        }
        Ok(found)
    }
}

fn follow_chain(rows: &[(sled::IVec, sled::IVec)]) -> Result<Checksum, u64> {
    let Some((last, _)) = rows.last() else {
        return Ok(audit::NONE);
    };
    let last = keys::number(last).map_err(|_| 0_u64)?;
    let expected = std::iter::once(1).chain(kept_after_first(last));
    let (mut first, mut previous) = (audit::NONE, audit::NONE);
    let mut at = 0;
    for ((key, stored), sequence) in rows.iter().zip(expected) {
        let row: AuditRow = codec::decode(key, stored).map_err(|_| sequence)?;
        let trimmed_before = sequence > at + 1;
        if row.sequence != sequence
            || keys::number(key).ok() != Some(sequence)
            || row.first != first
            || (row.previous != previous && !trimmed_before)
        {
            return Err(sequence);
        }
        at = sequence;
        previous = audit::sum(key, stored);
        if sequence == 1 {
            first = previous;
        }
    }
    if at == last {
        Ok(previous)
    } else {
        Err(at + 1)
    }
}

/// Elements that come from the configuration have no record.
fn may_be_configured(id: &ElementId) -> bool {
    id.location() == "builtin" || matches!(id.kind(), Kind::Network | Kind::Log)
}

fn chain_id(prefix: &[u8]) -> String {
    let id = prefix.get(1..prefix.len().saturating_sub(1));
    String::from_utf8_lossy(id.unwrap_or_default()).into_owned()
}
