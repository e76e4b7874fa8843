//! What happens when the engine is lost and comes back while we serve: its process was killed, or replaced.
//!
//! What runs goes on without it. When it answers again every run is looked for - the waits for their ends ask again by
//! themselves, and what the engine does not know any more ends as lost - and what calls that were cut off left behind is swept.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::leftovers::{layer, sweep_leftovers};
use super::{ADOPTED_AT_ONCE, is_live};
use crate::PortLayer;
use crate::compose::{RunState, patiently};
use crate::element::{Body, State};
use crate::ledger::LedgerError;
use crate::port_layer::Shared;
use crate::runtime::{ContainerId, Finding, ProcessId, ProcessState};

/// Pause between two looks whether the engine is back.
const LOOK: Duration = Duration::from_millis(10);
/// How long commits that were in flight at the loss may take to end before leftovers are looked for.
const IN_FLIGHT: Duration = Duration::from_secs(60);

/// How the engine has been since the open. A healthy one has all three counts equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Times it was lost: its process ended.
    pub losses: u64,
    /// The last loss after which it came back and everything that runs was found again.
    pub reattached: u64,
    /// The last loss after which also everything that was left behind was removed.
    pub reconciled: u64,
    /// What was found after the last loss.
    pub last: Option<Reconciled>,
}

impl EngineStatus {
    /// Whether everything that runs is watched: the engine was not lost, or has come back.
    pub fn is_attached(&self) -> bool {
        self.reattached == self.losses
    }
}

/// What was found when the engine came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Milliseconds from the loss to the engine's first answer.
    pub away_ms: u64,
    /// Milliseconds from its first answer until every run had been looked for.
    pub reattach_ms: u64,
    /// Runs that go on.
    pub running: u64,
    /// Runs that ended meanwhile; their exit records tell how.
    pub ended: u64,
    /// Runs it does not know any more: their exit records say lost, unless something else tells how they ended.
    pub unknown: u64,
    /// Runs that could not be asked about; their ends are waited for all the same.
    pub unanswered: u64,
    /// Things without an owner that were found.
    pub leftovers: u64,
}

impl PortLayer {
    /// Watches for losses until the port layer is closed. `losses` is from before the first listing.
    pub(crate) fn watch_engine(&self, mut losses: watch::Receiver<u64>) {
        let shared = std::sync::Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            // One lost between subscribing and now is a loss too.
            let mut pending = *losses.borrow() > 0;
            while pending || losses.changed().await.is_ok() {
                let loss = *losses.borrow_and_update();
                tell(&shared, |status| status.losses = loss);
                tracing::warn!(loss, "the engine was lost; tasks go on");
                // Lost again before it was reconciled: from the beginning.
                pending = tokio::select! {
                    biased;
                    again = losses.changed() => again.is_ok(),
                    () = reconcile(&shared, loss) => false,
                };
            }
        });
    }

    /// Asks the engine about everything the ledger has as running.
    async fn reattach(&self) -> Result<Reconciled, LedgerError> {
        let mut found = Reconciled::default();
        let mut states = futures::stream::iter(self.runs()?)
            .map(|(process, primary)| async move {
                let runtime = &self.shared.runtime;
                patiently(|| runtime.process_state(&process, primary)).await
            })
            .buffer_unordered(ADOPTED_AT_ONCE);
        while let Some(state) = states.next().await {
            match state {
                Ok(ProcessState::Stopped(_)) => found.ended += 1,
                Ok(ProcessState::Unknown) => found.unknown += 1,
                Ok(_) => found.running += 1,
                Err(error) => {
                    tracing::error!(%error, "asking about a run after a loss of the engine failed");
                    found.unanswered += 1;
                }
            }
        }
        Ok(found)
    }

    /// The processes of everything the ledger has as running, and whether each is the first of its container.
    fn runs(&self) -> Result<Vec<(ProcessId, bool)>, LedgerError> {
        let mut runs = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page =
                self.shared
                    .ledger
                    .list("executor://", after.as_deref(), super::PAGE, is_live)?;
            for record in &page.records {
                let Body::Executor(body) = &record.body else {
                    continue;
                };
                if !matches!(record.state, State::Running | State::Paused) {
                    continue;
                }
                let container = ContainerId::new(&record.id, body.composition.generation);
                let open = body
                    .composition
                    .runs
                    .iter()
                    .filter(|(_, run)| run.state != RunState::Ended);
                runs.extend(open.map(|(task, run)| {
                    (
                        ProcessId::new(container.clone(), task, run.run),
                        run.primary,
                    )
                }));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(runs),
            }
        }
    }

    /// What calls that were cut off left behind and no commit is about to remove. Names of such containers are not used
    /// again, so a sweep of these never meets something new.
    async fn cut_off(&self) -> Option<Vec<Finding>> {
        // Commits that were in flight at the loss undo what they did.
        let _ = tokio::time::timeout(IN_FLIGHT, self.settle()).await;
        let suspects = self.unowned().await?;
        if suspects.is_empty() {
            return Some(Vec::new());
        }
        let names: BTreeSet<_> = suspects.iter().filter_map(Finding::container).collect();
        self.shared.composer.node.reserve(names);
        // Whoever took one of these names just before is done with it after this, and owns it or has left it.
        let _ = tokio::time::timeout(IN_FLIGHT, self.settle()).await;
        let mut found = self.unowned().await?;
        found.retain(|finding| suspects.contains(finding));
        Some(found.into_iter().collect())
    }

    /// Everything of containers that nobody owns now.
    async fn unowned(&self) -> Option<BTreeSet<Finding>> {
        let found = match patiently(|| self.shared.runtime.audit()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "looking for leftovers after a loss of the engine failed");
                return None;
            }
        };
        let reader = self.clone();
        let owners = tokio::task::spawn_blocking(move || reader.owners())
            .await
            .ok()?;
        let owners = match owners {
            Ok(owners) => owners,
            Err(error) => {
                tracing::error!(%error, "looking for owners of leftovers failed");
                return None;
            }
        };
        let unowned = found
            .into_iter()
            .filter(|finding| finding.container().is_some() && owners.owner_of(finding).is_none());
        Some(unowned.collect())
    }
}

/// One loss: from the engine's first answer to the last leftover. Repeating it is fine.
async fn reconcile(shared: &Weak<Shared>, loss: u64) {
    let lost = Instant::now();
    loop {
        let Some(layer) = layer(shared) else { return };
        if layer.ping_engine().await.is_ok() {
            break;
        }
        drop(layer);
        tokio::time::sleep(LOOK).await;
    }
    let back = Instant::now();
    let Some(open) = layer(shared) else { return };
    let mut found = match open.reattach().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(%error, "reading what runs after a loss of the engine failed");
            return;
        }
    };
    found.away_ms = millis(back - lost);
    found.reattach_ms = millis(back.elapsed());
    tracing::warn!(loss, ?found, "the engine is back");
    tell(shared, |status| {
        status.reattached = loss;
        status.last = Some(found.clone());
    });
    let Some(leftovers) = open.cut_off().await else {
        return;
    };
    drop(open);
    let count = leftovers.len() as u64;
    sweep_leftovers(shared, leftovers).await;
    if let Some(layer) = layer(shared) {
        layer.sweep_stores().await;
    }
    tell(shared, |status| {
        status.reconciled = loss;
        if let Some(last) = &mut status.last {
            last.leftovers = count;
        }
    });
}

fn tell(shared: &Weak<Shared>, change: impl FnOnce(&mut EngineStatus)) {
    if let Some(shared) = shared.upgrade() {
        shared.engine.send_modify(change);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
