//! Zip made tar, so that one extractor with one set of rules serves both; and tar made zip.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Instant;

use ::zip::result::ZipError;
use ::zip::write::SimpleFileOptions;
use ::zip::{DateTime, ZipArchive, ZipWriter};

use super::scan::check_entry;
use super::{ArchiveError, Entry, EntryKind, FormatRule, Limits, TarBuilder, TarReader, shown};

/// File types of a Unix mode, as zips of Unix programs have them.
const TYPE: u32 = 0o170_000;

fn damaged() -> ArchiveError {
    ArchiveError::Format {
        at: 0,
        rule: FormatRule::Zip,
    }
}

fn read_failed(error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) if error.raw_os_error().is_some() => ArchiveError::Read(error),
        _ => damaged(),
    }
}

/// Writes the entries of a zip as a tar, owned by root. Bytes, entries, ratio and time are bounded while they are read,
/// whatever the zip says of itself; names, links and devices are for the extractor to judge. Blocks.
///
/// # Errors
/// [`ArchiveError::Format`] for what is no zip that can be read (damaged, encrypted, other methods than store and deflate),
/// the limits, [`ArchiveError::Read`].
pub fn tar_of_zip<Z: Read + Seek>(
    mut zip: Z,
    tar: &mut impl Write,
    limits: &Limits,
) -> Result<(), ArchiveError> {
    let begun = Instant::now();
    let packed = zip.seek(SeekFrom::End(0)).map_err(ArchiveError::Read)?;
    zip.rewind().map_err(ArchiveError::Read)?;
    let mut zip = ZipArchive::new(zip).map_err(read_failed)?;
    if zip.len() as u64 > limits.entries {
        return Err(ArchiveError::TooManyEntries {
            limit: limits.entries,
        });
    }
    let most = limits
        .bytes
        .min(packed.saturating_mul(limits.ratio).max(limits.ratio_floor));
    let mut left = most;
    for at in 0..zip.len() {
        if begun.elapsed() > limits.time {
            return Err(ArchiveError::TooSlow { limit: limits.time });
        }
        let mut entry = zip.by_index(at).map_err(read_failed)?;
        let name = entry.name_raw().to_vec();
        let unix = entry.unix_mode();
        let mode = unix.map(|mode| mode & 0o7777);
        let builder = TarBuilder::new().mtime(entry.last_modified().map_or(0, seconds));
        let (kind, mode) = match unix.map(|mode| mode & TYPE) {
            Some(0o120_000) => (EntryKind::Symlink, 0o777),
            Some(0o020_000) => (EntryKind::CharDevice, mode.unwrap_or(0)),
            Some(0o060_000) => (EntryKind::BlockDevice, mode.unwrap_or(0)),
            Some(0o010_000 | 0o140_000) => (EntryKind::Fifo, mode.unwrap_or(0)),
            _ if entry.is_dir() => (EntryKind::Directory, mode.unwrap_or(0o755)),
            _ => (EntryKind::File, mode.unwrap_or(0o644)),
        };
        if kind != EntryKind::File {
            let mut target = Vec::new();
            if kind == EntryKind::Symlink {
                entry
                    .by_ref()
                    .take(limits.path_bytes as u64 + 1)
                    .read_to_end(&mut target)
                    .map_err(|_| damaged())?;
            }
            let header = builder.entry(kind, &name, &target, mode, b"").unfinished();
            tar.write_all(&header).map_err(ArchiveError::Read)?;
            continue;
        }
        // The size in a zip's directory is only a claim: the content is spooled, then its size is known.
        let mut content = tempfile::tempfile().map_err(ArchiveError::Read)?;
        let copied = io::copy(
            &mut entry.by_ref().take(left.saturating_add(1)),
            &mut content,
        )
        .map_err(|_| damaged())?;
        left = left.checked_sub(copied).ok_or(match most {
            most if most < limits.bytes => ArchiveError::Ratio {
                limit: limits.ratio,
            },
            _ => ArchiveError::TooManyBytes {
                limit: limits.bytes,
            },
        })?;
        let append = || {
            content.rewind()?;
            tar.write_all(&builder.header(b'0', &name, b"", mode, copied))?;
            io::copy(&mut content, tar)?;
            let padding = usize::try_from(copied.next_multiple_of(512) - copied).unwrap_or(0);
            tar.write_all(&[0; 512][..padding])
        };
        append().map_err(ArchiveError::Read)?;
    }
    tar.write_all(&[0; 1024]).map_err(ArchiveError::Read)
}

/// Seconds since the epoch of a zip's local time, taken as UTC; 0 for a date there is none of.
fn seconds(time: DateTime) -> u64 {
    let civil = || {
        let part = |n: u8| i8::try_from(n).ok();
        jiff::civil::DateTime::new(
            i16::try_from(time.year()).ok()?,
            part(time.month())?,
            part(time.day())?,
            part(time.hour())?,
            part(time.minute())?,
            part(time.second())?,
            0,
        )
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
    };
    civil().map_or(0, |time| {
        u64::try_from(time.timestamp().as_second()).unwrap_or(0)
    })
}

/// A zip's local time of seconds since the epoch, as UTC; zips begin in 1980.
fn date(seconds: i64) -> DateTime {
    let made = || {
        let time = jiff::Timestamp::from_second(seconds).ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC);
        let part = |n: i8| u8::try_from(n).ok();
        DateTime::from_date_and_time(
            u16::try_from(time.year()).ok()?,
            part(time.month())?,
            part(time.day())?,
            part(time.hour())?,
            part(time.minute())?,
            part(time.second())?,
        )
        .ok()
    };
    made().unwrap_or_default()
}

/// Writes the entries of a tar as a zip. A hard link becomes a file of its own only where `tar` was written so
/// ([`super::WriteOptions::hard_links`]). Returns the output. Blocks.
///
/// # Errors
/// As [`TarReader`] and [`super::extract`]; [`super::Rule::NotForZip`] for names that are not UTF-8, hard links and devices; [`ArchiveError::Read`]
/// when the output cannot be written.
pub fn zip_of_tar<R: Read, W: Write>(tar: R, out: W, limits: &Limits) -> Result<W, ArchiveError> {
    let mut reader = TarReader::new(tar, *limits)?;
    let mut zip = ZipWriter::new_stream(out);
    let failed = |error: ZipError| ArchiveError::Read(io::Error::other(error));
    let mut buffer = vec![0; 64 << 10];
    while let Some(entry) = reader.next_entry()? {
        // A name of more than 64 KiB is a panic in the writer, and `..` is for no zip of ours.
        check_entry(&entry, limits)?;
        let (name, target) = (text(&entry, &entry.path)?, text(&entry, &entry.target)?);
        let options = SimpleFileOptions::default()
            .unix_permissions(entry.mode)
            .last_modified_time(date(entry.mtime))
            .large_file(entry.size > u64::from(u32::MAX / 2));
        match entry.kind {
            EntryKind::Directory if matches!(name.trim_matches('/'), "" | ".") => {}
            EntryKind::Directory => zip.add_directory(name, options).map_err(failed)?,
            EntryKind::Symlink => zip.add_symlink(name, target, options).map_err(failed)?,
            EntryKind::File => {
                zip.start_file(name, options).map_err(failed)?;
                loop {
                    let n = reader.read(&mut buffer)?;
                    if n == 0 {
                        break;
                    }
                    zip.write_all(&buffer[..n]).map_err(ArchiveError::Read)?;
                }
            }
            _ => return Err(not_for_zip(&entry)),
        }
    }
    let mut out = zip.finish().map_err(failed)?.into_inner();
    out.flush().map_err(ArchiveError::Read)?;
    Ok(out)
}

fn text<'a>(entry: &Entry, bytes: &'a [u8]) -> Result<&'a str, ArchiveError> {
    std::str::from_utf8(bytes).map_err(|_| not_for_zip(entry))
}

fn not_for_zip(entry: &Entry) -> ArchiveError {
    ArchiveError::Entry {
        entry: shown(&entry.path),
        rule: super::Rule::NotForZip,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn entries(tar: &[u8]) -> Vec<(String, EntryKind, u32, u64, i64)> {
        let mut reader = TarReader::new(tar, Limits::default()).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let name = String::from_utf8(entry.path.clone()).unwrap();
            found.push((name, entry.kind, entry.mode, entry.size, entry.mtime));
        }
        found
    }

    #[test]
    fn a_tar_becomes_a_zip_and_a_tar_again() {
        let long = format!("{}/file", "d".repeat(120));
        let tar = TarBuilder::new()
            .mtime(1_000_000_000)
            .dir("bin/", 0o750)
            .file("bin/x", 0o755, b"hello")
            .symlink("link", "bin/x")
            .file(&long, 0o644, &[3; 100_000])
            .finish();
        let zip = zip_of_tar(tar.as_slice(), Vec::new(), &Limits::default()).unwrap();
        let mut again = Vec::new();
        tar_of_zip(Cursor::new(zip), &mut again, &Limits::default()).unwrap();
        let found = entries(&again);
        assert_eq!(found.len(), 4);
        assert_eq!(
            found[1],
            ("bin/x".to_owned(), EntryKind::File, 0o755, 5, 1_000_000_000)
        );
        assert_eq!(found[2].1, EntryKind::Symlink);
        assert_eq!((found[3].0.as_str(), found[3].3), (long.as_str(), 100_000));
    }

    #[test]
    fn what_a_zip_cannot_hold_is_refused() {
        for tar in [
            TarBuilder::new()
                .file("a", 0o644, b"")
                .hardlink("b", "a")
                .finish(),
            TarBuilder::new()
                .entry(EntryKind::File, b"\xff\xfe", b"", 0o644, b"")
                .finish(),
        ] {
            let refused = zip_of_tar(tar.as_slice(), Vec::new(), &Limits::default());
            assert!(refused.unwrap_err().is_bad_archive());
        }
    }

    #[test]
    fn names_no_writer_takes_are_refused_before_it() {
        for name in [vec![b'n'; 70_000], b"../x".to_vec()] {
            let tar = TarBuilder::new()
                .entry(EntryKind::File, &name, b"", 0o644, b"x")
                .finish();
            let refused = zip_of_tar(tar.as_slice(), Vec::new(), &Limits::default());
            assert!(matches!(refused, Err(ArchiveError::Entry { .. })));
        }
    }

    #[test]
    fn a_bomb_and_rubbish_are_refused() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("zeros", SimpleFileOptions::default())
            .unwrap();
        zip.write_all(&vec![0; 4 << 20]).unwrap();
        let bomb = zip.finish().unwrap().into_inner();
        let refused = |limits: Limits| {
            let mut out = Vec::new();
            tar_of_zip(Cursor::new(bomb.clone()), &mut out, &limits).unwrap_err()
        };
        let small = Limits {
            bytes: 1000,
            ..Limits::default()
        };
        assert!(matches!(refused(small), ArchiveError::TooManyBytes { .. }));
        let tight = Limits {
            ratio: 100,
            ratio_floor: 1 << 20,
            ..Limits::default()
        };
        assert!(matches!(refused(tight), ArchiveError::Ratio { .. }));
        let rubbish = Cursor::new(b"PK\x03\x04rubbish".to_vec());
        let refused = tar_of_zip(rubbish, &mut Vec::new(), &Limits::default()).unwrap_err();
        assert!(matches!(
            refused,
            ArchiveError::Format {
                rule: FormatRule::Zip,
                ..
            }
        ));
    }
}
