//! What can be wrong with an archive, each with the entry and the rule.

use std::io;
use std::time::Duration;

/// A rule about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rule {
    /// A `..` component in the path or in a hard link's target.
    #[error("'..' components are refused")]
    DotDot,
    /// A NUL byte in a name (two readers would cut it at different places).
    #[error("names with NUL are refused")]
    Nul,
    /// A file, link or device without a name.
    #[error("an entry that is not a directory needs a name")]
    EmptyName,
    /// A link without a target.
    #[error("a link needs a target")]
    EmptyTarget,
    /// Path or target longer than [`super::Limits::path_bytes`], or a component longer than 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// More components than [`super::Limits::depth`].
    #[error("the path is too deep")]
    TooDeep,
    /// A device or FIFO where the location does not accept them.
    #[error("devices and FIFOs are refused")]
    SpecialNode,
    /// An entry type that is not file, directory, link, device or FIFO.
    #[error("this entry type is refused")]
    UnknownType,
    /// A sparse file: its size on disk and in the archive differ, and readers disagree on it.
    #[error("sparse files are refused")]
    Sparse,
    /// A hard link to something that is not there, or that is not a file.
    #[error("the hard link's target is not a file in this tree")]
    LinkTarget,
    /// Something that is not a directory lies on the path, or a directory that is not empty is to be replaced.
    #[error("an earlier entry stands in the way")]
    InTheWay,
    /// A whiteout of `.`, `..` or nothing.
    #[error("a whiteout must name one file")]
    Whiteout,
    /// `trusted.overlay.*` attributes steer the overlay file system from inside a layer.
    #[error("overlay attributes are refused")]
    OverlayAttribute,
    /// `/dev`, `/proc` or `/sys` as a link or file: the runtime would follow it onto the host.
    #[error("/dev, /proc and /sys must be directories")]
    SystemDirectory,
    /// A zip has no place for it: a hard link, a device, a name that is not UTF-8.
    #[error("a zip cannot hold this entry")]
    NotForZip,
}

/// A rule about the archive's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FormatRule {
    /// The header's checksum is wrong: not a tar archive, or damaged.
    #[error("bad header checksum")]
    Checksum,
    /// A number field holds something else, or a negative or too large number.
    #[error("bad number in a header")]
    Number,
    /// A PAX record that is not `length key=value\n`.
    #[error("bad PAX record")]
    PaxRecord,
    /// An extension header over 1 MiB.
    #[error("extension header too large")]
    ExtensionSize,
    /// Repeated or mixed extension headers, or one that belongs to no entry: readers disagree on these.
    #[error("ambiguous extension headers")]
    AmbiguousExtensions,
    /// Global PAX headers may not set path, linkpath or size.
    #[error("a global header changes entries")]
    GlobalHeader,
    /// Something other than zeros after the end marker, or a lone zero block.
    #[error("data after the end of the archive")]
    TrailingData,
    /// The compressed stream is damaged, or asks for more memory than an archive may.
    #[error("damaged compressed data")]
    Compression,
    /// A zip that is damaged, encrypted or compressed in a way that is not read.
    #[error("the zip is damaged, or its entries cannot be read")]
    Zip,
}

/// Why an archive was refused or could not be used. Names in it are escaped, safe to print.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// One entry breaks a rule.
    #[error("entry {entry}: {rule}")]
    Entry {
        /// The entry's name, escaped.
        entry: String,
        /// The rule.
        rule: Rule,
    },
    /// The format is broken.
    #[error("archive at byte {at}: {rule}")]
    Format {
        /// Offset in the decompressed archive.
        at: u64,
        /// The rule.
        rule: FormatRule,
    },
    /// The stream ended before the archive did.
    #[error("archive is cut off after {at} bytes")]
    Truncated {
        /// Decompressed bytes seen.
        at: u64,
    },
    /// More decompressed bytes than allowed.
    #[error("archive unpacks to more than {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// More entries than allowed.
    #[error("archive has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// Expands more than allowed.
    #[error("archive expands more than {limit} times")]
    Ratio {
        /// The limit.
        limit: u64,
    },
    /// What was to become one thing is several, or nothing.
    #[error("{path} is no directory, and the archive has {entries} entries at its top, not one")]
    NotOne {
        /// The place, escaped.
        path: String,
        /// Entries at the top.
        entries: u64,
    },
    /// It took longer than allowed.
    #[error("the archive took longer than {} s", limit.as_secs())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// The stream could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The tree could not be written (or, for an export, read).
    #[error("cannot {act} {entry}")]
    Tree {
        /// What was tried, as a verb.
        act: &'static str,
        /// The entry's name, escaped.
        entry: String,
        /// The kernel's answer; `ENOSPC` when the tree is full.
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    /// Whether the tree had no room (`ENOSPC` or `EDQUOT`).
    pub fn is_no_space(&self) -> bool {
        matches!(self, ArchiveError::Tree { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the archive itself is at fault, and not the stream or the tree.
    pub fn is_bad_archive(&self) -> bool {
        !matches!(self, ArchiveError::Read(_) | ArchiveError::Tree { .. })
    }
}
