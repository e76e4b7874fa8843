//! Long values in pieces.
//!
//! sled writes a page that is longer than a quarter of a segment to a file of its own and never syncs that file, so
//! such a page does not survive a power cut. A leaf holds up to 16 values (some more for a moment while pages merge)
//! and an inner page up to 256 keys; with segments of [`SEGMENT_BYTES`] and no value longer than [`PIECE_BYTES`] no
//! page comes near that limit.
//!
//! A longer value is stored as a head (version byte [`HEAD`], CRC-32, then the number of pieces) under its own key
//! and its bytes, split, under `k <key> 00 <n, 4>`.

use super::{LedgerError, keys};

/// Bytes of a sled segment; a page of a quarter of it would become a file that is never synced.
pub(super) const SEGMENT_BYTES: usize = 4 << 20;
/// The longest value stored in one entry.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// The version byte of a head.
const HEAD: u8 = 2;

/// The whole value stored at `key`, whose entry is `entry`. Error: `Damaged` naming the key.
pub(super) fn whole(
    tree: &sled::Tree,
    key: &[u8],
    entry: sled::IVec,
) -> Result<sled::IVec, LedgerError> {
    let Some(count) = count(&entry) else {
        return Ok(entry);
    };
    let mut value = Vec::new();
    for number in 0..count {
        let piece = tree.get(keys::piece(key, number))?;
        value.extend_from_slice(&piece.ok_or_else(|| LedgerError::damaged(key))?);
    }
    Ok(value.into())
}

/// Adds what stores `value` (or removes it) to `batch`, and what clears away the pieces of the value before.
pub(super) fn store(
    tree: &sled::Tree,
    batch: &mut sled::Batch,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
) -> Result<(), LedgerError> {
    let mut written = 0;
    let long = value
        .as_ref()
        .is_some_and(|value| value.len() > PIECE_BYTES);
    if keys::may_be_long(&key) {
        let before = tree.get(&key)?.as_deref().and_then(count).unwrap_or(0);
        if let (true, Some(value)) = (long, value.as_ref()) {
            for piece in value.chunks(PIECE_BYTES) {
                batch.insert(keys::piece(&key, written), piece);
                written += 1;
            }
        }
        for number in written..before {
            batch.remove(keys::piece(&key, number));
        }
    }
    match value {
        Some(_) if written > 0 => batch.insert(key, head(written)),
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    }
    Ok(())
}

fn head(count: u32) -> Vec<u8> {
    let body = count.to_le_bytes();
    let mut head = vec![HEAD];
    head.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    head.extend_from_slice(&body);
    head
}

fn count(entry: &[u8]) -> Option<u32> {
    let body: [u8; 4] = entry.get(5..)?.try_into().ok()?;
    (entry[0] == HEAD && entry[1..5] == crc32fast::hash(&body).to_le_bytes())
        .then(|| u32::from_le_bytes(body))
}
