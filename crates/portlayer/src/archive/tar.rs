//! A strict tar reader: ustar, GNU long names and PAX, and nothing that two readers could read differently.

use std::collections::BTreeMap;
use std::io::Read;

use super::{ArchiveError, Decoder, FormatRule, Limits, Rule, shown};

const BLOCK: usize = 512;
/// Go's archive/tar, which containerd uses, has the same bound.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file with data.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link to an earlier file.
    Hardlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// One entry's header, extension headers applied. Names are raw and unchecked; see [`super::EntryName`].
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Raw path.
    pub path: Vec<u8>,
    /// Raw link target; empty for other kinds.
    pub target: Vec<u8>,
    /// Bytes of data that follow.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number; (0, 0) for what is no device.
    pub device: (u32, u32),
    /// Modification time, seconds since the epoch; fractions are dropped.
    pub mtime: i64,
    /// PAX records that are not applied here (extended attributes), by key.
    pub extra: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Offset of the data in the decompressed archive.
    pub offset: u64,
}

/// Reads entries in order. Data that is not read is skipped by the next call of [`TarReader::next_entry`].
pub struct TarReader<R: Read> {
    source: Decoder<R>,
    limits: Limits,
    /// Data bytes of the current entry still unread.
    left: u64,
    /// Zeros that fill its last block.
    padding: u64,
    entries: u64,
    ended: bool,
}

#[derive(Default)]
struct Extensions {
    pax: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    long_name: Option<Vec<u8>>,
    long_target: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// A reader over a possibly compressed stream.
    ///
    /// # Errors
    /// [`ArchiveError::Read`] when the stream cannot be read.
    pub fn new(reader: R, limits: Limits) -> Result<TarReader<R>, ArchiveError> {
        Ok(TarReader {
            source: Decoder::new(reader, limits)?,
            limits,
            left: 0,
            padding: 0,
            entries: 0,
            ended: false,
        })
    }

    /// As [`TarReader::new`], and the decompressed archive is summed; see [`Decoder::checksum`].
    ///
    /// # Errors
    /// [`ArchiveError::Read`] when the stream cannot be read.
    pub fn summing(reader: R, limits: Limits) -> Result<TarReader<R>, ArchiveError> {
        let mut tar = TarReader::new(reader, limits)?;
        tar.source.sum();
        Ok(tar)
    }

    /// The decoder underneath, for its counters.
    pub fn decoder(&self) -> &Decoder<R> {
        &self.source
    }

    /// Entries given so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, or `None` after a proper end marker (then the whole stream has been read to its end).
    ///
    /// # Errors
    /// Format faults, limits, refused entry types; see [`FormatRule`] and [`Rule`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let mut extensions = Extensions::default();
        loop {
            let at = self.source.bytes_out();
            let mut block = [0u8; BLOCK];
            self.fill(&mut block)?;
            if block.iter().all(|b| *b == 0) {
                self.finish(at, &extensions)?;
                return Ok(None);
            }
            let header = Header { block: &block, at };
            header.verify()?;
            match header.type_flag() {
                b'x' => {
                    let ambiguous = extensions.pax.is_some() || extensions.any_gnu();
                    header.unless(ambiguous, FormatRule::AmbiguousExtensions)?;
                    let data = self.extension(&header)?;
                    extensions.pax = Some(
                        pax_records(&data).ok_or_else(|| header.fault(FormatRule::PaxRecord))?,
                    );
                }
                b'g' => {
                    header.unless(
                        extensions.pax.is_some() || extensions.any_gnu(),
                        FormatRule::AmbiguousExtensions,
                    )?;
                    let data = self.extension(&header)?;
                    let records =
                        pax_records(&data).ok_or_else(|| header.fault(FormatRule::PaxRecord))?;
                    let changes = records
                        .keys()
                        .any(|k| matches!(k.as_slice(), b"path" | b"linkpath" | b"size"));
                    header.unless(changes, FormatRule::GlobalHeader)?;
                }
                flag @ (b'L' | b'K') => {
                    let slot_taken = if flag == b'L' {
                        extensions.long_name.is_some()
                    } else {
                        extensions.long_target.is_some()
                    };
                    header.unless(
                        slot_taken || extensions.pax.is_some(),
                        FormatRule::AmbiguousExtensions,
                    )?;
                    let mut data = self.extension(&header)?;
                    // GNU ends the name with one NUL; more NULs would be read differently by others.
                    if data.last() == Some(&0) {
                        data.pop();
                    }
                    let slot = if flag == b'L' {
                        &mut extensions.long_name
                    } else {
                        &mut extensions.long_target
                    };
                    *slot = Some(data);
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    ///
    /// # Errors
    /// As the stream.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ArchiveError> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.source.read(&mut buf[..want])?;
        if n == 0 {
            return Err(ArchiveError::Truncated {
                at: self.source.bytes_out(),
            });
        }
        self.left -= n as u64;
        Ok(n)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        extensions: Extensions,
    ) -> Result<Entry, ArchiveError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ArchiveError::TooManyEntries {
                limit: self.limits.entries,
            });
        }
        let mut pax = extensions.pax.unwrap_or_default();
        let path = pax
            .remove(b"path".as_slice())
            .or(extensions.long_name)
            .unwrap_or_else(|| header.path());
        let target = pax
            .remove(b"linkpath".as_slice())
            .or(extensions.long_target)
            .unwrap_or_else(|| header.target());
        let refuse = |rule| ArchiveError::Entry {
            entry: shown(&path),
            rule,
        };
        if pax.keys().any(|k| k.starts_with(b"GNU.sparse.")) {
            return Err(refuse(Rule::Sparse));
        }
        let kind = match header.type_flag() {
            // Before POSIX a directory was a file whose name ends with a slash.
            b'0' | 0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' => EntryKind::File,
            b'1' => EntryKind::Hardlink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(refuse(Rule::Sparse)),
            _ => return Err(refuse(Rule::UnknownType)),
        };
        let mut number = |key: &[u8], field: u64| match pax.remove(key) {
            None => Ok(field),
            Some(text) => decimal(&text).ok_or_else(|| header.fault(FormatRule::PaxRecord)),
        };
        let size = number(b"size", header.number(124, 12)?)?;
        let uid = number(b"uid", header.number(108, 8)?)?;
        let gid = number(b"gid", header.number(116, 8)?)?;
        let id = |n: u64| u32::try_from(n).ok().filter(|n| *n != u32::MAX);
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
            return Err(header.fault(FormatRule::Number));
        };
        let mtime = match pax.remove(b"mtime".as_slice()) {
            None => i64::try_from(header.number(136, 12)?)
                .map_err(|_| header.fault(FormatRule::Number))?,
            Some(text) => seconds(&text).ok_or_else(|| header.fault(FormatRule::PaxRecord))?,
        };
        let mode = u32::try_from(header.number(100, 8)? & 0o7777)
            .map_err(|_| header.fault(FormatRule::Number))?;
        // Only files have data, whatever the size field says: Go's reader has the same rule.
        let size = if kind == EntryKind::File { size } else { 0 };
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let target = if matches!(kind, EntryKind::Symlink | EntryKind::Hardlink) {
            target
        } else {
            Vec::new()
        };
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                let part = |from| header.number(from, 8).map(u32::try_from);
                match (part(329)?, part(337)?) {
                    (Ok(major), Ok(minor)) => (major, minor),
                    _ => return Err(header.fault(FormatRule::Number)),
                }
            }
            _ => (0, 0),
        };
        let offset = self.source.bytes_out();
        Ok(Entry {
            kind,
            path,
            target,
            size,
            mode,
            uid,
            gid,
            device,
            mtime,
            extra: pax,
            offset,
        })
    }

    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
        let size = header.number(124, 12)?;
        header.unless(size > EXTENSION_LIMIT, FormatRule::ExtensionSize)?;
        let size = usize::try_from(size).map_err(|_| header.fault(FormatRule::ExtensionSize))?;
        let mut data = vec![0; size.next_multiple_of(BLOCK)];
        self.fill(&mut data)?;
        data.truncate(size);
        Ok(data)
    }

    /// After the first zero block: a second one, then zeros only until the stream ends.
    fn finish(&mut self, at: u64, extensions: &Extensions) -> Result<(), ArchiveError> {
        if extensions.pax.is_some() || extensions.any_gnu() {
            return Err(ArchiveError::Format {
                at,
                rule: FormatRule::AmbiguousExtensions,
            });
        }
        let mut block = [0u8; BLOCK];
        self.fill(&mut block)?;
        let mut buf = vec![0u8; 64 << 10];
        let mut clean = block.iter().all(|b| *b == 0);
        loop {
            if !clean {
                return Err(ArchiveError::Format {
                    at: self.source.bytes_out(),
                    rule: FormatRule::TrailingData,
                });
            }
            let n = self.source.read(&mut buf)?;
            if n == 0 {
                self.ended = true;
                return Ok(());
            }
            clean = buf[..n].iter().all(|b| *b == 0);
        }
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let mut buf = vec![0u8; 64 << 10];
        while self.read(&mut buf)? > 0 {}
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        self.fill(&mut buf[..padding])
    }

    fn fill(&mut self, mut buf: &mut [u8]) -> Result<(), ArchiveError> {
        while !buf.is_empty() {
            let n = self.source.read(buf)?;
            if n == 0 {
                return Err(ArchiveError::Truncated {
                    at: self.source.bytes_out(),
                });
            }
            buf = &mut buf[n..];
        }
        Ok(())
    }
}

impl Extensions {
    fn any_gnu(&self) -> bool {
        self.long_name.is_some() || self.long_target.is_some()
    }
}

struct Header<'a> {
    block: &'a [u8; BLOCK],
    at: u64,
}

impl Header<'_> {
    fn fault(&self, rule: FormatRule) -> ArchiveError {
        ArchiveError::Format { at: self.at, rule }
    }

    fn unless(&self, bad: bool, rule: FormatRule) -> Result<(), ArchiveError> {
        if bad { Err(self.fault(rule)) } else { Ok(()) }
    }

    fn type_flag(&self) -> u8 {
        self.block[156]
    }

    /// The sum of all bytes, the checksum field itself taken as spaces; old writers summed signed bytes.
    fn verify(&self) -> Result<(), ArchiveError> {
        let want = self
            .number(148, 8)
            .map_err(|_| self.fault(FormatRule::Checksum))?;
        let mut unsigned = 0u64;
        let mut signed = 0i64;
        for (i, byte) in self.block.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { *byte };
            unsigned += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let matches = want == unsigned || i64::try_from(want).is_ok_and(|w| w == signed);
        self.unless(!matches, FormatRule::Checksum)
    }

    fn text(&self, from: usize, len: usize) -> &[u8] {
        let field = &self.block[from..from + len];
        field.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let posix = &self.block[257..263] == b"ustar\0";
        let prefix = if posix { self.text(345, 155) } else { b"" };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    fn target(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    /// Octal text, or GNU's base-256 when the first bit is set. Negative numbers are refused.
    fn number(&self, from: usize, len: usize) -> Result<u64, ArchiveError> {
        let field = &self.block[from..from + len];
        let bad = || self.fault(FormatRule::Number);
        if field[0] & 0x80 != 0 {
            let mut value = u64::from(field[0] & 0x7f);
            if field[0] == 0xff {
                return Err(bad());
            }
            for byte in &field[1..] {
                value = value
                    .checked_mul(256)
                    .and_then(|v| v.checked_add(u64::from(*byte)))
                    .ok_or_else(bad)?;
            }
            return Ok(value);
        }
        let digits = field
            .split(|b| *b == 0)
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let mut value = 0u64;
        for digit in digits {
            if !(b'0'..=b'7').contains(digit) {
                return Err(bad());
            }
            value = value
                .checked_mul(8)
                .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                .ok_or_else(bad)?;
        }
        Ok(value)
    }
}

/// The records of a PAX header: `length key=value\n`, the length counting all of it. `None` when malformed.
fn pax_records(mut data: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|b| *b == b' ')?;
        let length = usize::try_from(decimal(&data[..space])?).ok()?;
        let record = data.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || records.insert(key.to_vec(), value.to_vec()).is_some() {
            return None;
        }
        data = &data[length..];
    }
    // An empty value means "not set": the header's own field counts.
    records.retain(|_, value: &mut Vec<u8>| !value.is_empty());
    Some(records)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`
fn seconds(text: &[u8]) -> Option<i64> {
    let whole = text.split(|b| *b == b'.').next()?;
    std::str::from_utf8(whole).ok()?.parse().ok()
}
