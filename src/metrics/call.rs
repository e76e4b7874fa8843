//! One call, from its first byte to its last.

use std::sync::Arc;
use std::time::Instant;

use super::{Method, Metrics, Outcome};

/// A call in flight. One that is dropped before it had a code was cancelled.
pub(crate) struct Call {
    metrics: Arc<Metrics>,
    method: String,
    started: Instant,
    ended: bool,
}

impl Call {
    /// A call begins.
    pub(crate) fn begin(metrics: &Arc<Metrics>, path: &str) -> Self {
        Self {
            metrics: metrics.clone(),
            method: path.trim_start_matches("/portlayer.v1.").to_owned(),
            started: Instant::now(),
            ended: false,
        }
    }

    /// It ended with this `grpc-status`; only the first counts.
    pub(crate) fn end_with(&mut self, status: &str) {
        self.end(name(status));
    }

    fn end(&mut self, code: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // A caller can make up as many methods as it likes.
        let method = match code {
            "unimplemented" => "unknown".to_owned(),
            _ => std::mem::take(&mut self.method),
        };
        let outcome = Outcome {
            method: method.clone(),
            code: code.to_owned(),
        };
        self.metrics.calls.get_or_create(&outcome).inc();
        let seconds = self.metrics.seconds.get_or_create(&Method { method });
        seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end("cancelled");
    }
}

/// The names of gRPC's status codes (<https://grpc.io/docs/guides/status-codes>).
fn name(status: &str) -> &'static str {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];
    let code = status.parse::<usize>().ok();
    code.and_then(|code| NAMES.get(code))
        .copied()
        .unwrap_or("unknown")
}
