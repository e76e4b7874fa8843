//! Which elements are being created, removed or used as a parent right now.
//!
//! Two promises rest on it. Creates, deletes and resizes of one id run one at a time, so sixty-four creates of one
//! id have one winner and the others never touch its bytes. And a parent cannot be deleted while a child is being
//! made from its bytes, although no record of the child exists yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ElementId;

/// The table, by `digest_hex` of the id, because the sweep knows no more of an id. Cloning shares it.
///
/// Order that keeps it free of deadlocks: a create pins its parent first and then takes its own id; whoever holds an
/// id waits for no other.
#[derive(Clone, Default)]
pub(crate) struct InFlight {
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Someone holds the id.
    taken: bool,
    /// The children being made from it.
    pinned_by: Vec<ElementId>,
    /// Woken whenever the slot becomes free.
    free: Arc<Notify>,
    /// Tasks waiting on `free`; the slot stays while there are any.
    waiting: usize,
}

/// Holds an id; dropping it lets the next one on.
pub(crate) struct Exclusive {
    table: InFlight,
    key: String,
}

/// Keeps a parent from being deleted; dropping it lets go.
pub(crate) struct Pin {
    table: InFlight,
    key: String,
    child: ElementId,
}

impl InFlight {
    /// Waits until nobody holds `id`, then holds it. Pins are no obstacle.
    pub(crate) async fn exclusive(&self, id: &ElementId) -> Exclusive {
        let key = id.digest_hex();
        loop {
            let wait = {
                let mut slots = self.lock();
                let slot = slots.entry(key.clone()).or_default();
                if !slot.taken {
                    slot.taken = true;
                    return Exclusive {
                        table: self.clone(),
                        key,
                    };
                }
                Waiting::on(self, &key, slot)
            };
            wait.free().await;
        }
    }

    /// Holds the id of this digest when nobody does and nothing is made from it.
    pub(crate) fn try_exclusive(&self, digest_hex: &str) -> Option<Exclusive> {
        let mut slots = self.lock();
        if slots.contains_key(digest_hex) {
            return None;
        }
        slots.entry(digest_hex.to_owned()).or_default().taken = true;
        Some(Exclusive {
            table: self.clone(),
            key: digest_hex.to_owned(),
        })
    }

    /// Holds an id to delete it. Error: the children being made from `id`.
    pub(crate) async fn exclusive_unpinned(
        &self,
        id: &ElementId,
    ) -> Result<Exclusive, Vec<ElementId>> {
        let held = self.exclusive(id).await;
        // From here on no new pin comes: pinning waits while the id is held.
        let pinned_by = self
            .lock()
            .get(&held.key)
            .map(|slot| slot.pinned_by.clone())
            .unwrap_or_default();
        if pinned_by.is_empty() {
            Ok(held)
        } else {
            Err(pinned_by)
        }
    }

    /// Waits until nobody holds `parent`, then keeps it from being deleted while `child` is made.
    pub(crate) async fn pin(&self, parent: &ElementId, child: &ElementId) -> Pin {
        let key = parent.digest_hex();
        loop {
            let wait = {
                let mut slots = self.lock();
                let slot = slots.entry(key.clone()).or_default();
                if !slot.taken {
                    slot.pinned_by.push(child.clone());
                    return Pin {
                        table: self.clone(),
                        key,
                        child: child.clone(),
                    };
                }
                Waiting::on(self, &key, slot)
            };
            wait.free().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // Every change of the table is one step that cannot panic half-way.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key) else {
            return;
        };
        change(slot);
        if !slot.taken && slot.pinned_by.is_empty() && slot.waiting == 0 {
            slots.remove(key);
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.table.change(&self.key, |slot| {
            slot.taken = false;
            slot.free.notify_waiters();
        });
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.table.change(&self.key, |slot| {
            if let Some(at) = slot.pinned_by.iter().position(|child| *child == self.child) {
                slot.pinned_by.swap_remove(at);
            }
        });
    }
}

/// One waiter, counted while it waits, also when its future is dropped.
struct Waiting {
    table: InFlight,
    key: String,
    free: std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>>,
}

impl Waiting {
    /// Called with the table locked, so that no wake-up between looking and waiting is missed.
    fn on(table: &InFlight, key: &str, slot: &mut Slot) -> Self {
        slot.waiting += 1;
        let mut free = Box::pin(slot.free.clone().notified_owned());
        free.as_mut().enable();
        Self {
            table: table.clone(),
            key: key.to_owned(),
            free,
        }
    }

    async fn free(mut self) {
        self.free.as_mut().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.table.change(&self.key, |slot| slot.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ElementId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_holder_at_a_time_and_nothing_is_left() {
        let table = InFlight::default();
        let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..64 {
            let (table, running) = (table.clone(), running.clone());
            tasks.push(tokio::spawn(async move {
                let held = table.exclusive(&id("task://t/a")).await;
                let others = running.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(held);
                others
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
        assert!(table.lock().is_empty());
    }

    #[tokio::test]
    async fn a_pinned_parent_names_its_children() {
        let table = InFlight::default();
        let (parent, child) = (id("image://i/a"), id("image://i/b"));
        let pin = table.pin(&parent, &child).await;
        let refused = table.exclusive_unpinned(&parent).await.err();
        assert_eq!(refused, Some(vec![child]));
        drop(pin);
        assert!(table.exclusive_unpinned(&parent).await.is_ok());
        assert!(table.lock().is_empty());
    }

    #[tokio::test]
    async fn a_dropped_waiter_is_forgotten() {
        let table = InFlight::default();
        let a = id("task://t/a");
        let held = table.exclusive(&a).await;
        {
            let waiting = table.exclusive(&a);
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        drop(held);
        assert!(table.lock().is_empty());
    }
}
