//! Builds tar archives entry by entry, in memory, the same bytes for the same calls.

use super::EntryKind;

/// A tar archive under construction. It writes what it is told: names are not checked, so it can build the archives
/// that must be refused as well as those that must not. Owner 0:0, time 0 unless said otherwise.
#[derive(Debug, Clone, Default)]
pub struct TarBuilder {
    bytes: Vec<u8>,
    owner: (u32, u32),
    mtime: u64,
}

impl TarBuilder {
    /// An empty archive.
    pub fn new() -> TarBuilder {
        TarBuilder::default()
    }

    /// Owner of the entries that follow.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> TarBuilder {
        self.owner = (uid, gid);
        self
    }

    /// Modification time of the entries that follow, seconds since the epoch.
    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> TarBuilder {
        self.mtime = seconds;
        self
    }

    /// A directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> TarBuilder {
        self.entry(EntryKind::Directory, path.as_bytes(), b"", mode, b"")
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, data: &[u8]) -> TarBuilder {
        self.entry(EntryKind::File, path.as_bytes(), b"", mode, data)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> TarBuilder {
        self.entry(
            EntryKind::Symlink,
            path.as_bytes(),
            target.as_bytes(),
            0o777,
            b"",
        )
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> TarBuilder {
        self.entry(
            EntryKind::Hardlink,
            path.as_bytes(),
            target.as_bytes(),
            0o644,
            b"",
        )
    }

    /// Any entry. Names over 100 bytes get GNU long-name headers.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryKind,
        path: &[u8],
        target: &[u8],
        mode: u32,
        data: &[u8],
    ) -> TarBuilder {
        let flag = match kind {
            EntryKind::File => b'0',
            EntryKind::Hardlink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        if target.len() > 100 {
            self = self.raw(
                b'K',
                b"././@LongLink",
                b"",
                0o644,
                &[target, b"\0"].concat(),
            );
        }
        if path.len() > 100 {
            self = self.raw(b'L', b"././@LongLink", b"", 0o644, &[path, b"\0"].concat());
        }
        self.raw(flag, path, target, mode, data)
    }

    /// A PAX header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> TarBuilder {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            data.extend(length.to_string().into_bytes());
            data.extend(body);
        }
        self.raw(b'x', b"pax", b"", 0o644, &data)
    }

    /// An entry of any type flag, names cut to 100 bytes.
    #[must_use]
    pub fn raw(self, flag: u8, path: &[u8], target: &[u8], mode: u32, data: &[u8]) -> TarBuilder {
        let size = data.len() as u64;
        self.raw_sized(flag, path, target, mode, size, data)
    }

    /// As [`TarBuilder::raw`], with a size field that need not be true. `data` is padded to whole blocks.
    #[must_use]
    pub fn raw_sized(
        mut self,
        flag: u8,
        path: &[u8],
        target: &[u8],
        mode: u32,
        size: u64,
        data: &[u8],
    ) -> TarBuilder {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8], max: usize| {
            let n = bytes.len().min(max);
            header[at..at + n].copy_from_slice(&bytes[..n]);
        };
        put(0, path, 100);
        put(100, format!("{mode:07o}\0").as_bytes(), 8);
        put(108, format!("{:07o}\0", self.owner.0).as_bytes(), 8);
        put(116, format!("{:07o}\0", self.owner.1).as_bytes(), 8);
        put(124, &size_field(size), 12);
        put(136, format!("{:011o}\0", self.mtime).as_bytes(), 12);
        put(148, b"        ", 8);
        put(156, &[flag], 1);
        put(157, target, 100);
        put(257, b"ustar  \0", 8);
        put(329, b"0000001\0", 8);
        put(337, b"0000003\0", 8);
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive without an end marker.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The archive, with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// Octal text while it fits (8 GiB), GNU's base-256 above.
fn size_field(size: u64) -> Vec<u8> {
    if size < 1 << 33 {
        return format!("{size:011o}\0").into_bytes();
    }
    [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Limits, TarReader};

    #[test]
    fn sizes_of_eight_gibibytes_and_more_are_read_back() {
        for size in [0, 1, (1 << 33) - 1, 1 << 33, 1 << 40] {
            let header = TarBuilder::new()
                .raw_sized(b'0', b"big", b"", 0o644, size, b"")
                .unfinished();
            let mut reader = TarReader::new(header.as_slice(), Limits::default()).unwrap();
            assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
        }
    }
}
