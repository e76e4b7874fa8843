//! grpc.health.v1, driven by asking the engine: NOT_SERVING while it is away, until what ran was found again after a loss
//! of it, and while the daemon drains.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use portlayer_proto::v1::compositions_service_server::SERVICE_NAME as COMPOSITIONS;
use portlayer_proto::v1::diego_service_server::SERVICE_NAME as DIEGO;
use portlayer_proto::v1::elements_service_server::SERVICE_NAME as ELEMENTS;
use portlayer_proto::v1::events_service_server::SERVICE_NAME as EVENTS;
use portlayer_proto::v1::node_service_server::SERVICE_NAME as NODE;
use portlayer_proto::v1::tasks_service_server::SERVICE_NAME as TASKS;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::Shared;

/// How often the engine is asked.
const EVERY: Duration = Duration::from_secs(1);
/// The services that need the engine; the empty name is the daemon as a whole.
const NEED_ENGINE: [&str; 5] = ["", ELEMENTS, COMPOSITIONS, TASKS, DIEGO];
/// The services that do not.
const NEED_NOTHING: [&str; 2] = [EVENTS, NODE];

/// The health service, kept up to date until the server is gone.
pub(super) fn start(shared: &Arc<Shared>) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(watch(Arc::downgrade(shared), reporter));
    service
}

async fn watch(shared: Weak<Shared>, reporter: HealthReporter) {
    let mut was = None;
    let Some(mut engine) = shared.upgrade().map(|shared| shared.layer.engine_status()) else {
        return;
    };
    loop {
        engine.mark_unchanged();
        let Some(now) = look(&shared).await else {
            return;
        };
        if was != Some(now) {
            report(&reporter, now).await;
        }
        was = Some(now);
        let Some(drain) = shared.upgrade().map(|shared| shared.drain.clone()) else {
            return;
        };
        if now.draining {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // Lost, or back with everything that ran.
            Ok(()) = engine.changed() => {}
            () = drain.cancelled() => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    engine: bool,
    draining: bool,
}

async fn look(shared: &Weak<Shared>) -> Option<State> {
    let shared = shared.upgrade()?;
    let draining = shared.drain.is_cancelled();
    let attached = shared.layer.engine_status().borrow().is_attached();
    let engine = match shared.layer.ping_engine().await {
        Ok(()) => attached,
        Err(error) => {
            if shared.engine_available.load(Ordering::Relaxed) {
                tracing::warn!(%error, "the engine is away");
            }
            false
        }
    };
    shared.engine_available.store(engine, Ordering::Relaxed);
    Some(State { engine, draining })
}

async fn report(reporter: &HealthReporter, state: State) {
    let status = |serving| {
        if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    };
    for service in NEED_ENGINE {
        let serving = state.engine && !state.draining;
        reporter.set_service_status(service, status(serving)).await;
    }
    for service in NEED_NOTHING {
        let serving = !state.draining;
        reporter.set_service_status(service, status(serving)).await;
    }
}
