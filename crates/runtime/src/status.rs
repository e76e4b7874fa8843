//! The status FIFO of an executor, on our side: what init says about the primary. The format is described in `crates/init`.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use tokio::sync::watch;

use crate::io::{Readiness, Source};

/// A record is shorter than this; more without a newline is not from init.
const LINE_BYTES: usize = 256;
/// Looked at in one turn: the capacity of a FIFO.
const TURN_BYTES: usize = 64 << 10;

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
///
/// init says how the primary ended once, and goes on for others. So its word is looked at while it still is in the FIFO,
/// stored, and only then taken out: at no moment only our memory has it.
pub(crate) struct Status {
    fifo: OwnedFd,
    /// What is in the FIFO is duplicated into this pipe to be looked at.
    copy: (OwnedFd, OwnedFd),
    token: String,
    /// Where the word of the end is stored.
    kept: PathBuf,
    line: Mutex<Vec<u8>>,
    word: watch::Sender<Word>,
    /// init said that it ends too.
    last: AtomicBool,
}

impl Status {
    /// Over a FIFO that is open for reading and writing; `kept` is the file of the last word, which may be there already.
    pub(crate) fn new(fifo: OwnedFd, token: String, kept: &Path) -> io::Result<Status> {
        let line = match fs::read_to_string(kept) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            line => line?,
        };
        let (told, last) = (parse(&line, &token), line.ends_with(" last"));
        Ok(Status {
            fifo,
            copy: pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
            token,
            kept: kept.to_owned(),
            line: Mutex::new(Vec::new()),
            last: AtomicBool::new(last),
            word: watch::Sender::new(told.unwrap_or(Word::Nothing)),
        })
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
        if word.is_end() && !self.word.borrow().is_end() {
            // When it cannot be stored it is told all the same: only our death before the exit is recorded would lose it.
            if let Err(error) = self.keep(line) {
                tracing::warn!(%error, file = %self.kept.display(), "the end of a task is not stored");
            }
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

    /// Written beside and renamed: the whole word or none.
    fn keep(&self, line: &str) -> io::Result<()> {
        let new = self.kept.with_extension("new");
        fs::write(&new, line)?;
        fs::rename(new, &self.kept)
    }

    /// Duplicates what is in the FIFO and takes the words from the copy; how many bytes there were.
    fn look(&self, line: &mut Vec<u8>) -> usize {
        let Ok(there) = tee(&self.fifo, &self.copy.1, TURN_BYTES, SpliceFlags::NONBLOCK) else {
            return 0;
        };
        let mut left = there;
        let mut bytes = [0; 4096];
        while left > 0 {
            let part = left.min(bytes.len());
            let Ok(count @ 1..) = rustix::io::read(&self.copy.0, &mut bytes[..part]) else {
                break;
            };
            left -= count;
            for &byte in &bytes[..count] {
                if byte == b'\n' {
                    self.take(line);
                    line.clear();
                } else if line.len() < LINE_BYTES {
                    line.push(byte);
                }
            }
        }
        there
    }

    fn take_out(&self, mut count: usize) {
        let mut bytes = [0; 4096];
        while count > 0 {
            let part = count.min(bytes.len());
            let Ok(read @ 1..) = rustix::io::read(&self.fifo, &mut bytes[..part]) else {
                return;
            };
            count -= read;
        }
    }
}

impl Source for Status {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }

    fn read(&self) -> Readiness {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // One FIFO full per turn, so that a task that floods it holds nobody up.
        let there = self.look(&mut line);
        portlayer::crash::point("status.before-take");
        self.take_out(there);
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

    fn status(directory: &Path) -> (PathBuf, Status) {
        let path = directory.join("status");
        crate::io::make_fifo(&path, 0o622).unwrap();
        let fifo = crate::io::open_both(&path).unwrap();
        let status = Status::new(fifo, "t".into(), &directory.join("word")).unwrap();
        (path, status)
    }

    #[test]
    fn the_end_outlives_whoever_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, first) = status(directory.path());
        std::fs::write(&path, "t started\nt exit 4 others\n").unwrap();
        assert_eq!(first.now(), Word::Exit(4));
        let mut rest = [0; 1];
        assert!(
            rustix::io::read(&first.fifo, &mut rest).is_err(),
            "it was taken out"
        );
        drop(first);
        let (_, second) = status(directory.path());
        assert_eq!(*second.subscribe().borrow(), Word::Exit(4));
    }

    #[test]
    fn the_end_is_the_last_word_and_noise_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let (path, status) = status(directory.path());
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
