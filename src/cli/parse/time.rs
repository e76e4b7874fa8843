//! Durations and points in time.

use std::time::Duration;

use portlayer::time::Timestamp;

/// A duration: `10s`, `1h 30m`, `250ms`, or a bare number of seconds as docker's `--stop-timeout` has it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration as in 10s, 250ms or 1h30m: {error}"))
}

/// A point in time: RFC 3339, Unix seconds (`1700000000`, `1700000000.5`), or that long ago (`10m`).
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let expected = "expected a time as in 2026-01-31T12:00:00Z, 1700000000 or 10m";
    let nanos = if let Ok(time) = text.parse::<jiff::Timestamp>() {
        i64::try_from(time.as_nanosecond()).ok()
    } else if text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        unix(text)
    } else {
        let ago = humantime::parse_duration(text).map_err(|_| expected.to_owned())?;
        i64::try_from(ago.as_nanos())
            .ok()
            .and_then(|ago| now.as_nanos().checked_sub(ago))
    };
    nanos
        .map(Timestamp::from_nanos)
        .ok_or_else(|| expected.to_owned())
}

fn unix(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "-1", "ten", "1y1", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments() {
        let now = Timestamp::from_nanos(1_700_000_600_000_000_000);
        for text in [
            "2023-11-14T22:13:20Z",
            "1700000000",
            "1700000000.0",
            "10m",
            "2023-11-14T23:13:20+01:00",
        ] {
            assert_eq!(
                moment(text, now),
                Ok(Timestamp::from_nanos(1_700_000_000_000_000_000)),
                "{text}"
            );
        }
        assert_eq!(moment("0.000000001", now), Ok(Timestamp::from_nanos(1)));
        for text in [
            "",
            "yesterday",
            "1.2.3",
            "99999999999999",
            "2023-11-14",
            "-5",
        ] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }
}
