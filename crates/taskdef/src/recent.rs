//! The newest lines of every log stream, in memory: for those who look at them while they are new. A log system takes
//! them from a [`LogSink`] of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::log::{LogLine, LogSink};

/// Lines kept of a stream.
const LINES: usize = 1000;
/// Streams kept; of more the one that was silent longest is forgotten.
const STREAMS: usize = 256;
/// Lines a follower may be behind before it is told that it lost some.
const BEHIND: usize = 4096;

/// Keeps the newest lines. Cheap to share.
pub struct Recent {
    streams: Mutex<Streams>,
    lines: broadcast::Sender<LogLine>,
}

#[derive(Default)]
struct Streams {
    by_name: HashMap<Arc<str>, Stream>,
    clock: u64,
}

#[derive(Default)]
struct Stream {
    lines: VecDeque<LogLine>,
    touched: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            streams: Mutex::default(),
            lines: broadcast::channel(BEHIND).0,
        }
    }
}

impl Recent {
    /// The newest lines of a stream, the oldest first, and every further line of all streams.
    pub fn follow(&self, stream: &str) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        // Under the lock lines are added in: none is missed and none is there twice.
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.lines.subscribe();
        let lines = streams.by_name.get(stream);
        let lines = lines.map(|stream| stream.lines.iter().cloned().collect());
        (lines.unwrap_or_default(), more)
    }
}

impl LogSink for Recent {
    fn emit(&self, line: LogLine) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.clock += 1;
        let clock = streams.clock;
        if streams.by_name.len() >= STREAMS && !streams.by_name.contains_key(&line.stream) {
            let oldest = streams
                .by_name
                .iter()
                .min_by_key(|(_, stream)| stream.touched);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                streams.by_name.remove(&oldest);
            }
        }
        let stream = streams.by_name.entry(line.stream.clone()).or_default();
        stream.touched = clock;
        if stream.lines.len() == LINES {
            stream.lines.pop_front();
        }
        stream.lines.push_back(line.clone());
        // Without followers nobody needs to know.
        let _ = self.lines.send(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, text: &str) -> LogLine {
        LogLine {
            stream: stream.into(),
            source: "s".into(),
            stderr: false,
            time: portlayer::time::Timestamp::now(),
            text: text.to_owned(),
            tags: Arc::default(),
        }
    }

    #[test]
    fn the_newest_are_kept_and_followers_get_the_rest() {
        let recent = Recent::default();
        for number in 0..LINES + 5 {
            recent.emit(line("a", &number.to_string()));
        }
        let (lines, mut more) = recent.follow("a");
        assert_eq!((lines.len(), lines[0].text.as_str()), (LINES, "5"));
        recent.emit(line("a", "new"));
        assert_eq!(more.try_recv().unwrap().text, "new");
        for number in 0..STREAMS {
            recent.emit(line(&format!("b{number}"), "x"));
        }
        assert!(recent.follow("a").0.is_empty(), "silent longest");
        assert_eq!(recent.follow("b0").0.len(), 1);
    }
}
