//! Writing rows, trimming them, and clearing away those of elements deleted long ago.

use serde::{Deserialize, Serialize};

use super::{
    AuditEntry, AuditRow, KEPT_TOMBSTONE_DAYS, KEPT_TOMBSTONES, NONE, Outcome, Verb,
    kept_after_first, sum, toggle,
};
use crate::Operation;
use crate::element::{Checksum, ElementId};
use crate::ledger::txn::{Txn, bound_names, bound_text};
use crate::ledger::{LedgerError, codec, keys};
use crate::time::Timestamp;

/// Most expired tombstones one Delete clears away; keeps a Delete's cost bounded.
const CLEARED_PER_DELETE: usize = 4;
const DAY_NANOS: i64 = 86_400 * 1_000_000_000;

#[derive(Serialize, Deserialize)]
struct Tombstone {
    id: ElementId,
    time: Timestamp,
    /// The row of the Delete; when the newest row is another one, the element lived again.
    row: u64,
}

impl Txn<'_> {
    /// Appends a row to an element's audit log. Refusals without effect: see the module's text.
    pub fn audit(
        &mut self,
        operation: &Operation,
        id: &ElementId,
        entry: AuditEntry,
    ) -> Result<(), LedgerError> {
        let prefix = keys::audit_rows(id);
        let last = self.last_with_prefix(&prefix)?;
        let mut row = AuditRow {
            sequence: 1,
            time: self.now,
            operation: operation.id.clone(),
            actor: operation.actor.clone(),
            verb: entry.verb,
            revision_before: entry.revision_before,
            revision_after: entry.revision_after,
            outcome: entry.outcome,
            checksum: entry.checksum,
            keys: entry.keys,
            previous: NONE,
            first: NONE,
        };
        bound_names(&mut row.keys);
        bound_text(&mut row.operation);
        bound_text(&mut row.actor);
        let mut heads = self.audit_heads()?;
        match last {
            None if row.outcome != Outcome::Ok => return Ok(()),
            None => {}
            Some((key, stored)) => {
                let before: AuditRow = codec::decode(&key, &stored)?;
                if row.outcome != Outcome::Ok && same_refusal(&before, &row) {
                    return Ok(());
                }
                row.sequence = before.sequence + 1;
                row.previous = sum(&key, &stored);
                row.first = if before.sequence == 1 {
                    row.previous
                } else {
                    before.first
                };
                heads = toggle(heads, row.previous);
                let trimmed = kept_after_first(row.sequence).start() - 1;
                if trimmed >= 2 {
                    self.remove_key(keys::audit(id, trimmed));
                }
            }
        }
        let key = keys::audit(id, row.sequence);
        let stored = codec::encode(&row)?;
        self.put_value(
            keys::meta("audit-heads"),
            &toggle(heads, sum(&key, &stored)),
        )?;
        self.put_bytes(key, stored);
        if row.verb == Verb::Delete && row.outcome == Outcome::Ok {
            self.bury(id, row.sequence)?;
        }
        Ok(())
    }

    fn audit_heads(&self) -> Result<Checksum, LedgerError> {
        let heads = self.get_value(&keys::meta("audit-heads"))?;
        Ok(heads.unwrap_or(NONE))
    }

    /// Adds a tombstone and clears expired ones away.
    fn bury(&mut self, id: &ElementId, row: u64) -> Result<(), LedgerError> {
        let class = keys::tombstones();
        let number = match self.last_with_prefix(&class)? {
            Some((key, _)) => keys::number(&key)? + 1,
            None => 1,
        };
        let tombstone = Tombstone {
            id: id.clone(),
            time: self.now,
            row,
        };
        self.put_value(keys::tombstone(number), &tombstone)?;
        for _ in 0..CLEARED_PER_DELETE {
            let Some((key, stored)) = self.first_with_prefix(&class)? else {
                break;
            };
            // A tombstone that cannot be read names nothing that could be cleared.
            let oldest: Option<Tombstone> = codec::decode(&key, &stored).ok();
            let too_many = number - keys::number(&key)? >= KEPT_TOMBSTONES;
            let too_old = oldest.as_ref().is_none_or(|oldest| {
                let age = self.now.as_nanos().saturating_sub(oldest.time.as_nanos());
                age > KEPT_TOMBSTONE_DAYS * DAY_NANOS
            });
            if !too_many && !too_old {
                break;
            }
            self.remove_key(key);
            if let Some(oldest) = oldest {
                self.clear_rows(&oldest)?;
            }
        }
        Ok(())
    }

    fn clear_rows(&mut self, tombstone: &Tombstone) -> Result<(), LedgerError> {
        let prefix = keys::audit_rows(&tombstone.id);
        let Some((key, stored)) = self.last_with_prefix(&prefix)? else {
            return Ok(());
        };
        if keys::number(&key)? != tombstone.row {
            return Ok(());
        }
        let heads = toggle(self.audit_heads()?, sum(&key, &stored));
        self.put_value(keys::meta("audit-heads"), &heads)?;
        for key in self.keys_with_prefix(&prefix)? {
            self.remove_key(key);
        }
        Ok(())
    }
}

fn same_refusal(before: &AuditRow, now: &AuditRow) -> bool {
    (before.verb, &before.outcome, &before.actor) == (now.verb, &now.outcome, &now.actor)
}
