//! The keys of the one tree; the drawing is in the parent module.

use super::LedgerError;
use crate::element::ElementId;

/// No key is longer: an exit record's, with two ids of 1,024 bytes; a piece's is, by a little.
pub(super) const MAX_BYTES: usize = 2 * crate::element::id::MAX_ID_BYTES + 32;

/// Key of the stored sequence and other single values.
pub(super) fn meta(name: &str) -> Vec<u8> {
    join(b'm', &[name.as_bytes()])
}

/// Key of an element's record.
pub(super) fn element(id: &ElementId) -> Vec<u8> {
    join(b'e', &[id.as_str().as_bytes()])
}

/// Prefix of every element whose id begins with `prefix`.
pub(super) fn elements(prefix: &str) -> Vec<u8> {
    join(b'e', &[prefix.as_bytes()])
}

/// Key of a task's data stream.
pub(super) fn data(id: &ElementId) -> Vec<u8> {
    join(b'd', &[id.as_str().as_bytes()])
}

/// Key of the entry "second depends on first" in the index `class` (`c`, `r` or `o`).
pub(super) fn pair(class: u8, first: &ElementId, second: &ElementId) -> Vec<u8> {
    join(
        class,
        &[first.as_str().as_bytes(), b"\0", second.as_str().as_bytes()],
    )
}

/// Prefix of all entries of `first` in the index `class`.
pub(super) fn pairs(class: u8, first: &ElementId) -> Vec<u8> {
    join(class, &[first.as_str().as_bytes(), b"\0"])
}

/// Key of an event.
pub(super) fn event(sequence: u64) -> Vec<u8> {
    join(b'v', &[&sequence.to_be_bytes()])
}

/// Key of an audit row.
pub(super) fn audit(id: &ElementId, sequence: u64) -> Vec<u8> {
    join(
        b'a',
        &[id.as_str().as_bytes(), b"\0", &sequence.to_be_bytes()],
    )
}

/// Prefix of the audit rows of an element.
pub(super) fn audit_rows(id: &ElementId) -> Vec<u8> {
    join(b'a', &[id.as_str().as_bytes(), b"\0"])
}

/// Key of a tombstone.
pub(super) fn tombstone(number: u64) -> Vec<u8> {
    join(b't', &[&number.to_be_bytes()])
}

/// Prefix of every tombstone.
pub(super) fn tombstones() -> Vec<u8> {
    vec![b't']
}

/// The number a key ends with (events, audit rows, tombstones).
pub(super) fn number(key: &[u8]) -> Result<u64, LedgerError> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| LedgerError::damaged(key))
}

/// The id that ends a key, from byte `at` on.
pub(super) fn id_after(key: &[u8], at: usize) -> Result<ElementId, LedgerError> {
    key.get(at..)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| LedgerError::damaged(key))
}

/// Key of a piece of the long value at `key`.
pub(super) fn piece(key: &[u8], number: u32) -> Vec<u8> {
    join(b'k', &[key, b"\0", &number.to_be_bytes()])
}

/// Prefix of all pieces of the long value at `key`.
pub(super) fn pieces(key: &[u8]) -> Vec<u8> {
    join(b'k', &[key, b"\0"])
}

/// Whether values of this key's class are written in pieces when they are long; the others are always short.
pub(super) fn may_be_long(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'e' | b'd' | b'i'))
}

/// Prefix of the exit records of an executor, or of one task in it.
pub(super) fn exits(executor: &ElementId, task: Option<&ElementId>) -> Vec<u8> {
    let executor = executor.as_str().as_bytes();
    match task {
        Some(task) => join(b'x', &[executor, b"\0", task.as_str().as_bytes(), b"\0"]),
        None => join(b'x', &[executor, b"\0"]),
    }
}

/// Prefix of every intent.
pub(super) fn intents() -> Vec<u8> {
    vec![b'i']
}

/// Prefix of every number of a pool that is taken. Pools are named by ids and by texts of ours, none with a zero.
pub(super) fn numbers(pool: &str) -> Vec<u8> {
    join(b'n', &[pool.as_bytes(), b"\0"])
}

/// Key of a number of a pool.
pub(super) fn pool_number(pool: &str, number: u32) -> Vec<u8> {
    join(b'n', &[pool.as_bytes(), b"\0", &number.to_be_bytes()])
}

/// Beginning of the keys of all numbers of all pools.
pub(super) fn all_numbers() -> Vec<u8> {
    vec![b'n']
}

/// The number a key of a pool ends with.
pub(super) fn number_of(key: &[u8]) -> Result<u32, LedgerError> {
    key.last_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or_else(|| LedgerError::damaged(key))
}

/// Key of an exit record.
pub(super) fn exit(executor: &ElementId, task: &ElementId, run: u32) -> Vec<u8> {
    join(
        b'x',
        &[
            executor.as_str().as_bytes(),
            b"\0",
            task.as_str().as_bytes(),
            b"\0",
            &run.to_be_bytes(),
        ],
    )
}

/// Key of the intent of a commit.
pub(super) fn intent(executor: &ElementId) -> Vec<u8> {
    join(b'i', &[executor.as_str().as_bytes()])
}

/// Key of the owner of a range of user ids.
pub(super) fn ids_slot(slot: u32) -> Vec<u8> {
    join(b'u', &[&slot.to_be_bytes()])
}

/// Key of the number of an executor's range of user ids.
pub(super) fn ids_of(executor: &ElementId) -> Vec<u8> {
    join(b'w', &[executor.as_str().as_bytes()])
}

fn join(class: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(class);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}
