//! Tar archives from people we do not trust: a strict reader, a bounded extractor and a writer.
//!
//! Everything here is synchronous and blocking; async callers run it on a blocking thread
//! (`tokio::task::spawn_blocking`, with `tokio_util::io::SyncIoBridge` around a stream).
//!
//! Rules, with the attack that taught each one, are listed in [`Rule`] and [`FormatRule`]. Three decisions:
//! - The reader is our own and strict, so that what *we* check is what any other reader would see: an archive
//!   that two tar readers could read differently (CVE-2025-62518) is refused, not interpreted.
//! - Paths are resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`), so an absolute symlink
//!   that is later used as a directory means what it means to a process that has the root as `/`.
//! - Bytes, entries, path length, depth and expansion ratio are bounded by [`Limits`] while reading.

mod build;
pub mod corpus;
mod decode;
mod error;
mod extract;
mod name;
mod root;
mod scan;
mod tar;
mod write;

pub use build::TarBuilder;
pub use decode::{Compression, Decoder};
pub use error::{ArchiveError, FormatRule, Rule};
pub use extract::{ExtractOptions, Extracted, extract, extract_from_ids, extract_owned};
pub use name::{EntryName, shown};
pub use root::Root;
pub use scan::{Scanned, check_layer_entry, scan};
pub use tar::{Entry, EntryKind, TarReader};
pub use write::write_tree;

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
    /// Whether character devices, block devices and FIFOs are accepted.
    pub special_nodes: bool,
}

impl Default for Limits {
    /// 16 GiB, a million entries, 200-fold past 64 MiB, PATH_MAX, 128 components, no special nodes.
    fn default() -> Limits {
        Limits {
            bytes: 16 << 30,
            entries: 1_000_000,
            ratio: 200,
            ratio_floor: 64 << 20,
            path_bytes: 4096,
            depth: 128,
            special_nodes: false,
        }
    }
}
