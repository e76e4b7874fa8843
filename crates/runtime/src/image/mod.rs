//! Images: a data stream becomes content and snapshots in containerd.
//!
//! ```text
//! stream -> spool (summed, bounded) -> form? -> documents -> every layer read against the rules     nothing outside us
//!        -> lease -> content -> unpack layer by layer -> containerd image record -> lease deleted    containerd
//! ```
//!
//! An image element is one containerd image record named after it. It refers to the manifest, that to configuration
//! and layers, and the configuration to the top snapshot, all by containerd's own reference labels; so what two
//! images share is kept as long as one of them is there, by containerd's collector and not by counting of ours.
//! Whatever fails, deleting the lease collects what was made.
//!
//! Keys in the record: `manifest` (digest), `snapshot` (chain id of the top layer; empty for an image without layers),
//! `snapshotter`.

mod archive;
mod config;
mod content;
mod digest;
mod export;
mod fault;
mod spool;
mod store;
mod unpack;

use std::path::Path;

use portlayer::archive::Limits;
use portlayer::store::StoreError;

pub use config::native_architecture;
pub use digest::chain_ids;
pub use fault::ImageRule;
pub(crate) use spool::spool;
pub use store::{ImageStore, ImageStoreConfig};

/// Record key: digest of the manifest.
pub const KEY_MANIFEST: &str = "manifest";
/// Record key: name of the top layer's snapshot; empty for an image without layers.
pub const KEY_SNAPSHOT: &str = "snapshot";
/// Record key: the snapshotter it is in.
pub const KEY_SNAPSHOTTER: &str = "snapshotter";

/// What an image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the data stream.
    pub data_bytes: u64,
    /// For each layer; the bytes are for all layers together.
    pub layer: Limits,
}

impl Default for ImageLimits {
    /// 16 GiB of data, and [`Limits::default`] for the layers.
    fn default() -> ImageLimits {
        ImageLimits {
            data_bytes: 16 << 30,
            layer: Limits::default(),
        }
    }
}

impl ImageLimits {
    /// An uncompressed archive holds what the layers hold, and documents.
    fn archive_bytes(&self) -> u64 {
        self.layer.bytes.max(self.data_bytes)
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    verb: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StoreError::Backend {
            verb,
            object: "a blocking task".to_owned(),
            source: Box::new(e),
        })
}

/// What a failed file operation means to a store.
pub(crate) fn io_failed(verb: &'static str, path: &Path, error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::InsufficientSpace {
                need_bytes: 0,
                have_bytes: 0,
            }
        }
        _ => StoreError::Backend {
            verb,
            object: path.display().to_string(),
            source: Box::new(error),
        },
    }
}
