//! The element id: `<kind>://<location>/<name>`, parsed and checked once, from the raw text.
//!
//! The grammar is stricter than a URL on purpose. The `url` crate drops newlines, resolves `..` and keeps
//! `..%2f` for schemes it does not know, so two texts could become one id or one id two
//! (`reference/reliability.md` 3.1.C). Here the only accepted text of an id is its canonical form:
//!
//! ```text
//! id       = kind "://" location "/" name            at most 1,024 bytes
//! kind     = "image" | "volume" | "task" | "executor" | "network" | "log"
//! location = [a-z0-9] [a-z0-9._-]{0,62}
//! name     = segment ("/" segment)*
//! segment  = [A-Za-z0-9_] [A-Za-z0-9._~:@+-]{0,127}  never empty, "." or ".."
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use url::Url;

use super::Kind;

/// The longest accepted id, in bytes.
pub const MAX_ID_BYTES: usize = 1024;
/// The longest accepted location, in bytes.
pub const MAX_LOCATION_BYTES: usize = 63;
/// The longest accepted segment of a name, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 128;

/// The id of one element. Equality, order and hash are those of the canonical text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementId {
    text: std::sync::Arc<str>,
    kind: Kind,
    /// Where the name begins in `text`.
    name_at: u16,
}

/// Why a text is not an element id. `at` is the offset in bytes of the first offending character.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid element id at offset {at}: {reason}")]
pub struct IdError {
    /// Offset in bytes into the text given.
    pub at: usize,
    /// Which rule was broken.
    pub reason: IdRule,
}

/// The rules an id can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdRule {
    /// Longer than [`MAX_ID_BYTES`].
    #[error("longer than 1024 bytes")]
    TooLong,
    /// No `://` after the kind.
    #[error("expected <kind>://<location>/<name>")]
    Shape,
    /// The scheme is none of the kinds (lower case only).
    #[error("unknown kind")]
    UnknownKind,
    /// The location is empty, too long or holds a character outside its alphabet.
    #[error("a location is 1 to 63 of a-z 0-9 . _ - and begins with a letter or digit")]
    Location,
    /// User info or a port where the location stands.
    #[error("user info and ports are not allowed")]
    Authority,
    /// A query (`?`).
    #[error("a query is not allowed")]
    Query,
    /// A fragment (`#`).
    #[error("a fragment is not allowed")]
    Fragment,
    /// A percent sign: one text per id leaves no room for encodings.
    #[error("percent encoding is not allowed")]
    Percent,
    /// An empty segment (`//`, a leading or a trailing `/`).
    #[error("an empty segment is not allowed")]
    EmptySegment,
    /// A `.` or `..` segment.
    #[error("a dot segment is not allowed")]
    DotSegment,
    /// A segment longer than [`MAX_SEGMENT_BYTES`].
    #[error("a segment is longer than 128 bytes")]
    SegmentTooLong,
    /// A character outside the alphabet of a segment, or one it may not begin with.
    #[error("character not allowed here")]
    Character,
}

impl ElementId {
    /// Builds an id from its parts. Errors: as [`FromStr`], with offsets into the joined text.
    pub fn new(kind: Kind, location: &str, name: &str) -> Result<Self, IdError> {
        format!("{kind}://{location}/{name}").parse()
    }

    /// The kind (scheme) of the id.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The location: the configured store the element lives in.
    pub fn location(&self) -> &str {
        &self.text[self.kind.as_str().len() + 3..usize::from(self.name_at) - 1]
    }

    /// The name within the location; may hold `/`.
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.name_at)..]
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id as a URL, for callers that speak URLs.
    pub fn to_url(&self) -> Url {
        Url::parse(&self.text).expect("the grammar of ids is a subset of URLs")
    }

    /// Lower-case hex SHA-256 of the canonical text. Files, snapshots and containers are named by it (or a prefix),
    /// never by the text, so no id can steer a path.
    pub fn digest_hex(&self) -> String {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }
}

impl FromStr for ElementId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fail = |at, reason| Err(IdError { at, reason });
        if text.len() > MAX_ID_BYTES {
            return fail(MAX_ID_BYTES, IdRule::TooLong);
        }
        let Some(scheme_end) = text.find("://") else {
            return fail(0, IdRule::Shape);
        };
        let Some(kind) = Kind::from_name(&text[..scheme_end]) else {
            return fail(0, IdRule::UnknownKind);
        };
        let location_at = scheme_end + 3;
        let rest = &text[location_at..];
        let Some(slash) = rest.find('/') else {
            return fail(text.len(), IdRule::Shape);
        };
        check_location(&rest[..slash], location_at)?;
        let name_at = location_at + slash + 1;
        check_name(&text[name_at..], name_at)?;
        let name_at = u16::try_from(name_at).map_err(|_| IdError {
            at: 0,
            reason: IdRule::TooLong,
        })?;
        Ok(Self {
            text: text.into(),
            kind,
            name_at,
        })
    }
}

fn check_location(location: &str, offset: usize) -> Result<(), IdError> {
    let fail = |at: usize, reason| {
        Err(IdError {
            at: offset + at,
            reason,
        })
    };
    if let Some(at) = location.find(['@', ':']) {
        return fail(at, IdRule::Authority);
    }
    if location.is_empty() || location.len() > MAX_LOCATION_BYTES {
        return fail(0, IdRule::Location);
    }
    for (at, c) in location.bytes().enumerate() {
        let good = c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || (at > 0 && matches!(c, b'.' | b'_' | b'-'));
        if !good {
            let reason = match c {
                b'%' => IdRule::Percent,
                b'?' => IdRule::Query,
                b'#' => IdRule::Fragment,
                _ => IdRule::Location,
            };
            return fail(at, reason);
        }
    }
    Ok(())
}

fn check_name(name: &str, offset: usize) -> Result<(), IdError> {
    let mut at = offset;
    for segment in name.split('/') {
        let fail = |within: usize, reason| {
            Err(IdError {
                at: at + within,
                reason,
            })
        };
        match segment {
            "" => return fail(0, IdRule::EmptySegment),
            "." | ".." => return fail(0, IdRule::DotSegment),
            _ => {}
        }
        if segment.len() > MAX_SEGMENT_BYTES {
            return fail(MAX_SEGMENT_BYTES, IdRule::SegmentTooLong);
        }
        for (within, c) in segment.bytes().enumerate() {
            let first = c.is_ascii_alphanumeric() || c == b'_';
            let later = matches!(c, b'.' | b'~' | b':' | b'@' | b'+' | b'-');
            if first || (within > 0 && later) {
                continue;
            }
            let reason = match c {
                b'%' => IdRule::Percent,
                b'?' => IdRule::Query,
                b'#' => IdRule::Fragment,
                _ => IdRule::Character,
            };
            return fail(within, reason);
        }
        at += segment.len() + 1;
    }
    Ok(())
}

impl fmt::Display for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for ElementId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ElementId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> IdError {
        text.parse::<ElementId>().expect_err(text)
    }

    #[test]
    fn parts_are_what_was_written() {
        let id: ElementId = "image://default/docker.io/library/busybox:1.36"
            .parse()
            .unwrap();
        assert_eq!(id.kind(), Kind::Image);
        assert_eq!(id.location(), "default");
        assert_eq!(id.name(), "docker.io/library/busybox:1.36");
        assert_eq!(
            id.to_string(),
            "image://default/docker.io/library/busybox:1.36"
        );
    }

    proptest::proptest! {
        /// The grammar is a subset of URLs: what it accepts, the URL parser reads and writes unchanged. (Asking the
        /// parser at every parse would cost more than all the rest: ids are parsed with every record that is read.)
        #[test]
        fn every_id_is_a_canonical_url(text in "(image|volume|task)://[a-z0-9][a-z0-9._-]{0,12}(/[A-Za-z0-9_.~:@+-]{1,12}){1,4}") {
            if let Ok(id) = text.parse::<ElementId>() {
                let url = id.to_url();
                proptest::prop_assert_eq!(url.as_str(), id.as_str());
            }
        }
    }

    #[test]
    fn the_error_tells_rule_and_offset() {
        assert_eq!(
            refused("image://a/b?c"),
            IdError {
                at: 11,
                reason: IdRule::Query
            }
        );
        assert_eq!(
            refused("image://a/b/../c"),
            IdError {
                at: 12,
                reason: IdRule::DotSegment
            }
        );
        assert_eq!(
            refused("image://a:80/b"),
            IdError {
                at: 9,
                reason: IdRule::Authority
            }
        );
        assert_eq!(refused("image://a/..%2f..%2fetc").reason, IdRule::Character);
        assert_eq!(refused("image://a/x%2e").reason, IdRule::Percent);
    }
}
