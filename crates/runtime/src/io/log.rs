//! Writes the log of one task in one executor.

use std::{
    collections::{HashMap, hash_map},
    fs::{self, File},
    io::{self, Write},
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use portlayer::{element::ElementId, runtime::LogFigures, time::Timestamp};
use rustix::{fs::FallocateFlags, io::Errno, pipe::SpliceFlags};
use tokio::sync::watch;

use super::redact::{Cleaned, Redactor};
pub(crate) use super::segment::Stream;
use super::segment::{self, ENTRY_BYTES, Entry};

/// How much is moved at once: the capacity of a FIFO.
const PIECE_BYTES: usize = 64 << 10;

/// Room that is kept for records.
const RESERVED_BYTES: usize = 4 << 10;

/// How large the stored output of one task in one executor may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// A segment that reached this many bytes, over both streams, is followed by a new one; at least 1. It may end up
    /// larger by the capacity of a FIFO.
    pub segment_bytes: u64,
    /// The oldest segment goes when there are more, the one being written included; at least 1.
    pub segments: u32,
}

impl Default for LogBounds {
    /// 64 MiB per task and executor.
    fn default() -> Self {
        LogBounds {
            segment_bytes: 8 << 20,
            segments: 8,
        }
    }
}

/// All logs of the node. Which of them are being written is known here, so that a follower knows when to stop.
#[derive(Debug)]
pub(crate) struct Logs {
    root: PathBuf,
    bounds: LogBounds,
    open: Arc<Mutex<Open>>,
    counts: Arc<Counts>,
}

/// The logs being written, by directory, and how many have each open. It is locked while one is opened and while one is
/// closed: what the old writer of a log says last comes before what a new one says first.
type Open = HashMap<PathBuf, (Arc<Log>, usize)>;

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Over all logs.
#[derive(Debug, Default)]
struct Counts {
    stored: AtomicU64,
    dropped: AtomicU64,
}

impl Logs {
    pub(crate) fn new(root: PathBuf, bounds: LogBounds) -> Logs {
        Logs {
            root,
            bounds,
            open: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// What was stored and dropped since they were opened.
    pub(crate) fn figures(&self) -> LogFigures {
        LogFigures {
            stored_bytes: self.counts.stored.load(Ordering::Relaxed),
            dropped_bytes: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    fn executor_directory(&self, executor: &ElementId) -> PathBuf {
        self.root.join(executor.digest_hex())
    }

    pub(crate) fn directory(&self, executor: &ElementId, task: &ElementId) -> PathBuf {
        self.executor_directory(executor).join(task.digest_hex())
    }

    /// Where all output is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The number the next piece of a log will have; 0 when nobody has it open.
    pub(crate) fn next_sequence(&self, directory: &Path) -> u64 {
        let open = lock(&self.open);
        open.get(directory)
            .map_or(0, |(log, _)| *log.stored.borrow())
    }

    /// Opens the log of a task for writing, with these bounds or the node's; runs that overlap share it.
    pub(crate) fn open(
        &self,
        directory: &Path,
        bounds: Option<LogBounds>,
    ) -> io::Result<Arc<OpenLog>> {
        let mut open = lock(&self.open);
        let (log, writers) = match open.entry(directory.to_owned()) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => {
                let bounds = bounds.unwrap_or(self.bounds);
                let log = Log::open(directory, bounds, self.counts.clone())?;
                entry.insert((Arc::new(log), 0))
            }
        };
        *writers += 1;
        Ok(Arc::new(OpenLog {
            log: log.clone(),
            directory: directory.to_owned(),
            open: self.open.clone(),
        }))
    }

    /// Signals every new piece, and closes when nobody writes the log any more; `None` when nobody does now.
    pub(crate) fn watch(&self, directory: &Path) -> Option<watch::Receiver<u64>> {
        let open = lock(&self.open);
        open.get(directory).map(|(log, _)| log.stored.subscribe())
    }

    /// Removes the logs of an executor. Idempotent. Blocks.
    pub(crate) fn remove(&self, executor: &ElementId) -> io::Result<()> {
        self.remove_named(&executor.digest_hex())
    }

    /// The same by the name of its directory, the digest of its id.
    pub(crate) fn remove_named(&self, digest: &str) -> io::Result<()> {
        if !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) || digest.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match fs::remove_dir_all(self.root.join(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A log that is open for writing, until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenLog {
    log: Arc<Log>,
    directory: PathBuf,
    open: Arc<Mutex<Open>>,
}

impl Deref for OpenLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let hash_map::Entry::Occupied(mut entry) = open.entry(self.directory.clone()) {
            let (log, writers) = entry.get_mut();
            *writers -= 1;
            if *writers == 0 {
                log.finish();
                entry.remove();
            }
        }
    }
}

/// The log of one task in one executor.
#[derive(Debug)]
pub(crate) struct Log {
    writer: Mutex<Writer>,
    /// Number of pieces stored.
    stored: watch::Sender<u64>,
}

#[derive(Debug)]
struct Writer {
    directory: PathBuf,
    bounds: LogBounds,
    segment: u64,
    index: File,
    data: [File; 2],
    /// Length of each data file, and how much of it has a record.
    length: [u64; 2],
    indexed: [u64; 2],
    /// Of the next piece.
    sequence: u64,
    position: u64,
    /// Dropped since the last record.
    lost: u64,
    /// Bytes of the index that the disk still has for it, whoever fills the disk: the last record tells what was dropped.
    reserved: usize,
    counts: Arc<Counts>,
}

/// What became of the bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many bytes were taken from the FIFO.
    Bytes(usize),
    /// None are there now.
    Nothing,
    /// None will come: the last writer is gone.
    End,
}

impl Log {
    fn open(directory: &Path, bounds: LogBounds, counts: Arc<Counts>) -> io::Result<Log> {
        let writer = Writer::open(directory, bounds, counts)?;
        let (stored, _) = watch::channel(writer.sequence);
        Ok(Log {
            writer: Mutex::new(writer),
            stored,
        })
    }

    /// Moves what is in the FIFO, at most one piece, into the log. Never waits. A failure to store is no error: the bytes are dropped
    /// and counted, so that the process goes on.
    /// With a redactor what is stored has none of its values in it.
    pub(crate) fn store(
        &self,
        stream: Stream,
        fifo: BorrowedFd<'_>,
        redactor: Option<&Redactor>,
    ) -> io::Result<Moved> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = match redactor {
            None => writer.store(stream, fifo)?,
            Some(redactor) => writer.store_clean(stream, fifo, redactor)?,
        };
        let sequence = writer.sequence;
        drop(writer);
        if let Moved::Bytes(_) = moved {
            self.stored.send_replace(sequence);
        }
        Ok(moved)
    }

    fn finish(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.finish();
    }
}

impl Writer {
    fn open(directory: &Path, bounds: LogBounds, counts: Arc<Counts>) -> io::Result<Writer> {
        fs::create_dir_all(directory)?;
        let segments = segment::list(directory)?;
        let segment = segments.last().copied().unwrap_or(0);
        let (mut sequence, mut position) = (0, 0);
        let mut indexed = [0; 2];
        // The last segment that has a record says where the log stands; a new one may have none yet.
        for &number in segments.iter().rev() {
            let entries = segment::entries(directory, number)?;
            if number == segment {
                for entry in &entries {
                    indexed[entry.stream.index()] = entry.offset + u64::from(entry.length);
                }
            }
            if let Some(last) = entries.last() {
                sequence = last.sequence + 1;
                position = last.position + u64::from(last.length);
                break;
            }
        }
        let (index, data) = open_segment(directory, segment)?;
        let whole = index.metadata()?.len() / ENTRY_BYTES as u64 * ENTRY_BYTES as u64;
        index.set_len(whole)?;
        let length = [data[0].metadata()?.len(), data[1].metadata()?.len()];
        // A data file that was cut by somebody else is no reason to forget what comes now.
        let indexed = [indexed[0].min(length[0]), indexed[1].min(length[1])];
        let mut writer = Writer {
            directory: directory.to_owned(),
            bounds,
            segment,
            index,
            data,
            length,
            indexed,
            sequence,
            position,
            lost: 0,
            reserved: 0,
            counts,
        };
        writer.reserve();
        for stream in Stream::BOTH {
            writer.record(stream);
        }
        Ok(writer)
    }

    fn store(&mut self, stream: Stream, fifo: BorrowedFd<'_>) -> io::Result<Moved> {
        if self.length.iter().sum::<u64>() >= self.bounds.segment_bytes {
            // When the next segment cannot be made the current one goes on: more than the bound is better than nothing.
            let _ = self.rotate();
        }
        let at = stream.index();
        let mut offset = self.length[at];
        portlayer::crash::point("log.before-splice");
        // The kernel moves the bytes; there is no moment at which only our memory has them.
        let moved = rustix::pipe::splice(
            fifo,
            None,
            self.data[at].as_fd(),
            Some(&mut offset),
            PIECE_BYTES,
            SpliceFlags::NONBLOCK,
        );
        match moved {
            Ok(0) => Ok(Moved::End),
            Ok(count) => {
                self.length[at] += count as u64;
                let stored = &self.counts.stored;
                stored.fetch_add(count as u64, Ordering::Relaxed);
                portlayer::crash::point("log.before-index");
                self.record(stream);
                Ok(Moved::Bytes(count))
            }
            Err(Errno::AGAIN) => Ok(Moved::Nothing),
            Err(Errno::INTR) => Ok(Moved::Bytes(0)),
            Err(_) => self.drop_piece(fifo),
        }
    }

    /// The same through the redactor, which looks at a copy: the bytes are taken when what they became is stored.
    fn store_clean(
        &mut self,
        stream: Stream,
        fifo: BorrowedFd<'_>,
        redactor: &Redactor,
    ) -> io::Result<Moved> {
        let (clean, taken) = match redactor.look(fifo, PIECE_BYTES)? {
            Cleaned::Bytes { clean, taken } => (clean, taken),
            Cleaned::Wait => return Ok(Moved::Nothing),
            Cleaned::End => return Ok(Moved::End),
        };
        if self.length.iter().sum::<u64>() >= self.bounds.segment_bytes {
            let _ = self.rotate();
        }
        let at = stream.index();
        match self.data[at].write_all_at(&clean, self.length[at]) {
            Ok(()) => {
                self.length[at] += clean.len() as u64;
                let stored = &self.counts.stored;
                stored.fetch_add(clean.len() as u64, Ordering::Relaxed);
                self.record(stream);
            }
            Err(_) => {
                self.lost += taken as u64;
                let dropped = &self.counts.dropped;
                dropped.fetch_add(taken as u64, Ordering::Relaxed);
            }
        }
        let mut left = taken;
        let mut nowhere = vec![0; taken];
        while left > 0 {
            match rustix::io::read(fifo, &mut nowhere[..left]) {
                Ok(0) => break,
                Ok(count) => left -= count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Moved::Bytes(taken))
    }

    fn drop_piece(&mut self, fifo: BorrowedFd<'_>) -> io::Result<Moved> {
        let moved = discard(fifo)?;
        if let Moved::Bytes(count) = moved {
            self.lost += count as u64;
            let dropped = &self.counts.dropped;
            dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(moved)
    }

    /// Writes the record of what a data file has beyond its last record. When that fails the next record covers it too.
    fn record(&mut self, stream: Stream) {
        let at = stream.index();
        while self.indexed[at] < self.length[at] {
            let length = u32::try_from(self.length[at] - self.indexed[at]).unwrap_or(u32::MAX);
            let entry = Entry {
                sequence: self.sequence,
                time_ns: Timestamp::now().as_nanos(),
                lost: self.lost,
                position: self.position,
                offset: self.indexed[at],
                length,
                stream,
            };
            match self.index.write(&entry.encode()) {
                Ok(ENTRY_BYTES) => {}
                // A part of a record would shift all that follow.
                Ok(_) => {
                    let end = self.index.metadata().map_or(0, |data| {
                        data.len() / ENTRY_BYTES as u64 * ENTRY_BYTES as u64
                    });
                    let _ = self.index.set_len(end);
                    return;
                }
                Err(_) => return,
            }
            self.recorded();
            self.indexed[at] += u64::from(length);
            self.position += u64::from(length);
        }
    }

    fn recorded(&mut self) {
        self.sequence += 1;
        self.lost = 0;
        self.reserved = self.reserved.saturating_sub(ENTRY_BYTES);
        if self.reserved < 2 * ENTRY_BYTES {
            self.reserve();
        }
    }

    /// Has the disk keep room for the next records. On a full disk there is none to keep.
    fn reserve(&mut self) {
        let kept = self.index.metadata().and_then(|data| {
            let (flags, room) = (FallocateFlags::KEEP_SIZE, RESERVED_BYTES as u64);
            Ok(rustix::fs::fallocate(&self.index, flags, data.len(), room)?)
        });
        self.reserved = kept.map_or(0, |()| RESERVED_BYTES);
    }

    /// Nothing more comes that could tell what was dropped before it: a record of no bytes does.
    fn finish(&mut self) {
        for stream in Stream::BOTH {
            self.record(stream);
        }
        if self.lost == 0 {
            return;
        }
        let entry = Entry {
            sequence: self.sequence,
            time_ns: Timestamp::now().as_nanos(),
            lost: self.lost,
            position: self.position,
            offset: self.indexed[Stream::Out.index()],
            length: 0,
            stream: Stream::Out,
        };
        if !matches!(self.index.write(&entry.encode()), Ok(ENTRY_BYTES)) {
            tracing::warn!(
                directory = %self.directory.display(),
                bytes = self.lost,
                "output was dropped, and the log has no room to say so"
            );
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = self.segment + 1;
        portlayer::crash::point("log.before-segment");
        let (index, data) = open_segment(&self.directory, next)?;
        // What has no record by now never gets one, and is lost with this segment.
        let unrecorded: u64 = Stream::BOTH
            .iter()
            .map(|stream| self.length[stream.index()] - self.indexed[stream.index()])
            .sum();
        self.lost += unrecorded;
        (
            self.segment,
            self.index,
            self.data,
            self.length,
            self.indexed,
        ) = (next, index, data, [0; 2], [0; 2]);
        self.reserve();
        portlayer::crash::point("log.after-segment");
        let segments = segment::list(&self.directory)?;
        let kept = usize::try_from(self.bounds.segments).unwrap_or(usize::MAX);
        for &old in segments.iter().take(segments.len().saturating_sub(kept)) {
            segment::remove(&self.directory, old)?;
        }
        Ok(())
    }
}

/// Takes at most one piece out of a FIFO for nobody.
pub(super) fn discard(fifo: BorrowedFd<'_>) -> io::Result<Moved> {
    let mut nowhere = [0u8; PIECE_BYTES];
    match rustix::io::read(fifo, &mut nowhere) {
        Ok(0) => Ok(Moved::End),
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(Errno::AGAIN) => Ok(Moved::Nothing),
        Err(Errno::INTR) => Ok(Moved::Bytes(0)),
        Err(error) => Err(error.into()),
    }
}

/// The index is appended to; data files are not opened for appending, because splice refuses those.
fn open_segment(directory: &Path, segment: u64) -> io::Result<(File, [File; 2])> {
    let index = File::options()
        .create(true)
        .append(true)
        .open(segment::index_path(directory, segment))?;
    let data = |stream| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(segment::data_path(directory, segment, stream))
    };
    Ok((index, [data(Stream::Out)?, data(Stream::Err)?]))
}
