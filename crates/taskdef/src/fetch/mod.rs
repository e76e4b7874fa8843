//! Bytes from and to URLs: the trait, its HTTP implementation, and the fetcher that adds retries, sums and the cache.

mod cache;
mod http;
pub(crate) mod size;
mod sum;
mod zip;

use std::path::Path;

use async_trait::async_trait;
use portlayer::element::DataStream;
use thiserror::Error;

pub use cache::{Fetched, Fetcher};
pub use http::Http;
pub(crate) use sum::Sums;
pub(crate) use zip::{Packing, packing, tar_of_zip};

/// What tells one version of a URL's content from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// ETag.
    pub etag: Option<String>,
    /// Last-Modified.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Whether there is none: then nothing can be asked for conditionally.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// What a server answered to a download.
pub enum Answer {
    /// The content is what the validators name.
    NotModified,
    /// The content.
    Body {
        /// Its validators.
        validators: Validators,
        /// Its bytes; an error ends the attempt.
        bytes: DataStream,
    },
}

/// A file to send.
#[derive(Debug)]
pub struct SendFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its size in bytes.
    pub bytes: u64,
    /// Base64 of its MD5.
    pub md5: String,
    /// Base64 of its SHA-256.
    pub sha256: String,
}

/// Why bytes could not be moved. No text holds the URL's path, query or user: they may be secrets.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Not a URL that can be used.
    #[error("the URL cannot be used")]
    Url,
    /// The server answered with another status than hoped for.
    #[error("{host} answered with status {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// The connection: name, address, TLS, time.
    #[error("{host} cannot be reached: {text}")]
    Connection {
        /// The host.
        host: String,
        /// What the client said, without the URL.
        text: String,
    },
    /// The connection was there and the answer did not come: time, or the other side closed it.
    #[error("{host} did not answer: {text}")]
    Interrupted {
        /// The host.
        host: String,
        /// What the client said, without the URL.
        text: String,
    },
    /// The content has another sum. Not worth repeating.
    #[error("{algorithm} is {actual}, expected {expected}")]
    Checksum {
        /// The function.
        algorithm: &'static str,
        /// What the bytes give.
        actual: String,
        /// What was demanded.
        expected: String,
    },
    /// The content is larger than is taken.
    #[error("more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The content is no archive of a kind that can be extracted, or another than promised.
    #[error("{0}")]
    Format(&'static str),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Our own files.
    #[error("storing what is fetched failed")]
    Io(#[from] std::io::Error),
}

impl FetchError {
    /// Whether another attempt may end otherwise.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            FetchError::Status { .. }
                | FetchError::Connection { .. }
                | FetchError::Interrupted { .. }
        )
    }
}

/// Moves bytes from and to URLs; one attempt each. Implementations bound the time of a request.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// Asks for the content of a URL, unless it is still what `known` names.
    async fn get(&self, url: &str, known: Option<&Validators>) -> Result<Answer, FetchError>;

    /// Posts a file. Every status below 400 is success.
    async fn post_file(&self, url: &str, file: &SendFile<'_>) -> Result<(), FetchError>;

    /// Posts a JSON document and answers the status, whatever it is.
    async fn post_json(
        &self,
        url: &str,
        json: Vec<u8>,
        timeout: std::time::Duration,
    ) -> Result<u16, FetchError>;
}
