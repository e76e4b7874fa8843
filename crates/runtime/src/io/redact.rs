//! Replaces secret values in output before it is stored.
//!
//! What may be the beginning of a value is left in the FIFO until the rest of it, or something else, or the end has come:
//! so a value that is written in pieces is found as well, and nothing is only in our memory. The price is that the bytes
//! pass through it: a kill of ours between storing a piece and taking it from the FIFO stores that piece twice.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

/// What a value becomes.
const INSTEAD: &[u8] = b"***";
/// Bytes of the longest value that is looked for; a FIFO holds more.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// Values and where they are looked for.
pub(crate) struct Redactor {
    /// Longest first; none is empty.
    values: Vec<Vec<u8>>,
    /// Holds a copy of what is in a FIFO for a moment.
    scratch: (OwnedFd, OwnedFd),
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

/// What can be stored now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cleaned {
    /// These bytes stand for the first `taken` of the FIFO, which are still in it.
    Bytes {
        /// To be stored.
        clean: Vec<u8>,
        /// To be taken.
        taken: usize,
    },
    /// Nothing as long as no more comes.
    Wait,
    /// The last writer is gone and the FIFO is empty.
    End,
}

impl Redactor {
    /// A redactor of these values; `None` when there is none to look for. Values longer than 16 KiB are cut: their
    /// beginning is found.
    pub(crate) fn new<'a>(
        values: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Option<Redactor>> {
        let cut = |value: &'a str| value.as_bytes()[..value.len().min(MAX_VALUE_BYTES)].to_vec();
        let mut values: Vec<Vec<u8>> = values
            .into_iter()
            .filter(|value| !value.is_empty())
            .map(cut)
            .collect();
        if values.is_empty() {
            return Ok(None);
        }
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        let scratch = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Some(Redactor { values, scratch }))
    }

    /// What of the FIFO, at most `limit` bytes, can be stored. Never waits; takes nothing.
    pub(super) fn look(&self, fifo: BorrowedFd<'_>, limit: usize) -> io::Result<Cleaned> {
        // Asked before: what a writer wrote before it went is in the FIFO then.
        let over = is_over(fifo)?;
        let copied = match tee(fifo, self.scratch.1.as_fd(), limit, SpliceFlags::NONBLOCK) {
            Ok(0) => return Ok(Cleaned::End),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Cleaned::Wait),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; copied];
        let mut filled = 0;
        while filled < copied {
            filled += rustix::io::read(&self.scratch.0, &mut bytes[filled..])?;
        }
        // A copy that is full has more behind it.
        let (clean, taken) = self.clean(&bytes, over && copied < limit);
        match taken {
            0 => Ok(Cleaned::Wait),
            taken => Ok(Cleaned::Bytes { clean, taken }),
        }
    }

    /// What the bytes become, and how many of them that stands for; `last`: nothing comes after them.
    fn clean(&self, bytes: &[u8], last: bool) -> (Vec<u8>, usize) {
        let mut clean = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            // The longest first: a value that begins with another one is that, not the other with a tail.
            let mut step = 0;
            for value in &self.values {
                if rest.starts_with(value) {
                    step = value.len();
                    break;
                }
                if !last && value.starts_with(rest) {
                    return (clean, at);
                }
            }
            if step > 0 {
                clean.extend_from_slice(INSTEAD);
                at += step;
            } else {
                clean.push(bytes[at]);
                at += 1;
            }
        }
        (clean, at)
    }
}

/// Whether nobody has the FIFO open for writing.
fn is_over(fifo: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::from_borrowed_fd(fifo, PollFlags::IN)];
    poll(&mut watched, Some(&rustix::event::Timespec::default()))?;
    Ok(watched[0].revents().contains(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(values: &[&str]) -> Redactor {
        Redactor::new(values.iter().copied()).unwrap().unwrap()
    }

    fn clean(of: &Redactor, text: &str, last: bool) -> (String, usize) {
        let (clean, taken) = of.clean(text.as_bytes(), last);
        (String::from_utf8(clean).unwrap(), taken)
    }

    #[test]
    fn values_are_replaced_and_what_may_become_one_waits() {
        let one = redactor(&["secret"]);
        assert_eq!(clean(&one, "a secret b", false), ("a *** b".to_owned(), 10));
        assert_eq!(clean(&one, "a secr", false), ("a ".to_owned(), 2));
        assert_eq!(clean(&one, "a secr", true), ("a secr".to_owned(), 6));
        assert_eq!(clean(&one, "sesecret", false), ("se***".to_owned(), 8));
        assert_eq!(
            clean(&one, "secretsecret", false),
            ("******".to_owned(), 12)
        );
        let nested = redactor(&["ab", "abcd"]);
        assert_eq!(clean(&nested, "xab", false), ("x".to_owned(), 1));
        assert_eq!(clean(&nested, "xabcd", false), ("x***".to_owned(), 5));
        assert_eq!(clean(&nested, "xabx", false), ("x***x".to_owned(), 4));
        assert!(Redactor::new(["", ""]).unwrap().is_none());
        assert!(!format!("{one:?}").contains("secret"));
    }

    #[test]
    fn a_fifo_is_looked_at_and_nothing_is_taken() {
        let one = redactor(&["secret"]);
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let look = || one.look(reader.as_fd(), 1024).unwrap();
        assert_eq!(look(), Cleaned::Wait);
        rustix::io::write(&writer, b"a sec").unwrap();
        let two = Cleaned::Bytes {
            clean: b"a ".to_vec(),
            taken: 2,
        };
        assert_eq!(look(), two);
        rustix::io::write(&writer, b"ret!").unwrap();
        assert_eq!(
            look(),
            Cleaned::Bytes {
                clean: b"a ***!".to_vec(),
                taken: 9
            }
        );
        rustix::io::read(&reader, &mut [0; 9]).unwrap();
        rustix::io::write(&writer, b"sec").unwrap();
        assert_eq!(look(), Cleaned::Wait);
        drop(writer);
        assert_eq!(
            look(),
            Cleaned::Bytes {
                clean: b"sec".to_vec(),
                taken: 3
            }
        );
        rustix::io::read(&reader, &mut [0; 3]).unwrap();
        assert_eq!(look(), Cleaned::End);
    }
}
