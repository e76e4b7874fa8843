//! The keys of the one tree; the drawing is in the parent module.

use crate::element::ElementId;

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

fn join(class: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(class);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}
