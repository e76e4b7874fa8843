//! `GET /metrics` on a listener of its own, which needs no credentials and tells nothing else.

use std::convert::Infallible;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// What OpenMetrics calls itself.
const FORM: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers scrapes with what `text` makes, until it is dropped.
pub(crate) async fn serve<F, T>(listener: TcpListener, text: F)
where
    F: Fn() -> T + Clone + Send + 'static,
    T: Future<Output = String> + Send,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let text = text.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let text = text.clone();
            async move { Ok::<_, Infallible>(answer(&request, text).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            // One scrape, one connection: nothing is left when the daemon ends.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a scrape was broken off");
            }
        });
    }
}

async fn answer<F, T, B>(request: &Request<B>, text: F) -> Response<String>
where
    F: Fn() -> T,
    T: Future<Output = String>,
{
    let (status, form, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, FORM, text().await),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        _ => {
            let text = "there is only /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain", text)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let form = header::HeaderValue::from_static(form);
    response.headers_mut().insert(header::CONTENT_TYPE, form);
    response
}
