//! Quoted literals with the escapes of Go strings; `/` and `|` are quotes too, for regular expressions.

use super::FilterError;

/// The bytes a literal stands for; `at` is the offset of its opening quote. Bytes, because `\xff` is one.
pub(super) fn unquote(literal: &str, at: usize) -> Result<Vec<u8>, FilterError> {
    let mut chars = literal.char_indices();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    let body_end = literal.len() - 1;
    let mut bytes = Vec::with_capacity(literal.len());
    let mut buffer = [0; 4];
    while let Some((offset, c)) = chars.next() {
        if offset >= body_end {
            break;
        }
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let bad = || FilterError::new(at + offset, "invalid escape");
        let (_, escape) = chars.next().ok_or_else(bad)?;
        let simple = match escape {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            'x' => number(&mut chars, 2, 16)
                .and_then(|n| u8::try_from(n).ok())
                .ok_or_else(bad)?,
            '0'..='7' => {
                let first = escape.to_digit(8).ok_or_else(bad)?;
                let rest = number(&mut chars, 2, 8).ok_or_else(bad)?;
                u8::try_from(first * 64 + rest).map_err(|_| bad())?
            }
            'u' | 'U' => {
                let digits = if escape == 'u' { 4 } else { 8 };
                let c = number(&mut chars, digits, 16)
                    .and_then(char::from_u32)
                    .ok_or_else(bad)?;
                bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                continue;
            }
            c if c == quote => {
                bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                continue;
            }
            _ => return Err(bad()),
        };
        bytes.push(simple);
    }
    Ok(bytes)
}

fn number(chars: &mut std::str::CharIndices<'_>, digits: usize, base: u32) -> Option<u32> {
    (0..digits).try_fold(0u32, |sum, _| {
        let digit = chars.next()?.1.to_digit(base)?;
        sum.checked_mul(base)?.checked_add(digit)
    })
}
