//! Entry names: split, checked and shown.

use std::path::PathBuf;

use super::{Limits, Rule};

/// A checked path inside a tree: components only, no `.`, no `..`, relative to the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(Vec<Vec<u8>>);

impl EntryName {
    /// Splits and checks a raw name. A leading `/` is dropped: the root of the tree is the archive's `/`.
    ///
    /// # Errors
    /// [`Rule::Nul`], [`Rule::DotDot`], [`Rule::NameTooLong`], [`Rule::TooDeep`].
    pub fn parse(raw: &[u8], limits: &Limits) -> Result<EntryName, Rule> {
        if raw.contains(&0) {
            return Err(Rule::Nul);
        }
        if raw.len() > limits.path_bytes {
            return Err(Rule::NameTooLong);
        }
        let mut parts = Vec::new();
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Rule::DotDot),
                part if part.len() > 255 => return Err(Rule::NameTooLong),
                part => parts.push(part.to_vec()),
            }
        }
        if parts.len() > limits.depth {
            return Err(Rule::TooDeep);
        }
        Ok(EntryName(parts))
    }

    /// Whether this is the root itself (`.`, `/`, `./`).
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first.
    pub fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Parent components and last component; `None` for the root.
    pub fn split_last(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0
            .split_last()
            .map(|(last, parent)| (parent, last.as_slice()))
    }

    /// The name as a relative path; `.` for the root.
    pub fn path(&self) -> PathBuf {
        path_of(&self.0)
    }
}

/// The components as a relative path; `.` when there are none.
pub(super) fn path_of(parts: &[Vec<u8>]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    if parts.is_empty() {
        return PathBuf::from(".");
    }
    PathBuf::from(std::ffi::OsString::from_vec(parts.join(&b'/')))
}

/// A raw name made safe to print: control characters escaped, cut after 256 bytes.
pub fn shown(raw: &[u8]) -> String {
    let cut = raw.get(..256).unwrap_or(raw);
    let mut text = String::new();
    for c in String::from_utf8_lossy(cut).chars() {
        // Bidirectional overrides reorder what a terminal shows without being control characters.
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_ascii() && (c.is_control() || c == '\\') {
            text.extend(c.escape_default());
        } else if c.is_control() || bidi {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    if cut.len() < raw.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_and_checked() {
        let limits = Limits {
            path_bytes: 64,
            depth: 3,
            ..Limits::default()
        };
        let path =
            |raw: &[u8]| EntryName::parse(raw, &limits).map(|n| n.path().display().to_string());
        assert_eq!(path(b"./a//b/"), Ok("a/b".into()));
        assert_eq!(path(b"/etc/passwd"), Ok("etc/passwd".into()));
        assert_eq!(path(b"./"), Ok(".".into()));
        assert_eq!(path(b"a/../b"), Err(Rule::DotDot));
        assert_eq!(path(b"a\0b"), Err(Rule::Nul));
        assert_eq!(path(&[b'x'; 65]), Err(Rule::NameTooLong));
        assert_eq!(path(b"a/b/c/d"), Err(Rule::TooDeep));
        assert_eq!(path(b"..a/b.."), Ok("..a/b..".into()));
    }

    #[test]
    fn shown_names_cannot_steer_a_terminal() {
        assert_eq!(shown(b"a\x1b[2J\nb\\"), "a\\u{1b}[2J\\nb\\\\");
        assert_eq!(shown("x\u{202e}y\u{9b}".as_bytes()), "x\\u{202e}y\\u{9b}");
        assert!(shown(&[b'z'; 6000]).len() < 300);
    }
}
