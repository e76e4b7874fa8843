//! The gate every call passes: is the daemon draining, may the peer, then a span and a count around the call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};
use tracing::Instrument;

use super::auth::{Caller, Origin, check, identify};
use super::{Shared, draining};
use crate::metrics::Call;

/// Puts the gate before the services of one listener.
#[derive(Clone)]
pub(super) struct GateLayer {
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Origin,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            gate: self.clone(),
            inner,
        }
    }
}

/// The services behind the gate.
#[derive(Clone)]
pub(super) struct Gate<S> {
    gate: GateLayer,
    inner: S,
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer<S::Error> {
        let GateLayer { shared, origin } = &self.gate;
        if shared.drain.is_cancelled() {
            return refuse(draining());
        }
        let path = request.uri().path();
        let (actor, role) = identify(*origin, request.extensions(), &shared.access);
        let role = match check(path, &actor, role) {
            Ok(role) => role,
            Err(fault) => {
                tracing::warn!(%actor, method = path, reason = fault.reason, "a call was refused");
                return refuse(fault.into_status());
            }
        };
        let span = tracing::info_span!(
            "call",
            method = path,
            actor,
            id = tracing::field::Empty,
            revision = tracing::field::Empty,
        );
        let mut call = Call::begin(&shared.metrics, path);
        let caller = Caller {
            layer: shared.layer.with_actor(&actor),
            actor: actor.into(),
            role,
        };
        request.extensions_mut().insert(caller);
        let counted = Counted::new(&shared.calls);
        let answer = self.inner.call(request);
        let answer = async move {
            let response = answer.await?;
            // A refusal is all headers and has no trailers.
            end_with(&mut call, response.headers());
            Ok(response.map(|body| {
                Body::new(CountedBody {
                    body,
                    call,
                    counted,
                })
            }))
        };
        Box::pin(answer.instrument(span))
    }
}

/// The code of a call is in its last headers.
fn end_with(call: &mut Call, headers: &HeaderMap) {
    let status = headers.get("grpc-status");
    if let Some(status) = status.and_then(|status| status.to_str().ok()) {
        call.end_with(status);
    }
}

fn refuse<E: Send + 'static>(status: tonic::Status) -> Answer<E> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// Counts one for as long as it lives.
pub(super) struct Counted(Arc<AtomicU64>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that counts as a call until its last byte.
struct CountedBody {
    body: Body,
    call: Call,
    #[allow(dead_code, reason = "its drop is its use")]
    counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            end_with(&mut self.call, trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
