//! The caller's metadata: two maps of names to bytes, `ro` fixed at creation and `rw` patched later.
//!
//! Nothing of ours ever lives in these maps, so a caller's key cannot collide with the implementation.

use std::collections::BTreeMap;

use thiserror::Error;

/// Metadata of one element. Keys are sorted; values are bytes.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// What a caller hands in. `None` (a nil value) is an error in Create and deletes the key in Update.
pub type Patch = BTreeMap<String, Option<Vec<u8>>>;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Longest value, in bytes. Larger things belong into the data stream: the ledger keeps values small on purpose.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Most keys in one map.
pub const MAX_KEYS: usize = 256;
/// Most bytes in one map, keys and values together.
pub const MAX_TOTAL_BYTES: usize = 256 * 1024;

/// Why an entry is refused. The value never appears in the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryRule {
    /// A nil value where a value is needed (Create).
    #[error("a nil value is only allowed in update")]
    Nil,
    /// An empty key.
    #[error("the key is empty")]
    EmptyKey,
    /// A key over [`MAX_KEY_BYTES`].
    #[error("the key is longer than 256 bytes")]
    KeyTooLong,
    /// A control character in the key.
    #[error("the key holds a control character")]
    KeyCharacter,
    /// A value over [`MAX_VALUE_BYTES`].
    #[error("the value is longer than 65536 bytes")]
    ValueTooLong,
    /// More than [`MAX_KEYS`] keys.
    #[error("more than 256 keys")]
    TooManyKeys,
    /// More than [`MAX_TOTAL_BYTES`] in the map.
    #[error("more than 262144 bytes in one map")]
    TooManyBytes,
}

/// A refused entry and its rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("metadata key {key:?}: {rule}")]
pub struct EntryError {
    /// The key at fault.
    pub key: String,
    /// The rule it broke.
    pub rule: EntryRule,
}

/// Checks what a caller gave to Create and turns it into stored metadata. Errors: the first refused entry.
pub fn checked(patch: Patch) -> Result<Metadata, EntryError> {
    let mut map = Metadata::new();
    for (key, value) in patch {
        let Some(value) = value else {
            return Err(EntryError {
                key,
                rule: EntryRule::Nil,
            });
        };
        map.insert(key, value);
    }
    check_limits(&map)?;
    Ok(map)
}

/// Applies an Update to stored metadata: `None` deletes, a value replaces. Returns the names of the keys that
/// really changed, sorted; empty means the update is a no-op. Errors leave `map` as it was.
pub fn apply(map: &mut Metadata, patch: &Patch) -> Result<Vec<String>, EntryError> {
    let mut next = map.clone();
    let mut changed = Vec::new();
    for (key, value) in patch {
        match value {
            Some(value) if next.get(key) != Some(value) => {
                next.insert(key.clone(), value.clone());
                changed.push(key.clone());
            }
            None if next.remove(key).is_some() => changed.push(key.clone()),
            _ => {}
        }
    }
    check_limits(&next)?;
    *map = next;
    Ok(changed)
}

fn check_limits(map: &Metadata) -> Result<(), EntryError> {
    let mut total = 0;
    for (at, (key, value)) in map.iter().enumerate() {
        total += key.len() + value.len();
        let rule = if key.is_empty() {
            EntryRule::EmptyKey
        } else if key.len() > MAX_KEY_BYTES {
            EntryRule::KeyTooLong
        } else if key.chars().any(char::is_control) {
            EntryRule::KeyCharacter
        } else if value.len() > MAX_VALUE_BYTES {
            EntryRule::ValueTooLong
        } else if at >= MAX_KEYS {
            EntryRule::TooManyKeys
        } else if total > MAX_TOTAL_BYTES {
            EntryRule::TooManyBytes
        } else {
            continue;
        };
        return Err(EntryError {
            key: key.clone(),
            rule,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(entries: &[(&str, Option<&str>)]) -> Patch {
        entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(|v| v.as_bytes().to_vec())))
            .collect()
    }

    #[test]
    fn nil_is_an_error_in_create_and_deletes_in_update() {
        assert_eq!(
            checked(patch(&[("a", None)])).unwrap_err().rule,
            EntryRule::Nil
        );
        let mut map = checked(patch(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        assert_eq!(
            apply(
                &mut map,
                &patch(&[("a", None), ("b", Some("2")), ("gone", None)])
            )
            .unwrap(),
            ["a"]
        );
        assert_eq!(map.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_refused_update_changes_nothing() {
        let mut map = checked(patch(&[("a", Some("1"))])).unwrap();
        let before = map.clone();
        assert_eq!(
            apply(&mut map, &patch(&[("a", None), ("", Some("x"))]))
                .unwrap_err()
                .rule,
            EntryRule::EmptyKey
        );
        assert_eq!(map, before);
    }
}
