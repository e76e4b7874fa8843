//! Following events: first the stored ones, then the live ones, none lost, none twice.
//!
//! A follower keeps nothing but its place. While it keeps up it takes events from a bounded broadcast channel; when
//! it falls behind, it goes on from the stored log, so only events that retention removed become a gap. A follower
//! that stands still costs nobody anything.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::Stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Ledger, LedgerError, Shared};
use crate::event::{Change, Event, Sequence};

/// Events read from the store at once.
const PAGE: usize = 256;
/// Events a follower may lag before it goes on from the store.
const LIVE: usize = 1024;

/// A stream of events; ends when the ledger closes, after an error, never by falling behind.
pub type Events = Pin<Box<dyn Stream<Item = Result<Arc<Event>, LedgerError>> + Send>>;

/// What the writer tells followers.
pub(super) struct Published {
    last: AtomicU64,
    live: broadcast::Sender<Arc<Event>>,
}

impl Published {
    pub(super) fn new(last: Sequence) -> Self {
        Self {
            last: AtomicU64::new(last),
            live: broadcast::Sender::new(LIVE),
        }
    }

    /// The sequence of the last durable event.
    pub(super) fn get(&self) -> Sequence {
        self.last.load(Ordering::Acquire)
    }

    /// Delivers durable events. Never waits.
    pub(super) fn deliver(&self, events: Vec<Event>) {
        if let Some(last) = events.last() {
            // First the place, then the events: who reads the store up to this place misses none of the live ones.
            self.last.store(last.sequence, Ordering::Release);
        }
        if self.live.receiver_count() > 0 {
            for event in events {
                // Fails only when the last receiver has just gone.
                let _ = self.live.send(Arc::new(event));
            }
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }
}

struct Follower<P> {
    ledger: Weak<Shared>,
    live: broadcast::Receiver<Arc<Event>>,
    /// The next sequence to deliver.
    next: Sequence,
    /// Read from the store, not delivered yet.
    stored: VecDeque<Event>,
    caught_up: bool,
    predicate: P,
}

impl Ledger {
    /// Follows the events that pass `predicate`: from sequence `from` on, or with `None` those after this call.
    /// Events that are no longer stored (or damaged) come as one [`Change::Gap`], which no predicate holds back.
    /// Needs a tokio runtime with blocking threads when polled. The stream does not keep the ledger open.
    pub fn subscribe(
        &self,
        from: Option<Sequence>,
        predicate: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Events {
        let live = self.shared.published.subscribe();
        let follower = Follower {
            ledger: Arc::downgrade(&self.shared),
            live,
            next: from.unwrap_or_else(|| self.last_sequence() + 1).max(1),
            stored: VecDeque::new(),
            caught_up: from.is_none(),
            predicate,
        };
        Box::pin(futures::stream::unfold(
            Some(follower),
            |follower| async move {
                let mut follower = follower?;
                match follower.next().await {
                    Ok(Some(event)) => Some((Ok(event), Some(follower))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        ))
    }
}

impl<P: Fn(&Event) -> bool> Follower<P> {
    async fn next(&mut self) -> Result<Option<Arc<Event>>, LedgerError> {
        loop {
            let event = match self.stored.pop_front() {
                Some(event) => Arc::new(event),
                None if self.caught_up => match self.live.recv().await {
                    Ok(event) if event.sequence == self.next => event,
                    Ok(event) => {
                        self.caught_up = event.sequence < self.next;
                        continue;
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.caught_up = false;
                        continue;
                    }
                    Err(RecvError::Closed) => return Ok(None),
                },
                None => {
                    if !self.read_stored().await? {
                        return Ok(None);
                    }
                    continue;
                }
            };
            self.next = event.sequence + 1;
            if matches!(event.change, Change::Gap { .. }) || (self.predicate)(&event) {
                return Ok(Some(event));
            }
        }
    }

    /// Reads the next page; false when the ledger is closed.
    async fn read_stored(&mut self) -> Result<bool, LedgerError> {
        let Some(shared) = self.ledger.upgrade() else {
            return Ok(false);
        };
        let from = self.next;
        let ledger = Ledger { shared };
        let page = tokio::task::spawn_blocking(move || ledger.events(from, PAGE)).await;
        self.stored = match page {
            Ok(page) => page?.into(),
            // Only when the runtime is shutting down.
            Err(_) => return Ok(false),
        };
        self.caught_up = self.stored.is_empty();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::ledger::testing::{Temporary, id, write};

    async fn emit(ledger: &Ledger, count: u64) {
        write(ledger, move |txn| {
            for n in 0..count {
                txn.emit(&id("a"), n, Change::Created);
            }
            Ok(())
        })
        .await;
    }

    async fn take(events: &mut Events, count: usize) -> Vec<Arc<Event>> {
        let taken: Vec<_> = events.take(count).collect().await;
        taken.into_iter().map(Result::unwrap).collect()
    }

    fn sequences(events: &[Arc<Event>]) -> Vec<Sequence> {
        events.iter().map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn stored_then_live_events_come_once_each_in_order() {
        let temporary = Temporary::new();
        let ledger = temporary.get().clone();
        emit(&ledger, 1000).await;
        let mut all = ledger.subscribe(Some(1), |_| true);
        let mut tail = ledger.subscribe(None, |_| true);
        let writer = tokio::spawn(async move {
            for _ in 0..500 {
                emit(&ledger, 7).await;
            }
        });
        assert_eq!(
            sequences(&take(&mut all, 4500).await),
            (1..=4500).collect::<Vec<_>>()
        );
        writer.await.unwrap();
        assert_eq!(
            sequences(&take(&mut tail, 3500).await),
            (1001..=4500).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn a_stalled_follower_goes_on_from_the_store_without_a_gap() {
        let temporary = Temporary::new();
        let ledger = temporary.get();
        let mut stalled = ledger.subscribe(None, |event| event.revision.is_multiple_of(2));
        let count = LIVE as u64 * 5;
        emit(ledger, count).await;
        let taken = take(&mut stalled, usize::try_from(count / 2).unwrap()).await;
        assert_eq!(
            sequences(&taken),
            (1..=count).step_by(2).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn what_retention_removed_is_one_gap_that_no_predicate_holds_back() {
        let mut temporary = Temporary::with(|config| config.event_retention = 100);
        emit(temporary.get(), 250).await;
        temporary.reopen();
        let mut events = temporary
            .get()
            .subscribe(Some(11), |event| event.sequence > 240);
        let taken = take(&mut events, 11).await;
        assert_eq!(taken[0].change, Change::Gap { from: 11, to: 150 });
        assert_eq!(sequences(&taken[1..]), (241..=250).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_ledger_and_does_not_keep_it_open() {
        let mut temporary = Temporary::new();
        emit(temporary.get(), 3).await;
        let mut events = temporary.get().subscribe(Some(1), |_| true);
        assert_eq!(take(&mut events, 3).await.len(), 3);
        temporary.reopen();
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_state_and_its_sequence_belong_together() {
        let temporary = Temporary::new();
        let ledger = temporary.get();
        emit(ledger, 5).await;
        let sequence = write(ledger, |txn| {
            txn.emit(&id("a"), 1, Change::Deleted);
            Ok(txn.last_sequence())
        })
        .await;
        assert_eq!((sequence, ledger.last_sequence()), (6, 6));
        emit(ledger, 1).await;
        let mut events = ledger.subscribe(Some(sequence + 1), |_| true);
        assert_eq!(sequences(&take(&mut events, 1).await), [7]);
    }
}
