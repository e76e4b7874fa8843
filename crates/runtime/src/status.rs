//! The status FIFO of an executor, on our side: what init says about the primary. The format is described in `crates/init`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use crate::io::{Readiness, Source};

/// A record is shorter than this; more without a newline is not from init.
const LINE_BYTES: usize = 256;

/// How the primary is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing was said yet.
    Nothing,
    /// The program runs.
    Started,
    /// The program could not be started: errno.
    Failed(i32),
    /// It returned a code.
    Exit(i32),
    /// A signal killed it.
    Signal(i32),
}

impl Word {
    /// True when the primary is not and will not be running.
    pub(crate) fn is_end(self) -> bool {
        !matches!(self, Word::Nothing | Word::Started)
    }
}

/// Reads the FIFO. Records that do not carry the token are from the tasks and are ignored.
pub(crate) struct Status {
    fifo: OwnedFd,
    token: String,
    line: Mutex<Vec<u8>>,
    word: watch::Sender<Word>,
    /// init said that it ends too.
    last: AtomicBool,
}

impl Status {
    /// Over a FIFO that is open for reading and writing.
    pub(crate) fn new(fifo: OwnedFd, token: String) -> Status {
        Status {
            fifo,
            token,
            line: Mutex::new(Vec::new()),
            word: watch::Sender::new(Word::Nothing),
            last: AtomicBool::new(false),
        }
    }

    /// The latest word, and every later one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Word> {
        self.word.subscribe()
    }

    /// The latest word after reading everything that has been written by now.
    pub(crate) fn now(&self) -> Word {
        self.read();
        *self.word.borrow()
    }

    /// Whether init itself ends, and with it the container: no further task goes on in it.
    pub(crate) fn init_ends(&self) -> bool {
        self.last.load(Ordering::Acquire)
    }

    fn take(&self, line: &[u8]) {
        let Some((word, line)) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| Some((parse(line, &self.token)?, line)))
        else {
            return;
        };
        if word.is_end() && line.ends_with(" last") {
            self.last.store(true, Ordering::Release);
        }
        // The end is the last word.
        self.word.send_if_modified(|current| {
            let news = !current.is_end() && *current != word;
            if news {
                *current = word;
            }
            news
        });
    }
}

impl Source for Status {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }

    fn read(&self) -> Readiness {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 4096];
        // At most one FIFO full per turn, so that a task that floods it holds nobody up.
        for _ in 0..16 {
            let Ok(count) = rustix::io::read(&self.fifo, &mut bytes) else {
                break;
            };
            if count == 0 {
                break;
            }
            for &byte in &bytes[..count] {
                if byte == b'\n' {
                    self.take(&line);
                    line.clear();
                } else if line.len() < LINE_BYTES {
                    line.push(byte);
                }
            }
        }
        Readiness::Goes
    }
}

fn parse(line: &str, token: &str) -> Option<Word> {
    let mut fields = line.split(' ');
    if fields.next() != Some(token) {
        return None;
    }
    let word = fields.next()?;
    if word == "started" {
        return Some(Word::Started);
    }
    let number = fields.next()?.parse().ok()?;
    match word {
        "exit" => Some(Word::Exit(number)),
        "signal" => Some(Word::Signal(number)),
        "failed" => Some(Word::Failed(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_records_count() {
        assert_eq!(parse("t exit 3 last", "t"), Some(Word::Exit(3)));
        assert_eq!(parse("t signal 9 others", "t"), Some(Word::Signal(9)));
        assert_eq!(parse("t failed 2 last", "t"), Some(Word::Failed(2)));
        assert_eq!(parse("t started", "t"), Some(Word::Started));
        for forged in [
            "x exit 0 last",
            "exit 0 last",
            "t exit",
            "t exit x",
            "t",
            "",
            "t other 1",
        ] {
            assert_eq!(parse(forged, "t"), None, "{forged}");
        }
    }

    #[test]
    fn the_end_is_the_last_word_and_noise_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status");
        crate::io::make_fifo(&path, 0o622).unwrap();
        let status = Status::new(crate::io::open_both(&path).unwrap(), "t".into());
        std::fs::write(
            &path,
            [
                &[0xff; 600][..],
                b"\nt started\nt exit 4 last\nt exit 0 last\n",
            ]
            .concat(),
        )
        .unwrap();
        assert_eq!(status.now(), Word::Exit(4));
        assert!(status.init_ends());
    }
}
