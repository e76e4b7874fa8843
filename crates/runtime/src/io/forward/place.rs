//! How far a log has got: a file beside the stored output it follows, so that whoever comes after us goes on there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portlayer::element::ElementId;
use portlayer::runtime::{LogProgress, SinkPlan};
use serde::{Deserialize, Serialize};

use super::super::Stream;

/// Everything about one log of one task in one executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Followed {
    pub(super) executor: ElementId,
    pub(super) task: ElementId,
    pub(super) plan: SinkPlan,
    /// For each stream, what is sent next.
    pub(super) next: [Next; 2],
    pub(super) counts: Counts,
    /// Nobody writes the output any more and all of it was sent.
    pub(super) done: bool,
}

/// The first byte of a stream that was not sent: a record of the stored output, and how much of that was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Next {
    pub(super) sequence: u64,
    pub(super) skip: usize,
}

/// What became of the output so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Lines that were sent.
    pub(super) sent: u64,
    /// Lines beyond the rate, dropped.
    pub(super) dropped: u64,
    /// Bytes beyond the longest line, dropped.
    pub(super) cut_bytes: u64,
    /// Bytes that were rotated away or could not be stored before they were sent.
    pub(super) lost_bytes: u64,
}

impl Followed {
    pub(super) fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Out => self.plan.stdout,
            Stream::Err => self.plan.stderr,
        }
    }
}

impl From<Followed> for LogProgress {
    fn from(followed: Followed) -> Self {
        let counts = followed.counts;
        Self {
            log: followed.plan.log,
            sent_lines: counts.sent,
            dropped_lines: counts.dropped,
            cut_bytes: counts.cut_bytes,
            lost_bytes: counts.lost_bytes,
            done: followed.done,
        }
    }
}

/// The file of a log beside the output of a task.
pub(super) fn file(output: &Path, log: &ElementId) -> PathBuf {
    output
        .join("sinks")
        .join(format!("{}.json", log.digest_hex()))
}

/// `None` when there is none. One that cannot be read was never whole.
pub(super) fn read(path: &Path) -> io::Result<Option<Followed>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Written beside and renamed: a crash leaves the old place or the new one.
pub(super) fn write(path: &Path, followed: &Followed) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(followed)?)?;
    fs::rename(new, path)
}

/// The files below the root of all output, each with the output it belongs to.
pub(super) fn all(root: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for executor in entries(root)? {
        for output in entries(&executor)? {
            let files = of(&output)?.into_iter();
            found.extend(files.map(|file| (output.clone(), file)));
        }
    }
    Ok(found)
}

/// The files of the output of one task.
pub(super) fn of(output: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = entries(&output.join("sinks"))?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    Ok(files)
}

/// What is in a directory; nothing where there is none.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
