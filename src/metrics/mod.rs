//! What the daemon measures, in the text form Prometheus reads (OpenMetrics). No ids are labels: there is no end to them.

mod call;
mod census;
mod core;
mod http;

use portlayer::PortLayer;
use portlayer::event::{Change, Event};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::core::Core;
pub(crate) use call::Call;
use census::Census;
pub(crate) use http::serve;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Changed {
    kind: &'static str,
    change: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What only the server knows at the moment of a scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// The engine answers.
    pub(crate) engine_up: bool,
    /// Calls in flight.
    pub(crate) calls: u64,
    /// Subscriptions among them.
    pub(crate) subscribers: u64,
}

/// All that is measured.
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<Outcome, Counter>,
    seconds: Family<Method, Histogram>,
    changes: Family<Changed, Counter>,
    exits: Family<Reason, Counter>,
    sequence: Gauge,
    engine_up: Gauge,
    in_flight: Gauge,
    subscribers: Gauge,
    gaps: Counter,
    core: Core,
    census: Census,
}

impl Metrics {
    /// Nothing measured yet.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("portlayer");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that serves", version);
        let calls = Family::default();
        registry.register("calls", "Calls that ended, by gRPC code", calls.clone());
        let seconds = Family::<Method, Histogram>::new_with_constructor(|| {
            // 100 microseconds to 26 seconds.
            Histogram::new(exponential_buckets(0.0001, 4.0, 10))
        });
        let help = "How long calls took, streams to their end";
        registry.register_with_unit("call", help, Unit::Seconds, seconds.clone());
        let changes = Family::default();
        registry.register("changes", "Events since the start", changes.clone());
        let exits = Family::default();
        registry.register(
            "task_exits",
            "Runs that ended since the start",
            exits.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let sequence = gauge("events_sequence", "The sequence of the last event");
        let engine_up = gauge("engine_up", "1 when the engine answers");
        let in_flight = gauge("calls_in_flight", "Calls that have not ended");
        let subscribers = gauge("event_subscribers", "Subscriptions to events");
        let gaps = Counter::default();
        let help = "Gaps told to subscribers that were too slow or too late";
        registry.register("event_gaps", help, gaps.clone());
        let core = Core::new(&mut registry);
        let census = Census::new(&mut registry);
        Self {
            registry,
            calls,
            seconds,
            changes,
            exits,
            sequence,
            engine_up,
            in_flight,
            subscribers,
            gaps,
            core,
            census,
        }
    }

    /// Counts an event.
    pub(crate) fn count(&self, event: &Event) {
        let changed = Changed {
            kind: event.id.kind().as_str(),
            change: event.change.as_str(),
        };
        self.changes.get_or_create(&changed).inc();
        if let Change::Unbound {
            exit: Some(exit), ..
        } = &event.change
        {
            let reason = exit.reason.as_str();
            self.exits.get_or_create(&Reason { reason }).inc();
        }
    }

    /// A subscriber was told so many gaps.
    pub(crate) fn count_gaps(&self, gaps: u64) {
        self.gaps.inc_by(gaps);
    }

    /// Everything as text. Elements are counted at most every half minute, and less often when that takes long.
    pub(crate) async fn text(&self, layer: &PortLayer, now: Now) -> String {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.sequence.set(number(layer.last_sequence()));
        self.engine_up.set(now.engine_up.into());
        self.in_flight.set(number(now.calls));
        self.subscribers.set(number(now.subscribers));
        let engine = layer.engine_status().borrow().clone();
        self.core.take(&layer.figures(), &engine);
        self.census.take(layer).await;
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes all that is written to it");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn calls_are_counted_by_code_and_unknown_methods_are_one() {
        let metrics = Arc::new(Metrics::new());
        let call = |path: &str, code: &str| {
            let mut call = Call::begin(&metrics, path);
            call.end_with(code);
        };
        call("/portlayer.v1.ElementsService/Read", "0");
        call("/portlayer.v1.ElementsService/Read", "5");
        call("/made/up", "12");
        drop(Call::begin(
            &metrics,
            "/portlayer.v1.EventsService/Subscribe",
        ));
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        for line in [
            r#"portlayer_calls_total{method="ElementsService/Read",code="ok"} 1"#,
            r#"portlayer_calls_total{method="ElementsService/Read",code="not_found"} 1"#,
            r#"portlayer_calls_total{method="unknown",code="unimplemented"} 1"#,
            r#"portlayer_calls_total{method="EventsService/Subscribe",code="cancelled"} 1"#,
            r#"portlayer_call_seconds_count{method="ElementsService/Read"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
