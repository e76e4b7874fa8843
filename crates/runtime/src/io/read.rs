//! Reads logs while they are written and after.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use portlayer::{
    runtime::{LogChunk, LogQuery, LogReader, LogStreams, RuntimeError},
    time::Timestamp,
};
use tokio::sync::watch;

use super::{
    log::Logs,
    segment::{self, ENTRY_BYTES, Entry, Stream},
};
use crate::error::failed;

/// Records read at once; each piece is at most 64 KiB, most are a line.
const BATCH: usize = 32;

/// Starts to read. A log that does not exist is empty.
pub(crate) fn reader(logs: &Logs, query: &LogQuery) -> LogReader {
    let directory = logs.directory(&query.executor, &query.task);
    // Taken before anything is read: a piece stored in between is signalled.
    let watch = query.follow.then(|| logs.watch(&directory)).flatten();
    let object = query.task.to_string();
    let cursor = Cursor::new(directory, query.streams);
    let start = Start {
        tail: query.tail,
        since: query.since,
    };
    let state = (Some((cursor, Some(start))), watch, Vec::new().into_iter());
    Box::pin(futures::stream::try_unfold(
        state,
        move |(mut cursor, mut watch, mut ready)| {
            let object = object.clone();
            async move {
                loop {
                    if let Some(chunk) = ready.next() {
                        return Ok(Some((chunk, (cursor, watch, ready))));
                    }
                    // Asked before reading, so that a writer that ends in between has been read completely.
                    let over = match &mut watch {
                        Some(watch) => {
                            watch.mark_unchanged();
                            watch.has_changed().is_err()
                        }
                        None => true,
                    };
                    let Some((moved, start)) = cursor.take() else {
                        return Ok(None);
                    };
                    let (batch, back) = read_batch(moved, start, object.clone()).await?;
                    cursor = Some((back, None));
                    if batch.is_empty() {
                        if over {
                            return Ok(None);
                        }
                        wait(&mut watch).await;
                    }
                    ready = batch.into_iter();
                }
            }
        },
    ))
}

async fn wait(watch: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = watch
        && receiver.changed().await.is_err()
    {
        // The last writer is gone; one more look, then it is over.
        *watch = None;
    }
}

async fn read_batch(
    mut cursor: Cursor,
    start: Option<Start>,
    object: String,
) -> Result<(Vec<LogChunk>, Cursor), RuntimeError> {
    let read = tokio::task::spawn_blocking(move || {
        if let Some(start) = start {
            cursor.seek(start)?;
        }
        let batch = cursor.next_batch()?;
        Ok((batch, cursor))
    });
    match read.await {
        Ok(result) => result.map_err(failed("read log of", object)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Where a reader begins.
struct Start {
    tail: Option<usize>,
    since: Option<Timestamp>,
}

/// A place in a log.
struct Cursor {
    directory: PathBuf,
    streams: LogStreams,
    segment: u64,
    /// Records of the segment already read.
    record: u64,
    /// Bytes of the next piece to leave out.
    skip: usize,
    /// Bytes of the log before the next piece, when nothing was rotated away.
    position: Option<u64>,
}

impl Cursor {
    fn new(directory: PathBuf, streams: LogStreams) -> Cursor {
        Cursor {
            directory,
            streams,
            segment: 0,
            record: 0,
            skip: 0,
            position: Some(0),
        }
    }

    fn wants(&self, stream: Stream) -> bool {
        match self.streams {
            LogStreams::Stdout => stream == Stream::Out,
            LogStreams::Stderr => stream == Stream::Err,
            LogStreams::Both => true,
        }
    }

    /// Goes to the first line at or after `since`, and then to the last `tail` lines of those.
    fn seek(&mut self, start: Start) -> io::Result<()> {
        if start.tail.is_none() && start.since.is_none() {
            return Ok(());
        }
        let mut found: Vec<(u64, u64, Entry)> = Vec::new();
        for segment in list(&self.directory)? {
            let entries = match segment::entries(&self.directory, segment) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            (self.segment, self.record) = (segment, entries.len() as u64);
            for (number, entry) in (0u64..).zip(entries) {
                if self.wants(entry.stream)
                    && start
                        .since
                        .is_none_or(|since| entry.time_ns >= since.as_nanos())
                {
                    found.push((segment, number, entry));
                }
            }
        }
        self.position = None;
        let Some(tail) = start.tail else {
            if let Some((segment, record, _)) = found.first() {
                (self.segment, self.record) = (*segment, *record);
            }
            return Ok(());
        };
        let mut lines = tail;
        let mut is_last_byte = true;
        for (segment, record, entry) in found.iter().rev() {
            if tail == 0 {
                break;
            }
            let Some(bytes) = self.bytes(*segment, entry)? else {
                break;
            };
            (self.segment, self.record, self.skip) = (*segment, *record, 0);
            for (at, &byte) in bytes.iter().enumerate().rev() {
                // The newline at the very end closes the last line and begins no other.
                if byte == b'\n' && !is_last_byte {
                    lines -= 1;
                    if lines == 0 {
                        self.skip = at + 1;
                        return Ok(());
                    }
                }
                is_last_byte = false;
            }
        }
        Ok(())
    }

    /// The next pieces; none when all is read.
    fn next_batch(&mut self) -> io::Result<Vec<LogChunk>> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let entries = self.next_entries()?;
            if entries.is_empty() {
                // A later segment is begun only when this one gets no more.
                match list(&self.directory)?
                    .into_iter()
                    .find(|&segment| segment > self.segment)
                {
                    Some(next) if self.next_entries()?.is_empty() => {
                        (self.segment, self.record) = (next, 0)
                    }
                    Some(_) => {}
                    None => return Ok(batch),
                }
                continue;
            }
            for entry in entries {
                self.record += 1;
                let skip = std::mem::take(&mut self.skip);
                // Without bytes it tells what was dropped at the end, of both.
                if !self.wants(entry.stream) && entry.length > 0 {
                    if let Some(position) = &mut self.position {
                        *position += u64::from(entry.length);
                    }
                    continue;
                }
                // Rotated away between the two looks: counted with the next piece.
                let Some(bytes) = self.bytes(self.segment, &entry)? else {
                    continue;
                };
                let rotated = self
                    .position
                    .map_or(0, |position| entry.position.saturating_sub(position));
                self.position = Some(entry.position + u64::from(entry.length));
                let bytes = bytes.get(skip..).unwrap_or_default().to_vec();
                let lost_bytes = entry.lost + rotated;
                if bytes.is_empty() && lost_bytes == 0 {
                    continue;
                }
                batch.push(LogChunk {
                    stderr: entry.stream == Stream::Err,
                    time: Timestamp::from_nanos(entry.time_ns),
                    sequence: entry.sequence,
                    bytes,
                    lost_bytes,
                });
            }
        }
        Ok(batch)
    }

    fn next_entries(&self) -> io::Result<Vec<Entry>> {
        let mut file = match File::open(segment::index_path(&self.directory, self.segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        file.seek(SeekFrom::Start(self.record * ENTRY_BYTES as u64))?;
        let mut bytes = Vec::new();
        file.take((BATCH * ENTRY_BYTES) as u64)
            .read_to_end(&mut bytes)?;
        Ok(bytes
            .as_chunks::<ENTRY_BYTES>()
            .0
            .iter()
            .map(Entry::decode)
            .collect())
    }

    fn bytes(&self, segment: u64, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(segment::data_path(&self.directory, segment, entry.stream)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = vec![0; usize::try_from(entry.length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, entry.offset)?;
        Ok(Some(bytes))
    }
}

fn list(directory: &Path) -> io::Result<Vec<u64>> {
    if !fs::exists(directory)? {
        return Ok(Vec::new());
    }
    segment::list(directory)
}
