//! Sizes as Diego's log lines write them (`bytefmt`): powers of 1024, one decimal, none when it is 0.

/// `14B`, `1.5K`, `10M`.
pub(crate) fn shown(bytes: u64) -> String {
    const UNITS: [(u64, char); 5] = [
        (1 << 50, 'P'),
        (1 << 40, 'T'),
        (1 << 30, 'G'),
        (1 << 20, 'M'),
        (1 << 10, 'K'),
    ];
    let Some((unit, letter)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    // Tenths, rounded half up: exact in integers.
    let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
    match tenths % 10 {
        0 => format!("{}{letter}", tenths / 10),
        rest => format!("{}.{rest}{letter}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (14, "14B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.5K"),
            (10 << 20, "10M"),
            ((3 << 30) / 2, "1.5G"),
        ] {
            assert_eq!(super::shown(bytes), text);
        }
    }
}
