//! Files on the move: archives from people we do not trust, trees made into archives, single files out of trees.
//!
//! A strict reader, a bounded extractor and writers, of tar (plain, gzip, bzip2, xz, zstd) and zip. A zip is made a tar
//! first, so that one extractor with one set of rules serves both.
//!
//! Everything here is synchronous and blocking; async callers run it on a blocking thread
//! (`tokio::task::spawn_blocking`, with `tokio_util::io::SyncIoBridge` around a stream).
//!
//! Rules, with the attack that taught each one, are listed in [`Rule`] and [`FormatRule`]. Three decisions:
//! - The reader is our own and strict, so that what *we* check is what any other reader would see: an archive
//!   that two tar readers could read differently (CVE-2025-62518) is refused, not interpreted.
//! - Paths are resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`), so an absolute symlink
//!   that is later used as a directory means what it means to a process that has the root as `/`.
//! - Bytes, entries, path length, depth, expansion ratio and time are bounded by [`Limits`] while reading.
//! - What comes into a tree that others use is extracted into a private directory beside its place first, then moved
//!   ([`place`]).

use std::time::Duration;

mod build;
pub mod corpus;
mod decode;
mod encode;
mod error;
mod extract;
mod file;
mod name;
mod place;
mod root;
mod scan;
mod tar;
mod write;
mod zip;

pub use build::TarBuilder;
pub use decode::{Compression, Decoder};
pub use encode::{Encoder, Packing};
pub use error::{ArchiveError, FormatRule, Rule};
pub use extract::{
    Attributes, ExtractOptions, Extracted, extract, extract_from_ids, extract_mapped, extract_owned,
};
pub use file::{FileError, open_file, read_file};
pub use name::{EntryName, shown};
pub use place::place;
pub use root::Root;
pub use scan::{Scanned, check_layer_entry, scan};
pub use tar::{Entry, EntryKind, TarReader};
pub use write::{WriteOptions, Written, write_at, write_tree};
pub use zip::{tar_of_zip, zip_of_tar};

/// What an archive may cost. Every limit is inclusive: a value equal to it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the decompressed archive, headers included.
    pub bytes: u64,
    /// Entries, extension headers not counted.
    pub entries: u64,
    /// Decompressed bytes for each compressed byte; looked at only past [`Limits::ratio_floor`].
    pub ratio: u64,
    /// Decompressed bytes below which the ratio is not looked at (a short run of zeros packs very well).
    pub ratio_floor: u64,
    /// Bytes of one entry's path or link target.
    pub path_bytes: usize,
    /// Components of one entry's path.
    pub depth: usize,
    /// Time from the first byte to the last, looked at whenever bytes are read.
    pub time: Duration,
    /// Whether character devices, block devices and FIFOs are accepted.
    pub special_nodes: bool,
}

impl Default for Limits {
    /// 16 GiB, a million entries, 200-fold past 64 MiB, PATH_MAX, 128 components, two hours, no special nodes.
    fn default() -> Limits {
        Limits {
            bytes: 16 << 30,
            entries: 1_000_000,
            ratio: 200,
            ratio_floor: 64 << 20,
            path_bytes: 4096,
            depth: 128,
            time: Duration::from_secs(2 * 3600),
            special_nodes: false,
        }
    }
}
