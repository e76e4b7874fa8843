//! What an archive is, by its content; and zip turned into tar, so that one extractor with one set of rules serves both.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use portlayer::archive::{EntryKind, Limits, TarBuilder};

use super::FetchError;
use crate::plan::Format;

/// How an archive is packed, as its content says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A tar, plain or gzipped.
    Tar,
    /// A zip.
    Zip,
}

/// Looks at the beginning of a file. Errors: `Format` when it is none, or another than promised.
pub(crate) fn packing(file: &mut File, promised: Option<Format>) -> Result<Packing, FetchError> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let found = if head.starts_with(&[0x1f, 0x8b]) {
        Format::TarGzip
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Format::Zip
    } else if head.get(257..262) == Some(b"ustar") || is_empty_tar(&head) {
        Format::Tar
    } else {
        return Err(FetchError::Format("the content is no gzip, zip or tar"));
    };
    if promised.is_some_and(|promised| promised != found) {
        return Err(FetchError::Format(
            "the content is of another media type than promised",
        ));
    }
    Ok(match found {
        Format::Zip => Packing::Zip,
        Format::TarGzip | Format::Tar => Packing::Tar,
    })
}

fn is_empty_tar(head: &[u8]) -> bool {
    head.len() == 512 && head.iter().all(|byte| *byte == 0)
}

/// Writes the entries of a zip as a tar, owned by root. Sizes are bounded while they are read, whatever the zip says of
/// itself; names and links are for the extractor to judge. Blocks.
pub(crate) fn tar_of_zip(
    zip: File,
    tar: &mut impl Write,
    limits: &Limits,
) -> Result<(), FetchError> {
    const DAMAGED: FetchError = FetchError::Format("the zip is damaged");
    let mut zip = ::zip::ZipArchive::new(zip).map_err(|_| DAMAGED)?;
    if zip.len() as u64 > limits.entries {
        return Err(FetchError::Format("the zip has too many entries"));
    }
    let mut left = limits.bytes;
    for at in 0..zip.len() {
        let mut entry = zip.by_index(at).map_err(|_| DAMAGED)?;
        let name = entry.name_raw().to_vec();
        let unix = entry.unix_mode();
        let (kind, mode) = match unix.map(|mode| mode & 0o170_000) {
            Some(0o120_000) => (EntryKind::Symlink, 0o777),
            _ if entry.is_dir() => (
                EntryKind::Directory,
                unix.map_or(0o755, |mode| mode & 0o7777),
            ),
            _ => (EntryKind::File, unix.map_or(0o644, |mode| mode & 0o7777)),
        };
        if kind == EntryKind::Symlink {
            let mut target = Vec::new();
            entry
                .by_ref()
                .take(limits.path_bytes as u64 + 1)
                .read_to_end(&mut target)?;
            tar.write_all(
                &TarBuilder::new()
                    .entry(kind, &name, &target, mode, b"")
                    .unfinished(),
            )?;
            continue;
        }
        // The size in a zip's directory is only a claim: the content is spooled, then its size is known.
        let mut content = tempfile::tempfile()?;
        let copied =
            io::copy(&mut entry.by_ref().take(left + 1), &mut content).map_err(|_| DAMAGED)?;
        left = left.checked_sub(copied).ok_or(FetchError::TooLarge {
            limit: limits.bytes,
        })?;
        content.seek(SeekFrom::Start(0))?;
        tar.write_all(&header(&name, kind, mode, copied))?;
        io::copy(&mut content, tar)?;
        let padding = usize::try_from(copied.next_multiple_of(512) - copied).unwrap_or(0);
        tar.write_all(&[0; 512][..padding])?;
    }
    tar.write_all(&[0; 1024])?;
    Ok(())
}

/// The header of an entry whose content follows.
fn header(name: &[u8], kind: EntryKind, mode: u32, size: u64) -> Vec<u8> {
    let flag = if kind == EntryKind::Directory {
        b'5'
    } else {
        b'0'
    };
    let mut builder = TarBuilder::new();
    if name.len() > 100 {
        builder = builder.raw(b'L', b"././@LongLink", b"", 0o644, &[name, b"\0"].concat());
    }
    builder
        .raw_sized(flag, name, b"", mode, size, b"")
        .unfinished()
}

#[cfg(test)]
mod tests {
    use ::zip::write::SimpleFileOptions;
    use portlayer::archive::TarReader;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn content_tells_the_packing() {
        assert_eq!(
            packing(&mut file(&[0x1f, 0x8b, 8]), None).unwrap(),
            Packing::Tar
        );
        assert_eq!(
            packing(&mut file(b"PK\x03\x04"), Some(Format::Zip)).unwrap(),
            Packing::Zip
        );
        let tar = TarBuilder::new().file("a", 0o644, b"x").finish();
        assert_eq!(packing(&mut file(&tar), None).unwrap(), Packing::Tar);
        assert!(matches!(
            packing(&mut file(&tar), Some(Format::Zip)),
            Err(FetchError::Format(_))
        ));
        assert!(matches!(
            packing(&mut file(b"hello"), None),
            Err(FetchError::Format(_))
        ));
        assert!(matches!(
            packing(&mut file(b""), None),
            Err(FetchError::Format(_))
        ));
    }

    #[test]
    fn a_zip_becomes_a_tar_with_modes_and_links() {
        let mut zip = ::zip::ZipWriter::new(tempfile::tempfile().unwrap());
        let long = format!("{}/file", "d".repeat(120));
        zip.add_directory("bin/", SimpleFileOptions::default().unix_permissions(0o750))
            .unwrap();
        zip.start_file(
            "bin/x",
            SimpleFileOptions::default().unix_permissions(0o755),
        )
        .unwrap();
        zip.write_all(b"hello").unwrap();
        zip.add_symlink("link", "bin/x", SimpleFileOptions::default())
            .unwrap();
        zip.start_file(long.as_str(), SimpleFileOptions::default())
            .unwrap();
        let mut tar = Vec::new();
        tar_of_zip(zip.finish().unwrap(), &mut tar, &Limits::default()).unwrap();
        let mut reader = TarReader::new(tar.as_slice(), Limits::default()).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push((
                String::from_utf8(entry.path.clone()).unwrap(),
                entry.kind,
                entry.mode,
                entry.size,
            ));
        }
        assert_eq!(found[0].1, EntryKind::Directory);
        assert_eq!(found[1], ("bin/x".to_owned(), EntryKind::File, 0o755, 5));
        assert_eq!(found[2].1, EntryKind::Symlink);
        assert_eq!(found[3].0, long);
    }

    #[test]
    fn a_bomb_and_rubbish_are_refused() {
        let mut zip = ::zip::ZipWriter::new(tempfile::tempfile().unwrap());
        zip.start_file("zeros", SimpleFileOptions::default())
            .unwrap();
        zip.write_all(&vec![0; 1 << 20]).unwrap();
        let limits = Limits {
            bytes: 1000,
            ..Limits::default()
        };
        let refused = tar_of_zip(zip.finish().unwrap(), &mut Vec::new(), &limits);
        assert!(matches!(refused, Err(FetchError::TooLarge { limit: 1000 })));
        assert!(matches!(
            tar_of_zip(file(b"PK\x03\x04rubbish"), &mut Vec::new(), &limits),
            Err(FetchError::Format(_))
        ));
    }
}
