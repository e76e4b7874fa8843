//! Stored output of tasks.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::RuntimeError;
use crate::element::ElementId;
use crate::time::Timestamp;

/// Which log to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogQuery {
    /// The executor.
    pub executor: ElementId,
    /// The task.
    pub task: ElementId,
    /// Standard output, standard error, or both in the order stored.
    pub streams: LogStreams,
    /// Only lines stored at or after this time.
    pub since: Option<Timestamp>,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Go on until the task has ended and all is read.
    pub follow: bool,
}

impl LogQuery {
    /// All that is stored of a task's output, both streams, without following.
    pub fn new(executor: &ElementId, task: &ElementId) -> Self {
        Self {
            executor: executor.clone(),
            task: task.clone(),
            streams: LogStreams::Both,
            since: None,
            tail: None,
            follow: false,
        }
    }

    /// The same, going on until the task has ended.
    #[must_use]
    pub fn follow(self) -> Self {
        Self {
            follow: true,
            ..self
        }
    }
}

/// Which streams of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStreams {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both.
    Both,
}

/// One piece of stored output, bytes exactly as written by the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// True for standard error.
    pub stderr: bool,
    /// When it was stored.
    pub time: Timestamp,
    /// Place in the log, from 0, over both streams.
    pub sequence: u64,
    /// The bytes; none when nothing came after a loss.
    pub bytes: Vec<u8>,
    /// Bytes lost just before this chunk (rotated away or not storable).
    pub lost_bytes: u64,
}

/// What became of the output of all tasks since the runtime was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Bytes stored.
    pub stored_bytes: u64,
    /// Bytes dropped because they could not be stored.
    pub dropped_bytes: u64,
}

/// How far a log has got with the stored output of a task, and what of it the log never gets. It counts over all runs of the
/// task, and over restarts of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProgress {
    /// The log.
    pub log: ElementId,
    /// Lines that were sent.
    pub sent_lines: u64,
    /// Lines beyond its rate, dropped.
    pub dropped_lines: u64,
    /// Bytes beyond its longest line, dropped.
    pub cut_bytes: u64,
    /// Bytes that were rotated away, or could not be stored, before they were sent.
    pub lost_bytes: u64,
    /// All there is was sent, and nobody writes any more.
    pub done: bool,
}

/// A stream of log chunks. Ends when all is read (or, following, when the task ended and all is read).
pub type LogReader = Pin<Box<dyn futures::Stream<Item = Result<LogChunk, RuntimeError>> + Send>>;
