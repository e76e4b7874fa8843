//! From pieces of stored output to the lines that are sent.

use super::super::Stream;
use super::place::{Counts, Next};

/// A line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) stream: Stream,
    /// When its first byte was stored, in nanoseconds since the epoch.
    pub(super) time_ns: i64,
    /// The record of the stored output and the place in it where it begins: the same for the same line, however often it is
    /// sent.
    pub(super) from: Next,
    pub(super) bytes: Vec<u8>,
    /// Its end was cut off.
    pub(super) cut: bool,
}

/// One stream on its way to lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    longest: usize,
    bucket: Bucket,
    /// The line that has no end yet.
    begun: Option<Line>,
}

impl Lines {
    pub(super) fn new(stream: Stream, longest: u32, lines_per_second: u32) -> Lines {
        Lines {
            stream,
            longest: usize::try_from(longest).unwrap_or(usize::MAX),
            bucket: Bucket::new(lines_per_second),
            begun: None,
        }
    }

    /// Takes a piece that begins at `from`; puts what became whole to `out`. Answers with the first byte that did not.
    pub(super) fn take(
        &mut self,
        from: Next,
        time_ns: i64,
        piece: &[u8],
        counts: &mut Counts,
        out: &mut Vec<Line>,
    ) -> Next {
        let after = |bytes: usize| Next {
            sequence: from.sequence,
            skip: from.skip + bytes,
        };
        let mut at = 0;
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let (stream, longest) = (self.stream, self.longest);
            let line = self.begun.get_or_insert_with(|| Line {
                stream,
                time_ns,
                from: after(at),
                bytes: Vec::new(),
                cut: false,
            });
            let room = longest - line.bytes.len().min(longest);
            line.bytes.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() > room {
                line.cut = true;
                counts.cut_bytes += (text.len() - room) as u64;
            }
            at += part.len();
            if part.len() > text.len() {
                self.end(counts, out);
            }
        }
        // What was cut off a line without an end is not looked at again.
        self.begun
            .as_ref()
            .map_or(after(piece.len()), |line| line.from)
    }

    /// The stream is at its end: so is its last line.
    pub(super) fn end(&mut self, counts: &mut Counts, out: &mut Vec<Line>) {
        let Some(line) = self.begun.take() else {
            return;
        };
        match self.bucket.has(line.time_ns) {
            true => out.push(line),
            false => counts.dropped += 1,
        }
    }
}

/// Lines that may be sent: by the time they were stored, so that what is sent late is judged as it would have been.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    left: f64,
    seen_ns: i64,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        Bucket {
            per_second,
            left: per_second.into(),
            seen_ns: i64::MIN,
        }
    }

    fn has(&mut self, time_ns: i64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let passed = std::time::Duration::from_nanos(
            u64::try_from(time_ns.saturating_sub(self.seen_ns)).unwrap_or(0),
        );
        self.seen_ns = self.seen_ns.max(time_ns);
        let most = f64::from(self.per_second);
        self.left = (self.left + passed.as_secs_f64() * most).min(most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(sequence: u64, skip: usize) -> Next {
        Next { sequence, skip }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines
            .iter()
            .map(|line| std::str::from_utf8(&line.bytes).unwrap())
            .collect()
    }

    #[test]
    fn lines_go_over_pieces_and_the_place_is_that_of_the_unsent() {
        let (mut lines, mut counts, mut out) = (
            Lines::new(Stream::Out, 100, 0),
            Counts::default(),
            Vec::new(),
        );
        assert_eq!(
            lines.take(next(4, 0), 1, b"one\ntw", &mut counts, &mut out),
            next(4, 4)
        );
        assert_eq!(texts(&out), ["one"]);
        assert_eq!(
            lines.take(next(6, 0), 2, b"o", &mut counts, &mut out),
            next(4, 4)
        );
        assert_eq!(
            lines.take(next(7, 0), 3, b"\n\n", &mut counts, &mut out),
            next(7, 2)
        );
        assert_eq!(texts(&out), ["one", "two", ""]);
        assert_eq!((out[1].from, out[1].time_ns), (next(4, 4), 1));
        lines.take(next(8, 0), 4, b"last", &mut counts, &mut out);
        lines.end(&mut counts, &mut out);
        assert_eq!(texts(&out), ["one", "two", "", "last"]);
        assert_eq!(counts, Counts::default());
    }

    #[test]
    fn a_long_line_is_cut_and_counted() {
        let (mut lines, mut counts, mut out) =
            (Lines::new(Stream::Err, 4, 0), Counts::default(), Vec::new());
        lines.take(next(0, 0), 1, b"abcdef", &mut counts, &mut out);
        lines.take(next(1, 0), 1, b"gh\nij\n", &mut counts, &mut out);
        assert_eq!(texts(&out), ["abcd", "ij"]);
        assert_eq!((out[0].cut, out[1].cut, counts.cut_bytes), (true, false, 4));
    }

    #[test]
    fn too_many_lines_are_dropped_and_counted() {
        const SECOND: i64 = 1_000_000_000;
        let (mut lines, mut counts, mut out) = (
            Lines::new(Stream::Out, 100, 2),
            Counts::default(),
            Vec::new(),
        );
        lines.take(next(0, 0), SECOND, b"1\n2\n3\n4\n", &mut counts, &mut out);
        lines.take(
            next(1, 0),
            SECOND + SECOND / 2,
            b"5\n6\n",
            &mut counts,
            &mut out,
        );
        assert_eq!(texts(&out), ["1", "2", "5"]);
        assert_eq!(counts.dropped, 3);
    }
}
