//! Where output of tasks and messages about them go: split into lines, marked with their source, bounded in rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portlayer::time::Timestamp;

use crate::plan::Logs;

/// The longest line, in bytes; longer ones are split at a character.
pub const MAX_LINE_BYTES: usize = 61_440;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// The stream it belongs to.
    pub stream: Arc<str>,
    /// What said it.
    pub source: Arc<str>,
    /// True for standard error.
    pub stderr: bool,
    /// When it was seen.
    pub time: Timestamp,
    /// The line, without its end; what is not UTF-8 is replaced.
    pub text: String,
    /// Tags of the stream.
    pub tags: Arc<BTreeMap<String, String>>,
}

/// Takes lines. Called from many tasks at once; it must not block and it cannot fail: what it cannot keep it counts.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one line.
    fn emit(&self, line: LogLine);
}

/// Throws lines away.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn emit(&self, _line: LogLine) {}
}

/// Writes the lines of one run, for one source. Cloning shares the bound of the rate.
#[derive(Clone)]
pub struct Streamer {
    sink: Arc<dyn LogSink>,
    /// `None` = nothing is logged.
    stream: Option<Arc<str>>,
    tags: Arc<BTreeMap<String, String>>,
    source: Arc<str>,
    rate: Option<Arc<Mutex<Rate>>>,
}

impl Streamer {
    /// The streamer of a plan, for messages about the container.
    pub fn new(sink: Arc<dyn LogSink>, logs: &Logs) -> Self {
        Self {
            sink,
            stream: logs.stream.as_deref().map(Into::into),
            tags: Arc::new(logs.tags.clone()),
            source: logs.source.as_str().into(),
            rate: logs
                .bytes_per_second
                .map(|bytes| Arc::new(Mutex::new(Rate::new(bytes)))),
        }
    }

    /// The same for another source.
    #[must_use]
    pub fn source(&self, source: &str) -> Self {
        Self {
            source: source.into(),
            ..self.clone()
        }
    }

    /// The name of the source.
    pub fn name(&self) -> &str {
        &self.source
    }

    /// Whether lines go anywhere.
    pub fn is_silent(&self) -> bool {
        self.stream.is_none()
    }

    /// Writes text to standard output, line by line.
    pub fn stdout(&self, text: &str) {
        self.write(false, text.as_bytes());
    }

    /// Writes text to standard error, line by line.
    pub fn stderr(&self, text: &str) {
        self.write(true, text.as_bytes());
    }

    fn write(&self, stderr: bool, bytes: &[u8]) {
        let mut splitter = Splitter::default();
        splitter.push(bytes, |line| self.line(stderr, line));
        splitter.finish(|line| self.line(stderr, line));
    }

    /// Writes one line.
    pub(crate) fn line(&self, stderr: bool, bytes: &[u8]) {
        let Some(stream) = &self.stream else { return };
        let text = match &self.rate {
            None => String::from_utf8_lossy(bytes).into_owned(),
            Some(rate) => {
                let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
                match rate.take(bytes.len(), Instant::now()) {
                    Taken::Yes => String::from_utf8_lossy(bytes).into_owned(),
                    Taken::No => return,
                    Taken::Exceeded(limit) => {
                        format!("app instance exceeded log rate limit ({limit} bytes/sec)")
                    }
                }
            }
        };
        self.sink.emit(LogLine {
            stream: stream.clone(),
            source: self.source.clone(),
            stderr,
            time: Timestamp::now(),
            text,
            tags: self.tags.clone(),
        });
    }
}

/// A bound of bytes in each second. Beyond it nothing is taken for a second.
struct Rate {
    bytes_per_second: u64,
    left: u64,
    since: Option<Instant>,
    silent_until: Option<Instant>,
}

enum Taken {
    Yes,
    No,
    /// This line is the first too many: say so instead.
    Exceeded(u64),
}

impl Rate {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            left: bytes_per_second,
            since: None,
            silent_until: None,
        }
    }

    fn take(&mut self, bytes: usize, now: Instant) -> Taken {
        if self.bytes_per_second == 0 || self.silent_until.is_some_and(|until| now < until) {
            return Taken::No;
        }
        let second = Duration::from_secs(1);
        if self.since.is_none_or(|since| now - since >= second) {
            self.since = Some(now);
            self.left = self.bytes_per_second;
        }
        self.silent_until = None;
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Taken::Yes
            }
            None => {
                self.silent_until = Some(now + second);
                Taken::Exceeded(self.bytes_per_second)
            }
        }
    }
}

/// Splits bytes into lines at newline and carriage return; empty lines are dropped, long ones split.
#[derive(Default)]
pub(crate) struct Splitter(Vec<u8>);

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.finish(&mut line);
                continue;
            }
            self.0.push(*byte);
            if self.0.len() > MAX_LINE_BYTES {
                let rest = self.0.split_off(boundary(&self.0));
                line(&self.0);
                self.0 = rest;
            }
        }
    }

    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            line(&self.0);
            self.0.clear();
        }
    }
}

/// The end of the last whole character within [`MAX_LINE_BYTES`].
fn boundary(bytes: &[u8]) -> usize {
    let is_middle = |byte: u8| byte & 0xc0 == 0x80;
    let mut at = MAX_LINE_BYTES;
    // A character has at most three bytes after its first; what goes on longer is no text.
    while at > MAX_LINE_BYTES - 4 && is_middle(bytes[at]) {
        at -= 1;
    }
    if is_middle(bytes[at]) {
        MAX_LINE_BYTES
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| found.push(line.to_vec()));
        }
        splitter.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_end_at_newline_and_carriage_return() {
        assert_eq!(
            lines(&[b"a\r\n\nb", b"c\rd"]),
            [b"a".to_vec(), b"bc".to_vec(), b"d".to_vec()]
        );
        assert!(lines(&[b"\n\r\n"]).is_empty());
    }

    #[test]
    fn long_lines_are_split_at_a_character_and_nothing_is_lost() {
        let text = format!("{}é{}", "x".repeat(MAX_LINE_BYTES - 1), "y".repeat(10));
        let found = lines(&[text.as_bytes()]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].len(), MAX_LINE_BYTES - 1);
        assert!(std::str::from_utf8(&found[1]).unwrap().starts_with('é'));
        assert_eq!(found.concat(), text.as_bytes());
        let noise = vec![0x80u8; 2 * MAX_LINE_BYTES + 5];
        assert_eq!(lines(&[&noise]).concat(), noise);
    }

    #[test]
    fn too_much_is_said_once_and_then_nothing_for_a_second() {
        let mut rate = Rate::new(10);
        let start = Instant::now();
        assert!(matches!(rate.take(10, start), Taken::Yes));
        assert!(matches!(rate.take(1, start), Taken::Exceeded(10)));
        assert!(matches!(rate.take(1, start), Taken::No));
        assert!(matches!(
            rate.take(1, start + Duration::from_millis(1001)),
            Taken::Yes
        ));
        assert!(matches!(Rate::new(0).take(0, start), Taken::No));
    }
}
