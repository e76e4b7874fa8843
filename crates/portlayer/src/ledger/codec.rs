//! Stored values: one version byte, the CRC-32 of the rest (little endian), then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LedgerError;

/// Version of the encoding written now.
pub(super) const VERSION: u8 = 1;

/// Encodes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LedgerError> {
    let head = vec![VERSION, 0, 0, 0, 0];
    let mut bytes = postcard::to_extend(value, head).map_err(|error| LedgerError::Backend {
        text: error.to_string(),
    })?;
    let crc = crc32fast::hash(&bytes[5..]);
    bytes[1..5].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Decodes a value. Error: `Damaged` naming the key when version, sum or form are not what they must be.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, LedgerError> {
    let damaged = || LedgerError::Damaged {
        key: key.escape_ascii().to_string(),
    };
    let (head, body) = bytes.split_at_checked(5).ok_or_else(damaged)?;
    let stored = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != VERSION || stored != crc32fast::hash(body) {
        return Err(damaged());
    }
    postcard::from_bytes(body).map_err(|_| damaged())
}
