//! The files of a log. A log is a row of *segments*, numbered from 0; each has three files:
//!
//! ```text
//! 00000007.out   bytes of standard output, exactly as written
//! 00000007.err   bytes of standard error
//! 00000007.idx   one record per piece, in the order stored, over both streams
//! ```
//!
//! A piece is in its data file before its record is written. After a crash the bytes beyond the last record are a piece that has no
//! record yet; nothing is lost and nothing is there twice. A record of no bytes tells what was dropped before the last writer went.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Which stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    pub(crate) const BOTH: [Stream; 2] = [Stream::Out, Stream::Err];

    pub(crate) fn index(self) -> usize {
        match self {
            Stream::Out => 0,
            Stream::Err => 1,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
        }
    }
}

pub(crate) fn data_path(directory: &Path, segment: u64, stream: Stream) -> PathBuf {
    directory.join(format!("{segment:08}.{}", stream.extension()))
}

pub(crate) fn index_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:08}.idx"))
}

/// Numbers of the segments there are, ascending.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(number) = name
            .to_str()
            .and_then(|name| name.strip_suffix(".idx"))
            .and_then(|number| number.parse().ok())
        {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes a segment; its index last, because that is what makes it one.
pub(crate) fn remove(directory: &Path, segment: u64) -> io::Result<()> {
    for path in [
        data_path(directory, segment, Stream::Out),
        data_path(directory, segment, Stream::Err),
        index_path(directory, segment),
    ] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// One record of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Place in the log, from 0, over both streams and all segments.
    pub(crate) sequence: u64,
    /// When it was stored, in nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// Bytes dropped just before.
    pub(crate) lost: u64,
    /// Bytes stored before in this log, over both streams and all segments.
    pub(crate) position: u64,
    /// Where in the data file it begins.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) length: u32,
    pub(crate) stream: Stream,
}

/// Bytes of a record.
pub(crate) const ENTRY_BYTES: usize = 48;

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lost.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.position.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.length.to_le_bytes());
        bytes[44] = u8::from(self.stream == Stream::Err);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        Entry {
            sequence: word(0),
            time_ns: word(8).cast_signed(),
            lost: word(16),
            position: word(24),
            offset: word(32),
            length: u32::from_le_bytes(std::array::from_fn(|index| bytes[40 + index])),
            stream: if bytes[44] == 0 {
                Stream::Out
            } else {
                Stream::Err
            },
        }
    }
}

/// All records of a segment; a record cut off by a crash does not count.
pub(crate) fn entries(directory: &Path, segment: u64) -> io::Result<Vec<Entry>> {
    let bytes = fs::read(index_path(directory, segment))?;
    Ok(bytes
        .as_chunks::<ENTRY_BYTES>()
        .0
        .iter()
        .map(Entry::decode)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        let entry = Entry {
            sequence: 1,
            time_ns: -2,
            lost: 3,
            position: 4,
            offset: 5,
            length: 6,
            stream: Stream::Err,
        };
        assert_eq!(Entry::decode(&entry.encode()), entry);
    }
}
