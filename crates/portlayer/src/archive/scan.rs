//! Reads a whole archive against the rules without writing anything.

use std::io::Read;

use super::{
    ArchiveError, Compression, Entry, EntryKind, EntryName, Limits, Rule, TarReader, shown,
};
use crate::element::Checksum;

/// What a scan counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub file_bytes: u64,
    /// Bytes of the decompressed archive.
    pub bytes: u64,
    /// Sum of the decompressed archive: a layer's diff id.
    pub checksum: Checksum,
    /// How the archive is compressed.
    pub compression: Compression,
}

/// Checks one entry of an image layer: the common rules, whiteouts, overlay attributes, system directories.
///
/// # Errors
/// [`ArchiveError::Entry`].
pub fn check_layer_entry(entry: &Entry, limits: &Limits) -> Result<EntryName, ArchiveError> {
    let name = check_entry(entry, limits)?;
    let refuse = |rule| ArchiveError::Entry {
        entry: shown(&entry.path),
        rule,
    };
    if entry
        .extra
        .keys()
        .any(|k| k.starts_with(b"SCHILY.xattr.trusted.overlay."))
    {
        return Err(refuse(Rule::OverlayAttribute));
    }
    for part in name.components() {
        // `.wh..wh.opq` and aufs' own `.wh..wh.*` files are markers, not whiteouts of a name.
        let whited = part
            .strip_prefix(b".wh.")
            .filter(|rest| !rest.starts_with(b".wh."));
        if matches!(whited, Some(b"" | b"." | b"..")) {
            return Err(refuse(Rule::Whiteout));
        }
    }
    if let [top] = name.components() {
        let system = matches!(top.as_slice(), b"dev" | b"proc" | b"sys");
        if system && entry.kind != EntryKind::Directory {
            return Err(refuse(Rule::SystemDirectory));
        }
    }
    Ok(name)
}

/// The rules every entry must keep, whatever the archive is for.
pub(super) fn check_entry(entry: &Entry, limits: &Limits) -> Result<EntryName, ArchiveError> {
    let refuse = |rule| ArchiveError::Entry {
        entry: shown(&entry.path),
        rule,
    };
    let name = EntryName::parse(&entry.path, limits).map_err(refuse)?;
    if name.is_root() && entry.kind != EntryKind::Directory {
        return Err(refuse(Rule::EmptyName));
    }
    match entry.kind {
        EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo
            if !limits.special_nodes =>
        {
            return Err(refuse(Rule::SpecialNode));
        }
        EntryKind::Symlink | EntryKind::Hardlink if entry.target.is_empty() => {
            return Err(refuse(Rule::EmptyTarget));
        }
        EntryKind::Hardlink => {
            let target = EntryName::parse(&entry.target, limits).map_err(refuse)?;
            if target.is_root() {
                return Err(refuse(Rule::LinkTarget));
            }
        }
        // A symlink's target is resolved inside the root by whoever follows it; it may say anything a name can.
        EntryKind::Symlink if entry.target.contains(&0) => return Err(refuse(Rule::Nul)),
        EntryKind::Symlink if entry.target.len() >= limits.path_bytes => {
            return Err(refuse(Rule::NameTooLong));
        }
        _ => {}
    }
    Ok(name)
}

/// Reads the archive to its end, giving each entry to `check`. Nothing is written.
///
/// # Errors
/// The first fault.
pub fn scan<R: Read>(
    reader: R,
    limits: &Limits,
    mut check: impl FnMut(&Entry) -> Result<(), ArchiveError>,
) -> Result<Scanned, ArchiveError> {
    let mut tar = TarReader::summing(reader, *limits)?;
    let (mut entries, mut file_bytes) = (0, 0);
    while let Some(entry) = tar.next_entry()? {
        check(&entry)?;
        entries += 1;
        file_bytes += entry.size;
    }
    let decoder = tar.decoder();
    Ok(Scanned {
        entries,
        file_bytes,
        bytes: decoder.bytes_out(),
        checksum: decoder.checksum(),
        compression: decoder.compression(),
    })
}
