//! Which locations can be used right now.
//!
//! Every location with a store is probed at open, then every ten seconds (every second while it is away), and at once
//! when a call finds it away. A probe that does not answer in time counts as away and is left waiting, so a hung network mount holds one probe and
//! nothing else. Elements of a location that is away can be read (their state says so), not used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{ElementId, Kind};
use crate::PortLayer;
use crate::error::LocationError;
use crate::event::Change;
use crate::ledger::{Ledger, LedgerError};
use crate::port_layer::Shared;
use crate::store::{Location, Store, StoreError};

/// Time between two probes of a location.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same while it is away.
const INTERVAL_AWAY: Duration = Duration::from_secs(1);
/// Time a probe has to answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// The state of the locations. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Health {
    /// The unusable ones, with the reason for people.
    away: Arc<Mutex<BTreeMap<String, String>>>,
    /// Woken to probe now.
    suspicion: Arc<Notify>,
}

impl Health {
    /// Error: `Unavailable` while the location cannot be used.
    pub(crate) fn check(&self, location: &str) -> Result<(), LocationError> {
        match self.lock().get(location) {
            None => Ok(()),
            Some(reason) => Err(LocationError::Unavailable {
                location: location.to_owned(),
                reason: reason.clone(),
            }),
        }
    }

    /// A store failed: probe now if it says it is away.
    pub(crate) fn suspect(&self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_)) {
            self.suspicion.notify_waiters();
        }
    }

    /// Takes the outcome of a probe; true when the state flipped.
    fn set(&self, location: &str, reason: Option<String>) -> bool {
        let mut away = self.lock();
        let was_away = away.contains_key(location);
        let flipped = was_away != reason.is_some();
        match reason {
            Some(reason) => {
                away.insert(location.to_owned(), reason);
            }
            None => {
                away.remove(location);
            }
        }
        flipped
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortLayer {
    /// Probes every location once and goes on doing so until the port layer is closed. Returns when each has answered
    /// or its time is over.
    pub(crate) async fn watch_locations(&self) {
        let probes = self.shared.locations.values().filter_map(|location| {
            let store = location.store.clone()?;
            Some(self.watch(location, store))
        });
        futures::future::join_all(probes).await;
    }

    async fn watch(&self, location: &Location, store: Arc<dyn Store>) {
        let mut probe = Probe {
            store,
            running: None,
        };
        let outcome = probe.run().await;
        note(&self.shared.health, &self.shared.ledger, location, outcome).await;
        let (shared, location) = (Arc::downgrade(&self.shared), location.clone());
        tokio::spawn(keep_watching(shared, location, probe));
    }
}

async fn keep_watching(shared: Weak<Shared>, location: Location, mut probe: Probe) {
    let Some(suspicion) = shared
        .upgrade()
        .map(|shared| shared.health.suspicion.clone())
    else {
        return;
    };
    loop {
        let away = shared
            .upgrade()
            .is_none_or(|shared| shared.health.check(&location.name).is_err());
        let interval = if away { INTERVAL_AWAY } else { INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = suspicion.notified() => {}
        }
        if shared.strong_count() == 0 {
            return;
        }
        let outcome = probe.run().await;
        // Held for the note only: a watcher does not keep the ledger open.
        let Some(shared) = shared.upgrade() else {
            return;
        };
        note(&shared.health, &shared.ledger, &location, outcome).await;
    }
}

/// The probes of one location, at most one running.
struct Probe {
    store: Arc<dyn Store>,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Probe {
    /// Why the location cannot be used; `None` = it can.
    async fn run(&mut self) -> Option<String> {
        let store = self.store.clone();
        let running = self
            .running
            .get_or_insert_with(|| tokio::spawn(async move { store.health().await }));
        let Ok(answer) = tokio::time::timeout(DEADLINE, &mut *running).await else {
            return Some(format!("no answer within {} seconds", DEADLINE.as_secs()));
        };
        self.running = None;
        match answer {
            Ok(Ok(())) => None,
            Ok(Err(StoreError::Unavailable(reason))) => Some(reason),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the probe failed".into()),
        }
    }
}

/// The id that stands for a whole location where an id is needed: `<kind>://<location>/_`, which no element can have.
pub(crate) fn stand_in(location: &Location) -> Option<ElementId> {
    let kind = location.kinds.first().copied().unwrap_or(Kind::Image);
    ElementId::new(kind, &location.name, "_").ok()
}

async fn note(health: &Health, ledger: &Ledger, location: &Location, outcome: Option<String>) {
    let reason = outcome.clone().unwrap_or_default();
    if !health.set(&location.name, outcome.clone()) {
        return;
    }
    tracing::warn!(location = %location.name, available = outcome.is_none(), reason, "location health changed");
    let Some(id) = stand_in(location) else {
        return;
    };
    let change = Change::LocationHealth {
        location: location.name.clone(),
        available: outcome.is_none(),
        reason,
    };
    let noted: Result<(), LedgerError> = ledger
        .write(move |txn| {
            txn.emit(&id, 0, change);
            Ok(())
        })
        .await;
    if let Err(error) = noted {
        tracing::warn!(location = %location.name, %error, "the event of a location's health is missing");
    }
}
