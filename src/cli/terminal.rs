//! The terminal of an interactive task: raw mode that always ends, its size, and the keys that detach.

use std::io::{IsTerminal, stdin};
use std::sync::Mutex;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The settings to go back to, where a panic finds them too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of standard input for as long as this lives; it ends with a panic too.
pub(crate) struct RawMode(());

impl RawMode {
    /// Enters raw mode. `None` when standard input is no terminal.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if let Ok(mut saved) = BEFORE.lock() {
            *saved = Some(before);
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            hook(panic);
        }));
        tcsetattr(stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let saved = match BEFORE.lock() {
        Ok(mut saved) => saved.take(),
        Err(poisoned) => poisoned.into_inner().take(),
    };
    if let Some(before) = saved {
        // Nothing better can be done for a terminal that is gone.
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &before);
    }
}

/// Columns and rows of the terminal at standard output; `None` when it is none.
#[allow(
    unsafe_code,
    reason = "the size of a terminal is only told by an ioctl"
)]
pub(crate) fn size() -> Option<(u16, u16)> {
    nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is only looked at by the kernel, and `size` is a live winsize it may fill.
    let told = unsafe { window_size(nix::libc::STDOUT_FILENO, &raw mut size) };
    told.ok().map(|_| (size.ws_col, size.ws_row))
}

/// Finds the detach keys in what is typed. Keys that turn out to be something else are passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or single characters; empty = nothing detaches.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|key| !key.is_empty()) {
            let byte = match key.as_bytes() {
                [byte] if byte.is_ascii() => *byte,
                [b'c', b't', b'r', b'l', b'-', byte] => match byte.to_ascii_lowercase() {
                    letter @ b'a'..=b'z' => letter - b'a' + 1,
                    b'@' => 0,
                    b'[' => 27,
                    b'\\' => 28,
                    b']' => 29,
                    b'^' => 30,
                    b'_' => 31,
                    _ => return Err(format!("{key:?} is no key")),
                },
                _ => {
                    return Err(format!(
                        "{key:?} is no key, expected one character or ctrl-<letter>"
                    ));
                }
            };
            keys.push(byte);
        }
        Ok(Self { keys, matched: 0 })
    }

    /// What of the input goes to the task, and whether the keys were typed in full (the rest is then dropped).
    pub(crate) fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            return (input.to_vec(), false);
        }
        for byte in input {
            // Fall back to the longest beginning of the keys that what was held back ends with.
            while self.matched > 0 && self.keys[self.matched] != *byte {
                let held = &self.keys[..self.matched];
                let keep = (1..self.matched)
                    .rev()
                    .find(|length| held.ends_with(&self.keys[..*length]))
                    .unwrap_or(0);
                passed.extend_from_slice(&held[..self.matched - keep]);
                self.matched = keep;
            }
            if self.keys[self.matched] == *byte {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_detach_and_nothing_else_is_lost() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.feed(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"\x10"), (vec![], false));
        assert_eq!(keys.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.feed(b"x\x10\x10"), (b"x\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11dropped"), (vec![], true));
        assert_eq!(keys.feed(b"\x11"), (b"\x11".to_vec(), false));

        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.feed(b"aaab"), (b"a".to_vec(), true));

        let mut none = DetachKeys::parse("").unwrap();
        assert_eq!(none.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn keys_have_names() {
        assert_eq!(
            DetachKeys::parse("ctrl-@,ctrl-_,x").unwrap().keys,
            [0, 31, b'x']
        );
        for text in ["ctrl-", "ctrl-1", "meta-x", "ctrl-pq", "ü"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
