//! What open does before it serves: the ledger is compared with the engine.
//!
//! 1. Commits whose intent is still in the ledger never finished: what they made is removed, what they claimed is
//!    released. They were not acknowledged.
//! 2. Containers of ours that no running executor owns are purged, half-made ones included: a commit that died before
//!    its intent was durable has made a lease at most.
//! 3. Running executors get their drivers back: ends are watched again, deadlines go on, what ended while nobody
//!    watched gets its true exit record, marked reconciled; what the engine does not know any more is lost.
//!
//! One bad record never stops an open: it is logged, and its element is left as it is.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use crate::compose::{Intent, TaskError, unclaim};
use crate::element::{Body, ElementId, ExecutorBody, Record, State};
use crate::ledger::LedgerError;
use crate::runtime::{ContainerId, ProcessId, RuntimeError, Scope};
use crate::{OpenError, Operation, PortLayer};

/// Executors taken over at once; each asks the engine a few times.
const AT_ONCE: usize = 16;
/// Records read at once.
const PAGE: usize = 1000;

impl PortLayer {
    /// Compares ledger and engine and mends the difference. Errors: the ledger cannot be read, the engine not listed.
    pub(crate) async fn recover(&self) -> Result<(), OpenError> {
        for (executor, intent) in self.shared.ledger.intents::<Intent>()? {
            match intent {
                Ok(intent) => self.roll_back(&executor, &intent).await,
                // The container, if there is one, is purged below as nobody's.
                Err(error) => tracing::error!(%executor, %error, "an intent cannot be read"),
            }
        }
        let live = self.live_executors()?;
        self.purge_strangers(&live)
            .await
            .map_err(OpenError::Runtime)?;
        self.restore_networks().await?;
        let mut adoptions = futures::stream::iter(live.into_keys())
            .map(|executor| async move {
                crate::crash::point("recover.before-adopt");
                let adopted: Result<(), TaskError> = self.adopt(&executor).await;
                (executor, adopted)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((executor, adopted)) = adoptions.next().await {
            crate::crash::point("recover.after-adopt");
            if let Err(error) = adopted {
                tracing::error!(%executor, %error, "taking over a running executor failed");
            }
        }
        Ok(())
    }

    /// Connections of running executors are made what their records say, and what others left of theirs is removed. A
    /// failure is logged: the runtime has cut off what it could not give its rules.
    async fn restore_networks(&self) -> Result<(), LedgerError> {
        let node = &self.shared.composer.node;
        let mut connected = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let runs = |record: &Record| matches!(record.state, State::Running | State::Paused);
            let page = self
                .shared
                .ledger
                .list("executor://", after.as_deref(), PAGE, runs)?;
            for record in &page.records {
                if let Body::Executor(body) = &record.body
                    && let Some(plan) = node.connected(record, body)
                {
                    let container = ContainerId::new(&record.id, body.composition.generation);
                    connected.push((container, plan));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if let Err(error) = self.shared.runtime.restore_networks(&connected).await {
            tracing::error!(%error, text = error.text, "restoring the networks of executors failed");
        }
        Ok(())
    }

    /// Executors that run or wait for a restart, with the containers of those that run.
    fn live_executors(&self) -> Result<BTreeMap<ElementId, Option<ContainerId>>, LedgerError> {
        let mut live = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .shared
                .ledger
                .list("executor://", after.as_deref(), PAGE, is_live)?;
            for record in page.records {
                if let Body::Executor(body) = &record.body {
                    let container = ContainerId::new(&record.id, body.composition.generation);
                    let runs = matches!(record.state, State::Running | State::Paused);
                    live.insert(record.id.clone(), runs.then_some(container));
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(live),
            }
        }
    }

    async fn purge_strangers(
        &self,
        live: &BTreeMap<ElementId, Option<ContainerId>>,
    ) -> Result<(), RuntimeError> {
        let owned: BTreeSet<&ContainerId> = live.values().flatten().collect();
        for found in self.shared.runtime.list().await? {
            if owned.contains(&found.id) {
                continue;
            }
            tracing::info!(
                container = found.id.as_str(),
                "purging a container nobody owns"
            );
            crate::crash::point("recover.before-purge");
            if let Err(error) = self.shared.runtime.purge(&found.id).await {
                tracing::error!(container = found.id.as_str(), %error, "purging a container failed");
            }
        }
        Ok(())
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
