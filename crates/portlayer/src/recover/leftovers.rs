//! The sweep after an open: what the engine, the kernel and the stores held when we opened and nobody owns.
//!
//! It goes on while we serve, because nothing of it is in anybody's way: it does not run, and the names of its containers
//! are not used again. Only what was there before the first call of a client is looked at.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;

use crate::PortLayer;
use crate::ledger::LedgerError;
use crate::port_layer::Shared;
use crate::runtime::{Finding, FindingClass};

/// How long an open waits for its sweep, so that what is small is done when it answers.
const GRACE: Duration = Duration::from_millis(500);
/// Things removed at once.
const AT_ONCE: usize = 4;
/// What is removed alone when nothing else of its container is there. Anything else takes the whole container along.
const PARTS: [FindingClass; 3] = [
    FindingClass::Snapshot,
    FindingClass::Mount,
    FindingClass::Lease,
];

impl PortLayer {
    /// Sweeps leftovers of the engine and bytes without a record; returns when it is done or after half a second, then it
    /// goes on by itself until the port layer is closed.
    pub(crate) async fn sweep_at_open(&self, leftovers: Vec<Finding>) {
        let shared = Arc::downgrade(&self.shared);
        let sweep = tokio::spawn(async move {
            sweep_leftovers(&shared, leftovers).await;
            if let Some(layer) = layer(&shared) {
                layer.sweep_stores().await;
            }
        });
        // Over or not: whoever opened us wants to go on.
        let _ = tokio::time::timeout(GRACE, sweep).await;
    }

    /// Whether a record owns it by now. Reads the ledger, so only for what is rare.
    async fn is_owned(&self, leak: &Finding) -> Result<bool, LedgerError> {
        let (layer, leak) = (self.clone(), leak.clone());
        let looked =
            tokio::task::spawn_blocking(move || Ok(layer.owners()?.owner_of(&leak).is_some()));
        looked.await.map_err(|_| LedgerError::Closed)?
    }

    async fn sweep_leak(&self, leak: &Finding) {
        // The name of a log is that of its executor, which may be made again while we are at it.
        let _held = match leak.class {
            FindingClass::Log => {
                let held = self.shared.in_flight.try_exclusive(&leak.name);
                if held.is_none() || self.is_owned(leak).await.unwrap_or(true) {
                    return;
                }
                held
            }
            _ => None,
        };
        if let Err(error) = self.shared.runtime.sweep(leak).await {
            tracing::warn!(class = ?leak.class, name = leak.name, %error, "sweeping a leftover failed");
        }
    }
}

/// The port layer, unless it was closed meanwhile: a sweep keeps nothing open.
pub(super) fn layer(shared: &Weak<Shared>) -> Option<PortLayer> {
    Some(PortLayer {
        shared: shared.upgrade()?,
        actor: "recover".into(),
    })
}

pub(super) async fn sweep_leftovers(shared: &Weak<Shared>, leftovers: Vec<Finding>) {
    let leaks = reduce(leftovers);
    if leaks.is_empty() {
        return;
    }
    tracing::info!(count = leaks.len(), "looking at what recovery left behind");
    let sweeps = leaks.into_iter().map(|leak| async move {
        if let Some(layer) = layer(shared) {
            layer.sweep_leak(&leak).await;
        }
    });
    futures::stream::iter(sweeps)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

/// What is to be swept: one finding for each container that has more than parts, and the parts of the others. Recovery
/// gave us nothing of a live container but its leases, which no commit holds any more.
fn reduce(leftovers: Vec<Finding>) -> Vec<Finding> {
    let whole: BTreeSet<_> = leftovers
        .iter()
        .filter(|leak| !PARTS.contains(&leak.class))
        .filter_map(Finding::container)
        .collect();
    let mut begun = BTreeSet::new();
    let wanted = leftovers.into_iter().filter(|leak| match leak.container() {
        Some(id) if whole.contains(&id) => !PARTS.contains(&leak.class) && begun.insert(id),
        Some(_) => true,
        None => matches!(leak.class, FindingClass::Lease | FindingClass::Log),
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(class: FindingClass, name: &str, owner: Option<&str>) -> Finding {
        Finding {
            class,
            name: name.to_owned(),
            owner: owner.map(str::to_owned),
        }
    }

    #[test]
    fn each_container_is_swept_once_and_what_is_not_a_containers_is_left_to_others() {
        let (dead, bare, live) = (
            "00000000000000000000-1",
            "11111111111111111111-2",
            "22222222222222222222-3",
        );
        let lease = format!("pl-{live}-r7");
        let leaks = reduce(vec![
            finding(FindingClass::Snapshot, dead, None),
            finding(FindingClass::Mount, "/x", Some(dead)),
            finding(FindingClass::Fifo, "/x/a", Some(dead)),
            finding(FindingClass::Fifo, "/x/b", Some(dead)),
            finding(FindingClass::Snapshot, bare, None),
            finding(FindingClass::Mount, "/y", Some(bare)),
            finding(FindingClass::Lease, &lease, Some(live)),
            finding(FindingClass::Lease, "image-import", None),
            finding(FindingClass::Snapshot, "sha256:abc", None),
            finding(FindingClass::Mount, "/v", Some("volume")),
        ]);
        let names: Vec<_> = leaks.iter().map(|leak| leak.name.as_str()).collect();
        assert_eq!(names, ["/x/a", bare, "/y", lease.as_str(), "image-import"]);
    }
}
