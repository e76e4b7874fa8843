//! Text that cannot do anything to a terminal.
//!
//! Metadata, paths and engine messages are written by strangers. A table cell that holds an escape sequence could
//! rewrite other lines, set the clipboard or hide what stands there; bidirectional controls could reorder it.

use std::fmt::Write as _;

/// Makes text from strangers safe for one line of a terminal: controls (C0, DEL, C1), line and paragraph
/// separators, bidirectional and invisible formatting characters become `\n`, `\t`, `\x1b` or `\u{202e}`; bytes
/// that are no UTF-8 become `\xff`; a backslash becomes `\\`, so that the result is unambiguous.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// As [`escape`], for text whose backslashes are ours (an error line that was put together from quoted parts).
pub(crate) fn escape_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push('\\'),
            c => push(&mut out, c),
        }
    }
    out
}

/// Makes a finished JSON text safe for a terminal without changing what it says: what `is_active` names can only
/// stand inside strings there, where `\u....` means the same.
pub(crate) fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Line feeds of pretty printing are the only raw controls a JSON text has.
        if c != '\n' && is_active(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character does something else than show itself.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_active(c) && u32::from(c) < 0x80 => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c if is_active(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile task would put into its metadata.
    const HOSTILE: &[&[u8]] = &[
        b"\x1b[2J\x1b[H",
        b"\x1b]52;c;cm0gLXJmIC8=\x07",
        b"\x1b]0;title\x1b\\",
        b"\x9b31m",
        "\u{9b}31m".as_bytes(),
        "\u{85}next".as_bytes(),
        b"a\rb",
        b"a\nb",
        b"\x08\x08\x7f",
        "\u{202e}txt.exe".as_bytes(),
        "\u{2066}\u{2069}\u{200f}".as_bytes(),
        "\u{2028}\u{2029}".as_bytes(),
        "\u{feff}\u{200b}".as_bytes(),
        "\u{e0041}".as_bytes(),
        b"\xff\xfe\xc0\x80",
        b"\0",
    ];

    #[test]
    fn nothing_active_is_left() {
        for bytes in HOSTILE {
            let text = escape(bytes);
            assert!(!text.chars().any(is_active), "{bytes:?} became {text:?}");
            assert!(!text.is_empty());
        }
    }

    #[test]
    fn it_reads_as_what_it_was() {
        assert_eq!(escape(b"\x1b[31m"), r"\x1b[31m");
        assert_eq!(escape(b"\x9b1m\xff"), r"\x9b1m\xff");
        assert_eq!(escape("\u{202e}x".as_bytes()), r"\u{202e}x");
        assert_eq!(escape(br"\x1b"), r"\\x1b");
        assert_eq!(escape("größe 🦀 日本".as_bytes()), "größe 🦀 日本");
    }

    #[test]
    fn json_stays_the_same_json() {
        for text in HOSTILE
            .iter()
            .filter_map(|bytes| std::str::from_utf8(bytes).ok())
        {
            let value = serde_json::json!({ "key": text, text: [1, 2] });
            let shown = escape_json(&serde_json::to_string_pretty(&value).unwrap());
            assert!(
                !shown.chars().any(|c| c != '\n' && is_active(c)),
                "{shown:?}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                value
            );
        }
    }
}
