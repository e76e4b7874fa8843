//! The encoding of stored values for fuzzing: bodies alone, their version and sum made right.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;

/// The value in a body; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    codec::decode(b"fuzz", &codec::wrap(body)).ok()
}

/// The body of a value.
pub(crate) fn written<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let bytes = codec::encode(value).ok()?;
    codec::unwrap(b"fuzz", &bytes).ok().map(<[u8]>::to_vec)
}
