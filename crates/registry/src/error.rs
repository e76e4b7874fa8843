//! Why an image could not be pulled.

use std::io;

use thiserror::Error;

/// Why an image could not be pulled. Texts name hosts, repositories and digests, never credentials, tokens or addresses a
/// registry redirected to.
#[derive(Debug, Error)]
pub enum PullError {
    /// The host cannot be reached or does not keep to its protocol.
    #[error("{host} cannot be asked for {what}")]
    Unreachable {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for too long, also after trying again.
    #[error("{host} stands still at byte {at} of {what}")]
    Stalled {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Bytes that came.
        at: u64,
    },
    /// It does not have it, or does not say so to us.
    #[error("{host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It wants credentials, or others.
    #[error("{host} refuses {what} to these credentials")]
    Unauthorized {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It answered with a status that means failure.
    #[error("{host} answered {status} for {what}")]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
    },
    /// What came is not what its digest says.
    #[error("{what} has digest {actual}")]
    Digest {
        /// The digest it was to have.
        what: String,
        /// The digest it has.
        actual: String,
    },
    /// It is longer or shorter than its descriptor says.
    #[error("{what} is not {expected} bytes long")]
    Size {
        /// Its digest.
        what: String,
        /// What the descriptor says.
        expected: u64,
    },
    /// The image is larger than allowed.
    #[error("the image has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What the manifest says.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A manifest or index that cannot be used.
    #[error("{what}: {rule}")]
    Document {
        /// Its digest.
        what: String,
        /// What is wrong.
        rule: &'static str,
    },
    /// The image is for other platforms.
    #[error("{what} has no image for {platform}")]
    Platform {
        /// The index.
        what: String,
        /// The platform.
        platform: String,
    },
    /// A redirect or token server to which nothing may be sent: without TLS, or one too many.
    #[error("{host} points to a place that is not allowed: {rule}")]
    Redirect {
        /// The registry.
        host: String,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The archive cannot be written.
    #[error("writing the archive failed")]
    Io(#[from] io::Error),
}

impl PullError {
    /// The registry answered and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            PullError::NotFound { .. } | PullError::Unauthorized { .. } | PullError::Status { .. }
        )
    }
}
