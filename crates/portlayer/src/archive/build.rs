//! Builds tar archives entry by entry, in memory, the same bytes for the same calls.

use super::EntryKind;

/// A tar archive under construction. It writes what it is told: names are not checked, so it can build the archives
/// that must be refused as well as those that must not. Owner 0:0, time 0 unless said otherwise.
#[derive(Debug, Clone, Default)]
pub struct TarBuilder {
    bytes: Vec<u8>,
    owner: (u32, u32),
    mtime: u64,
    device: Option<(u32, u32)>,
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

    /// Major and minor number of the devices that follow; (1, 3), the null device, unless said otherwise.
    #[must_use]
    pub fn device(mut self, major: u32, minor: u32) -> TarBuilder {
        self.device = Some((major, minor));
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
        self,
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
        self.long_names(path, target)
            .raw(flag, path, target, mode, data)
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
        put(108, &number(u64::from(self.owner.0), 8), 8);
        put(116, &number(u64::from(self.owner.1), 8), 8);
        put(124, &number(size, 12), 12);
        put(136, &number(self.mtime, 12), 12);
        put(148, b"        ", 8);
        put(156, &[flag], 1);
        put(157, target, 100);
        put(257, b"ustar  \0", 8);
        let (major, minor) = self.device.unwrap_or((1, 3));
        put(329, &number(u64::from(major), 8), 8);
        put(337, &number(u64::from(minor), 8), 8);
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The header alone of an entry whose `size` bytes of data follow; long names as in [`TarBuilder::entry`].
    pub fn header(self, flag: u8, path: &[u8], target: &[u8], mode: u32, size: u64) -> Vec<u8> {
        self.long_names(path, target)
            .raw_sized(flag, path, target, mode, size, b"")
            .bytes
    }

    fn long_names(mut self, path: &[u8], target: &[u8]) -> TarBuilder {
        for (flag, name) in [(b'K', target), (b'L', path)] {
            if name.len() > 100 {
                let data = [name, b"\0"].concat();
                self = self.raw(flag, b"././@LongLink", b"", 0o644, &data);
            }
        }
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

/// A number field of `width` bytes, 8 or 12: octal text while it fits (2 MiB, 8 GiB), GNU's base-256 above.
fn number(value: u64, width: usize) -> Vec<u8> {
    let digits = width - 1;
    if value >> (3 * digits) == 0 {
        return format!("{value:0digits$o}\0").into_bytes();
    }
    let mut field = vec![0; width];
    let bytes = value.to_be_bytes();
    let at = width - bytes.len().min(digits);
    field[at..].copy_from_slice(&bytes[bytes.len() - (width - at)..]);
    field[0] = 0x80;
    field
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

    #[test]
    fn owners_of_name_spaces_are_read_back() {
        for id in [0, 65_535, 2_097_151, 2_097_152, 268_435_456, u32::MAX - 1] {
            let archive = TarBuilder::new().owner(id, id).dir("d", 0o755).finish();
            let mut reader = TarReader::new(archive.as_slice(), Limits::default()).unwrap();
            let entry = reader.next_entry().unwrap().unwrap();
            assert_eq!((entry.uid, entry.gid), (id, id));
        }
    }
}
