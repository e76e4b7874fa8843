//! Spans to an OpenTelemetry collector, as OTLP over gRPC: one per call, and one per step of its commit.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// The name the collector sees.
const SERVICE: &str = "portlayer";

/// Why no spans can be sent.
#[derive(Debug, Error)]
#[error("spans cannot be sent to {endpoint}")]
pub struct TraceError {
    endpoint: String,
    #[source]
    source: ExporterBuildError,
}

/// Sends spans in the background; what is left is sent when it is dropped, which may take some seconds. A collector that is
/// away costs nothing but its spans.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// To the collector at `http://host:port`. Must be called in a tokio runtime, which must be there when it is dropped. The
    /// collector need not be there yet.
    pub fn start(endpoint: &str) -> Result<Self, TraceError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let exporter = exporter.build().map_err(|source| TraceError {
            endpoint: endpoint.to_owned(),
            source,
        })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name(SERVICE).build());
        Ok(Self(provider.build()))
    }

    /// What hands our spans over. Those of libraries stay here: the exporter's own would beget spans for ever.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.tracer(SERVICE);
        let ours = Targets::new().with_target("portlayer", LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(ours)
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
