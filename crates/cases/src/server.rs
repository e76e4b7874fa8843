//! The file server and the hook server: record every request, answer by rule.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A server on a port of its own; runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    /// Serves files by name, with ETag and Last-Modified, except below `/no-etag/`.
    pub(crate) async fn files(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        Self::start(move |request| file(&files, request)).await
    }

    /// Takes whatever is posted.
    pub(crate) async fn hooks() -> Result<Self> {
        let flaky: Mutex<BTreeMap<String, u16>> = Mutex::default();
        Self::start(move |request| {
            let status = hook(&flaky, &request.path);
            answer(
                StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
                &[],
                Vec::new(),
            )
        })
        .await
    }

    async fn start(respond: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (record, respond) = (seen.clone(), Arc::new(respond));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (record, respond) = (record.clone(), respond.clone());
                let service = service_fn(move |request| {
                    let (record, respond) = (record.clone(), respond.clone());
                    async move {
                        let request = read(request).await;
                        let answer = respond(&request);
                        lock(&record).push(request);
                        Ok::<_, Infallible>(answer)
                    }
                });
                // A client that goes away is no error of ours.
                tokio::spawn(async move {
                    drop(
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    )
                });
            }
        });
        Ok(Self {
            address,
            seen,
            task,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes what was seen since the last time.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.seen))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(request: hyper::Request<Incoming>) -> Request {
    let (head, body) = request.into_parts();
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Request {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        // A body that breaks off is as short as it is.
        body: body
            .collect()
            .await
            .map(|body| body.to_bytes().to_vec())
            .unwrap_or_default(),
    }
}

fn answer(status: StatusCode, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse()) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn file(files: &BTreeMap<String, Vec<u8>>, request: &Request) -> Answer {
    let path = request
        .path
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_start_matches('/');
    let (name, plain) = match path.strip_prefix("no-etag/") {
        Some(name) => (name, true),
        None => (path, false),
    };
    let known = Some(request.method.as_str()) == Some(Method::GET.as_str());
    let Some(bytes) = files.get(name).filter(|_| known) else {
        return answer(StatusCode::NOT_FOUND, &[], Vec::new());
    };
    if plain {
        return answer(StatusCode::OK, &[], bytes.clone());
    }
    let etag = format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..16]);
    let validators = [
        ("etag", etag.as_str()),
        ("last-modified", "Thu, 01 Oct 2026 00:00:00 GMT"),
    ];
    match request.headers.get("if-none-match") {
        Some(asked) if *asked == etag => answer(StatusCode::NOT_MODIFIED, &validators, Vec::new()),
        _ => answer(StatusCode::OK, &validators, bytes.clone()),
    }
}

/// `/status/N` answers N; `/flaky503` 503, 504 and then 200; anything else 200.
fn hook(flaky: &Mutex<BTreeMap<String, u16>>, path: &str) -> u16 {
    let path = path.split('?').next().unwrap_or_default();
    if let Some(status) = path.strip_prefix("/status/") {
        return status
            .split('/')
            .next()
            .and_then(|status| status.parse().ok())
            .unwrap_or(200);
    }
    if path.starts_with("/flaky503") {
        let mut flaky = lock(flaky);
        let count = flaky.entry(path.to_owned()).or_default();
        *count += 1;
        return match *count {
            1 => 503,
            2 => 504,
            _ => 200,
        };
    }
    200
}
