//! Sizes in bytes as people write them.

use thiserror::Error;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Not a number followed by a unit.
    #[error("expected bytes as in 4096, 64k, 512MiB or 1.5G, not {0:?}")]
    Malformed(String),
    /// More than fits.
    #[error("{0:?} is more than 2^64 bytes")]
    TooLarge(String),
}

/// Reads a size: a number and one of nothing or `b` (bytes), `k m g t` with or without `b` or `ib`, in any case.
/// All units are powers of 1024, as docker's `--memory` has them. Fractions are allowed before a unit.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(malformed()),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if shift > 0 && !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(malformed()),
        None => (number, ""),
    };
    if whole.is_empty() || fraction.len() > 6 || fraction.contains('.') {
        return Err(malformed());
    }
    let too_large = || SizeError::TooLarge(text.to_owned());
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(6));
    let fraction: u128 = match fraction {
        "" => 0,
        digits => digits.parse().map_err(|_| malformed())?,
    };
    let unit = 1u128 << shift;
    let bytes = whole
        .checked_mul(unit)
        .and_then(|bytes| bytes.checked_add(fraction * unit / scale))
        .ok_or_else(too_large)?;
    u64::try_from(bytes).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10b", 10),
            ("64k", 64 << 10),
            ("64KiB", 64 << 10),
            ("512MiB", 512 << 20),
            ("1.5G", 3 << 29),
            ("0.25g", 1 << 28),
            (" 2 tb ", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "k", "-1", "1x", "1.5", ".5g", "1.g", "1.2.3g", "1e3", "0x10", "١k",
        ] {
            assert!(
                matches!(parse_size(text), Err(SizeError::Malformed(_))),
                "{text}"
            );
        }
        for text in [
            "18446744073709551616",
            "16777216t",
            "99999999999999999999999999999999999999999k",
        ] {
            assert!(
                matches!(parse_size(text), Err(SizeError::TooLarge(_))),
                "{text}"
            );
        }
    }
}
