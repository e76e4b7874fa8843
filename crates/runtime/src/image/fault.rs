//! What can be wrong with an image, as a whole; faults inside a layer are `ArchiveError`.

use portlayer::archive::shown;
use portlayer::store::StoreError;

/// A rule an image document or blob breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRule {
    /// Not the JSON it should be.
    #[error("not a valid document: {0}")]
    Json(String),
    /// A document over the size bound.
    #[error("document larger than {0} bytes")]
    DocumentSize(u64),
    /// Named by another document, but not in the archive.
    #[error("not in the archive")]
    Missing,
    /// The bytes have another digest or size than the document that names them says.
    #[error("its bytes do not match its digest or size")]
    Digest,
    /// Not `sha256:<64 lower-case hex digits>`.
    #[error("not a sha256 digest")]
    DigestFormat,
    /// A layer's content has another sum than the configuration says.
    #[error("the layer's content does not match the diff id {0}")]
    DiffId(String),
    /// The configuration names another number of layers than the manifest.
    #[error("the configuration names {config} layers, the manifest {manifest}")]
    LayerCount {
        /// In the configuration.
        config: usize,
        /// In the manifest.
        manifest: usize,
    },
    /// More layers than an overlay takes.
    #[error("more than {0} layers")]
    TooManyLayers(usize),
    /// No image for this machine's platform.
    #[error("for another platform: {0}")]
    Platform(String),
    /// Several images fit.
    #[error("several images fit this platform")]
    Ambiguous,
    /// A media type we do not read.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// Indexes nested too deeply.
    #[error("indexes are nested too deeply")]
    Nesting,
    /// A bad environment entry.
    #[error("bad environment entry")]
    Environment,
    /// A stop signal that is none.
    #[error("unknown stop signal {0}")]
    StopSignal(String),
    /// An archive that looks like an image archive with too many files to be one.
    #[error("too many files for an image archive")]
    TooManyFiles,
}

/// The error for a document or blob that breaks a rule.
pub(super) fn refuse(entry: &str, rule: ImageRule) -> StoreError {
    let rule = match rule {
        // These carry text of the archive: made safe to show.
        ImageRule::Json(text) => ImageRule::Json(shown(text.as_bytes())),
        ImageRule::Platform(text) => ImageRule::Platform(shown(text.as_bytes())),
        ImageRule::MediaType(text) => ImageRule::MediaType(shown(text.as_bytes())),
        ImageRule::StopSignal(text) => ImageRule::StopSignal(shown(text.as_bytes())),
        other => other,
    };
    StoreError::RefusedEntry {
        entry: entry.to_owned(),
        rule: rule.to_string(),
    }
}
