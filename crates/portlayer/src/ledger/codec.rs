//! Stored values: one version byte, the CRC-32 of the rest (little endian), then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LedgerError;

/// Version of the encoding written now.
const VERSION: u8 = 1;
/// Version byte and sum.
const HEAD_BYTES: usize = 5;

/// Encodes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LedgerError> {
    let head = vec![VERSION; HEAD_BYTES];
    let mut bytes = postcard::to_extend(value, head).map_err(|error| LedgerError::Backend {
        text: error.to_string(),
    })?;
    let crc = crc32fast::hash(&bytes[HEAD_BYTES..]);
    bytes[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Wraps bytes that are their own form (data streams) in version and sum.
pub(super) fn wrap(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a stored value. Error: `Damaged` naming the key when version or sum are not what they must be.
pub(super) fn unwrap<'b>(key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], LedgerError> {
    let (head, body) = bytes
        .split_at_checked(HEAD_BYTES)
        .ok_or_else(|| LedgerError::damaged(key))?;
    let stored = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != VERSION || stored != crc32fast::hash(body) {
        return Err(LedgerError::damaged(key));
    }
    Ok(body)
}

/// Decodes a value. Error: `Damaged` naming the key when version, sum or form are not what they must be.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, LedgerError> {
    postcard::from_bytes(unwrap(key, bytes)?).map_err(|_| LedgerError::damaged(key))
}
