//! Signals by name or number.

use nix::sys::signal::Signal;

/// The number of a signal: `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        // The kernel knows 1 to 64; real-time ones have no name here.
        return (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(|| format!("{number} is no signal, expected 1 to 64"));
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    name.parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| format!("{text:?} is no signal, expected a name as in TERM or a number"))
}

/// The name of a signal for people: `SIGTERM`, or the number where it has none.
pub(crate) fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(signal(text), Ok(15), "{text}");
        }
        assert_eq!(signal("64"), Ok(64));
        for text in ["", "0", "65", "-9", "SIGNOPE", "SIGSIGTERM"] {
            assert!(signal(text).is_err(), "{text}");
        }
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "signal 40");
    }
}
