//! What open does before it serves: the ledger is compared with the engine.
//!
//! 1. Commits whose intent is still in the ledger never finished: what they made is removed, what they claimed is
//!    released. They were not acknowledged. One whose record is durable already is finished instead, at the end.
//! 2. Containers with processes that no running executor owns are purged, volumes attached for nobody detached.
//! 3. Running executors get their drivers back: ends are watched again, deadlines go on, what ended while nobody
//!    watched gets its true exit record, marked reconciled; what the engine does not know any more is lost.
//!
//! 4. Everything else that nobody owns - dead containers, snapshots, leases, mounts, cgroups, FIFOs, logs, bytes without a
//!    record - is swept while we serve (see `leftovers`).
//!
//! One bad record never stops an open: it is logged, and its element is left as it is.

mod engine;
mod leftovers;

pub use engine::{EngineStatus, Reconciled};

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use crate::compose::{Intent, TaskError, patiently, unclaim};
use crate::element::{Body, ElementId, ExecutorBody, Kind, Record, State};
use crate::ledger::LedgerError;
use crate::runtime::{
    BridgePlan, ContainerId, Finding, FindingClass, ProcessId, RuntimeError, Scope,
};
use crate::{OpenError, Operation, PortLayer};

/// Containers purged at once.
const AT_ONCE: usize = 16;
/// Executors taken over at once: each mostly waits, for the engine's answer and for its output to be read.
const ADOPTED_AT_ONCE: usize = 64;
/// Records read at once.
const PAGE: usize = 1000;

/// What runs: a container of which nothing but these is left is in nobody's way.
const RUNS: [FindingClass; 3] = [
    FindingClass::Process,
    FindingClass::Shim,
    FindingClass::RuncState,
];

/// What a live executor has in the engine.
struct Live {
    /// Its container, unless it waits for a restart.
    container: Option<ContainerId>,
    /// Volumes that are attached for it.
    volumes: Vec<ElementId>,
    /// The network it is connected to.
    connection: Option<BridgePlan>,
}

impl PortLayer {
    /// Compares ledger and engine and mends the difference. Returns what nobody owns and nobody is endangered by: it is
    /// removed while we serve. Errors: the ledger cannot be read, the engine not listed.
    pub(crate) async fn recover(&self) -> Result<Vec<Finding>, OpenError> {
        // However it ends.
        let _taken_over = self.shared.composer.node.taken_over.clone().drop_guard();
        let mut unfinished = BTreeSet::new();
        for (executor, intent) in self.shared.ledger.intents::<Intent>()? {
            match intent {
                // Its record cannot be taken back: it is finished when the executor is taken over.
                Ok(intent) if intent.rest.is_some() => {
                    unfinished.insert(executor);
                }
                Ok(intent) => self.roll_back(&executor, &intent).await,
                // The container, if there is one, is purged below as nobody's.
                Err(error) => tracing::error!(%executor, %error, "an intent cannot be read"),
            }
        }
        let reader = self.clone();
        let live = tokio::task::spawn_blocking(move || reader.live_executors());
        let live = live.await.map_err(|_| LedgerError::Closed)??;
        let found = patiently(|| self.shared.runtime.audit()).await;
        let leftovers = self
            .purge_strangers(&live, found.map_err(OpenError::Runtime)?)
            .await;
        self.detach_leftovers(&live).await;
        self.restore_networks(&live).await;
        unfinished.extend(live.into_keys());
        let mut adoptions = futures::stream::iter(unfinished)
            .map(|executor| async move {
                crate::crash::point("recover.before-adopt");
                let adopted: Result<(), TaskError> = self.adopt(&executor).await;
                (executor, adopted)
            })
            .buffer_unordered(ADOPTED_AT_ONCE);
        while let Some((executor, adopted)) = adoptions.next().await {
            crate::crash::point("recover.after-adopt");
            if let Err(error) = adopted {
                tracing::error!(%executor, %error, "taking over a running executor failed");
            }
        }
        Ok(leftovers)
    }

    /// Connections of running executors are made what their records say, and what others left of theirs is removed. A
    /// failure is logged: the runtime has cut off what it could not give its rules.
    async fn restore_networks(&self, live: &BTreeMap<ElementId, Live>) {
        let connected = live.values().filter_map(|live| {
            let plan = live.connection.clone()?;
            Some((live.container.clone()?, plan))
        });
        let connected: Vec<_> = connected.collect();
        if let Err(error) = self.shared.runtime.restore_networks(&connected).await {
            tracing::error!(%error, text = error.text, "restoring the networks of executors failed");
        }
    }

    /// Executors that run or wait for a restart. Reads every executor once, which is most of an open with many of them.
    fn live_executors(&self) -> Result<BTreeMap<ElementId, Live>, LedgerError> {
        let mut live = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .shared
                .ledger
                .list("executor://", after.as_deref(), PAGE, is_live)?;
            for record in page.records {
                if let Body::Executor(body) = &record.body {
                    let runs = matches!(record.state, State::Running | State::Paused);
                    let container = ContainerId::new(&record.id, body.composition.generation);
                    let node = &self.shared.composer.node;
                    let connection = runs.then(|| node.connected(&record, body)).flatten();
                    let joined = body.composition.joined.keys().cloned();
                    let live_one = Live {
                        container: runs.then_some(container),
                        volumes: joined
                            .filter(|id| runs && id.kind() == Kind::Volume)
                            .collect(),
                        connection,
                    };
                    live.insert(record.id.clone(), live_one);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(live),
            }
        }
    }

    /// Purges containers that have processes and that no live executor owns. Returns what else is there of containers
    /// nobody owns, and of what is not a container's; names of these containers are not used again.
    async fn purge_strangers(
        &self,
        live: &BTreeMap<ElementId, Live>,
        found: Vec<Finding>,
    ) -> Vec<Finding> {
        let owned: BTreeSet<_> = live
            .values()
            .filter_map(|live| live.container.clone())
            .collect();
        let mut strangers = BTreeSet::new();
        let mut leftovers = Vec::new();
        for finding in found {
            match finding.container() {
                // The lease of a commit that was recorded, or a stranger's: no commit is in flight any more.
                Some(_) if finding.class == FindingClass::Lease => leftovers.push(finding),
                Some(container) if owned.contains(&container) => {}
                Some(container) if RUNS.contains(&finding.class) => {
                    strangers.insert(container);
                }
                _ => leftovers.push(finding),
            }
        }
        leftovers.retain(|finding| {
            finding
                .container()
                .is_none_or(|id| !strangers.contains(&id))
        });
        let names = leftovers.iter().filter_map(Finding::container);
        self.shared
            .composer
            .node
            .reserve(names.chain(strangers.iter().cloned()));
        let purges = strangers.into_iter().map(|container| async move {
            tracing::info!(container = container.as_str(), "purging a container nobody owns");
            crate::crash::point("recover.before-purge");
            if let Err(error) = self.shared.runtime.purge(&container).await {
                tracing::error!(container = container.as_str(), %error, "purging a container failed");
            }
        });
        futures::stream::iter(purges)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        leftovers
    }

    /// Volumes that are attached for executors that do not run.
    async fn detach_leftovers(&self, live: &BTreeMap<ElementId, Live>) {
        let pairs = live.iter().flat_map(|(executor, live)| {
            let volumes = live.volumes.iter();
            volumes.map(|volume| (volume.digest_hex(), executor.digest_hex()))
        });
        let used: BTreeSet<_> = pairs.collect();
        for location in self.shared.locations.values() {
            if let Some(store) = &location.store
                && self.shared.health.check(&location.name).is_ok()
                && let Err(error) = store.detach_leftovers(&used).await
            {
                tracing::error!(location = %location.name, %error, "detaching leftover volumes failed");
            }
        }
    }

    async fn roll_back(&self, executor: &ElementId, intent: &Intent) {
        crate::crash::point("recover.before-undo");
        let undone = self.undo_intent(executor, intent).await;
        crate::crash::point("recover.before-undo-record");
        if let Err(error) = &undone {
            // Its name is not used again, so the next commit does not meet it; the next open tries again.
            tracing::error!(%executor, %error, "undoing an unfinished commit failed");
        }
        let used_up = (intent.fresh && undone.is_err()).then_some(intent.generation);
        let joined = self
            .shared
            .ledger
            .get(executor)
            .ok()
            .flatten()
            .map(|record| composed(&record));
        let joined = joined.unwrap_or_default();
        let claims: Vec<_> = intent
            .claims
            .iter()
            .filter(|id| !joined.contains(id))
            .cloned()
            .collect();
        let (id, operation) = (
            executor.clone(),
            Operation {
                id: "recover".to_owned(),
                actor: "driver".to_owned(),
            },
        );
        let written = self
            .shared
            .ledger
            .write(move |txn| unclaim(txn, &operation, &id, &claims, used_up, "interrupted"))
            .await;
        if let Err(error) = written {
            tracing::error!(%executor, ?error, "recording an undone commit failed");
        }
    }

    async fn undo_intent(&self, executor: &ElementId, intent: &Intent) -> Result<(), RuntimeError> {
        let runtime = &self.shared.runtime;
        let container = ContainerId::new(executor, intent.generation);
        if intent.fresh {
            runtime.purge(&container).await?;
            runtime
                .end(&Scope::new(&container, intent.revision))
                .await?;
        } else {
            for (task, run) in &intent.runs {
                let process = ProcessId::new(container.clone(), task, *run);
                runtime.delete_process(&process, false, true).await?;
            }
            for (_, target) in intent.attaches.iter().rev() {
                runtime.detach_mount(&container, target).await?;
            }
        }
        for (volume, _) in &intent.attaches {
            self.detach_volume(volume, executor).await;
        }
        Ok(())
    }

    async fn detach_volume(&self, volume: &ElementId, executor: &ElementId) {
        let Ok(record) = self.record(volume) else {
            return;
        };
        let (Body::Volume(body), Some(store)) =
            (&record.body, self.shared.composer.node.store(volume))
        else {
            return;
        };
        if let Err(error) = store.detach(volume, &body.keys, executor).await {
            tracing::error!(%volume, %executor, %error, "detaching a volume failed");
        }
    }
}

fn composed(record: &Record) -> Vec<ElementId> {
    match &record.body {
        Body::Executor(body) => body.composition.joined.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn is_live(record: &Record) -> bool {
    match &record.body {
        Body::Executor(body) => {
            matches!(record.state, State::Running | State::Paused) || waits_for_restart(body)
        }
        _ => false,
    }
}

fn waits_for_restart(body: &ExecutorBody) -> bool {
    let mut runs = body.composition.runs.keys();
    runs.any(|task| {
        body.composition
            .joined
            .get(task)
            .is_some_and(|joined| joined.bound)
    })
}
