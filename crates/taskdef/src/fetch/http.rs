//! HTTP and HTTPS.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Answer, Fetch, FetchError, SendFile, Validators};

/// Connecting, and every pause of the other side.
const IDLE: Duration = Duration::from_secs(10);
/// One request from its first to its last byte.
const REQUEST: Duration = Duration::from_secs(600);
/// Redirects that are followed, from and to http and https only.
const REDIRECTS: usize = 10;

/// A client. Cloning shares its connections.
#[derive(Debug, Clone)]
pub struct Http(Client);

impl Http {
    /// A client with the roots of Mozilla. Error: TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(IDLE)
            .read_timeout(IDLE)
            .timeout(REQUEST)
            .redirect(redirect::Policy::limited(REDIRECTS))
            .user_agent(concat!("portlayer/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(client))
    }
}

fn parse(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|_| FetchError::Url)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(FetchError::Url),
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// A failure without the URL, which may hold a secret, and with its causes.
fn failed(host: &str, error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let host = host.to_owned();
    match error.is_connect() {
        true => FetchError::Connection { host, text },
        false => FetchError::Interrupted { host, text },
    }
}

fn validators(headers: &HeaderMap) -> Validators {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    Validators {
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
    }
}

#[async_trait]
impl Fetch for Http {
    async fn get(&self, url: &str, known: Option<&Validators>) -> Result<Answer, FetchError> {
        let url = parse(url)?;
        let host = host(&url);
        let mut request = self.0.get(url);
        let known = known.filter(|known| !known.is_empty());
        if let Some(known) = known {
            if let Some(etag) = &known.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(time) = &known.last_modified {
                request = request.header(IF_MODIFIED_SINCE, time);
            }
        }
        let answer = request.send().await.map_err(|error| failed(&host, error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::NotModified),
            status => {
                let status = status.as_u16();
                return Err(FetchError::Status { host, status });
            }
        }
        let validators = validators(answer.headers());
        let bytes = answer
            .bytes_stream()
            .map_err(|error| io::Error::other(error.without_url()));
        Ok(Answer::Body {
            validators,
            bytes: Box::pin(StreamReader::new(bytes)),
        })
    }

    async fn post_file(&self, url: &str, file: &SendFile<'_>) -> Result<(), FetchError> {
        let url = parse(url)?;
        let host = host(&url);
        let content = tokio::fs::File::open(file.path).await?;
        let request = self
            .0
            .post(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, file.bytes)
            .header("Content-MD5", &file.md5)
            .header("Content-Digest", format!("sha-256=:{}:", file.sha256))
            .body(reqwest::Body::wrap_stream(ReaderStream::new(content)));
        let answer = request.send().await.map_err(|error| failed(&host, error))?;
        let status = answer.status().as_u16();
        match status < 400 {
            true => Ok(()),
            false => Err(FetchError::Status { host, status }),
        }
    }

    async fn post_json(
        &self,
        url: &str,
        json: Vec<u8>,
        timeout: Duration,
    ) -> Result<u16, FetchError> {
        let url = parse(url)?;
        let host = host(&url);
        let request = self
            .0
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .timeout(timeout)
            .body(json);
        let answer: Response = request.send().await.map_err(|error| failed(&host, error))?;
        Ok(answer.status().as_u16())
    }
}
