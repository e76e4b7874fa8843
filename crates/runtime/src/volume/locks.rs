//! One operation at a time on one volume, whatever becomes of the futures.
//!
//! A future that is dropped leaves its blocking step running; the next operation on the same volume (the sweep of what
//! was dropped) must wait for that step. So the step holds the lock, not the future.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks by volume; made when needed, gone when unused.
#[derive(Debug, Clone, Default)]
pub(super) struct Locks {
    by_volume: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Keeps a volume locked. Give a clone to every blocking step.
pub(super) type Held = Arc<OwnedMutexGuard<()>>;

impl Locks {
    /// Waits until nobody works on the volume.
    pub(super) async fn hold(&self, volume: &str) -> Held {
        let lock = {
            let mut locks = self
                .by_volume
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(volume.to_owned()).or_default().clone()
        };
        Arc::new(lock.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_that_outlives_its_future_still_holds_the_volume() {
        let locks = Locks::default();
        let held = locks.hold("a").await;
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let step = held.clone();
        let running = tokio::task::spawn_blocking(move || {
            let _step = step;
            wait.recv()
        });
        drop(held);
        assert!(futures::FutureExt::now_or_never(locks.hold("a")).is_none());
        assert!(futures::FutureExt::now_or_never(locks.hold("b")).is_some());
        release.send(()).unwrap();
        running.await.unwrap().unwrap();
        locks.hold("a").await;
    }
}
