//! The writer thread: takes transactions, groups them, makes each group durable, answers.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::figures::{Counts, LedgerFigures};
use super::follow::Published;
use super::room::Room;
use super::txn::{Staged, Txn};
use super::{LedgerConfig, LedgerError, codec, keys, pieces};
use crate::event::{Event, Sequence};
use crate::time::Timestamp;

/// Most transactions in one group: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 512;

/// Longest wait for a group to become as large as the one before: a fraction of a flush. Writers that wait for
/// their answers come back together, but not at the same instant; without this the first of them would have a
/// flush of its own.
const GATHER: Duration = Duration::from_micros(200);

/// What an event may take when room is made for it; a longer one is covered by the reserve.
const EVENT_BYTES: usize = 2 << 10;

/// Runs a transaction, keeps its answer, and sends it once it is known whether the group is durable.
trait Job: Send {
    fn run(&mut self, txn: &mut Txn<'_>) -> bool;
    fn answer(self: Box<Self>, durable: Result<(), LedgerError>);
}

struct Pending<T, E, F> {
    change: Option<F>,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Pending<T, E, F>
where
    T: Send,
    E: From<LedgerError> + Send,
    F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, txn: &mut Txn<'_>) -> bool {
        let Some(change) = self.change.take() else {
            return false;
        };
        // What a closure that panicked staged is dropped with its transaction; nothing else can be seen half-done.
        let outcome = catch_unwind(AssertUnwindSafe(|| change(txn)));
        self.outcome = Some(outcome.unwrap_or_else(|_| Err(LedgerError::Panicked.into())));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, durable: Result<(), LedgerError>) {
        let outcome = match (self.outcome, durable) {
            (Some(Ok(_)), Err(error)) => Err(error.into()),
            (Some(outcome), _) => outcome,
            (None, durable) => Err(durable.err().unwrap_or(LedgerError::Closed).into()),
        };
        // A caller that went away does not need the answer.
        let _ = self.reply.send(outcome);
    }
}

pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    unsynced: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Writer {
    pub(super) fn start(
        db: sled::Db,
        tree: sled::Tree,
        room: Room,
        config: &LedgerConfig,
    ) -> Result<(Self, Arc<Published>), LedgerError> {
        let key = keys::meta("sequence");
        let next_sequence: Sequence = match tree.get(&key)? {
            Some(bytes) => codec::decode(&key, &bytes)?,
            None => 1,
        };
        if next_sequence == 0 {
            return Err(LedgerError::damaged(&key));
        }
        let (queue, jobs) = mpsc::channel();
        let published = Arc::new(Published::new(next_sequence - 1));
        let unsynced = Arc::new(AtomicBool::new(false));
        let counts = Arc::<Counts>::default();
        let mut state = State {
            unsynced: unsynced.clone(),
            counts: counts.clone(),
            db,
            tree,
            room,
            published: published.clone(),
            retention: config.event_retention,
            id_ranges: config.id_ranges.clone(),
            next_sequence,
            last_group: 1,
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                while let Ok(first) = jobs.recv() {
                    state.group(first, &jobs);
                }
            })
            .map_err(|error| LedgerError::Backend {
                text: error.to_string(),
            })?;
        let writer = Self {
            queue: Some(queue),
            thread: Some(thread),
            unsynced,
            counts,
        };
        Ok((writer, published))
    }

    /// Whether everything a read can see by now is durable.
    pub(super) fn is_synced(&self) -> bool {
        !self.unsynced.load(Ordering::SeqCst)
    }

    /// What was written since it was started.
    pub(super) fn figures(&self) -> LedgerFigures {
        self.counts.now()
    }

    pub(super) async fn run<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending {
            change: Some(change),
            outcome: None,
            reply,
        });
        let queue = self.queue.as_ref().ok_or(LedgerError::Closed)?;
        queue.send(job).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was already seen by every caller as `Closed`.
            let _ = thread.join();
        }
    }
}

/// How many transactions replace as much as one collection frees: each writes some five entries, of which each replaces
/// the head of a page and now and then a page with its sixteen values.
const TRANSACTIONS_PER_COLLECTION: usize = 16;

struct State {
    db: sled::Db,
    tree: sled::Tree,
    room: Room,
    published: Arc<Published>,
    retention: u64,
    id_ranges: Range<u32>,
    next_sequence: Sequence,
    /// How many transactions the group before had.
    last_group: usize,
    failed: bool,
    /// Set before a group can be read, cleared once it is durable; it stays set when that fails.
    unsynced: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl State {
    fn group(&mut self, first: Box<dyn Job>, jobs: &mpsc::Receiver<Box<dyn Job>>) {
        let mut staged = Staged::new();
        let mut events = Vec::new();
        let mut done = Vec::new();
        let mut next = Some(first);
        let mut gathering = None;
        while let Some(mut job) = next.take() {
            let mut txn = Txn {
                tree: &self.tree,
                group: &staged,
                own: Staged::new(),
                next_sequence: self.next_sequence + events.len() as u64,
                events: Vec::new(),
                id_ranges: &self.id_ranges,
                now: Timestamp::now(),
            };
            if !self.failed && job.run(&mut txn) {
                let Txn {
                    own, events: new, ..
                } = txn;
                staged.extend(own);
                events.extend(new);
            }
            done.push(job);
            if done.len() < MAX_GROUP {
                next = jobs.try_recv().ok();
            }
            if next.is_none() && done.len() < self.last_group {
                let deadline = *gathering.get_or_insert_with(|| Instant::now() + GATHER);
                let left = deadline.saturating_duration_since(Instant::now());
                next = jobs.recv_timeout(left).ok();
            }
        }
        self.last_group = done.len();
        let durable = if self.failed {
            Err(LedgerError::Failed)
        } else {
            self.make_room(&staged, &events).and_then(|()| {
                let durable = self.make_durable(staged, &events);
                // What became of it is unknown now.
                self.failed = durable.is_err();
                durable
            })
        };
        if durable.is_ok() {
            self.published.deliver(events);
        }
        crate::crash::point("ledger.before-answer");
        for job in done {
            job.answer(durable.clone());
        }
        crate::crash::point("ledger.after-answer");
        free_replaced(self.last_group);
    }

    /// A group that might find the disk full is refused before anything is written.
    fn make_room(&mut self, staged: &Staged, events: &[Event]) -> Result<(), LedgerError> {
        if staged.is_empty() && events.is_empty() {
            return Ok(());
        }
        let values = staged
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()));
        let bytes = values.sum::<usize>() + events.len() * EVENT_BYTES;
        self.room.ensure(bytes as u64)
    }

    fn make_durable(&mut self, staged: Staged, events: &[Event]) -> Result<(), LedgerError> {
        if staged.is_empty() && events.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        let records = (staged.len() + events.len()) as u64;
        let mut bytes = 0;
        for (key, value) in staged {
            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
            pieces::store(&self.tree, &mut batch, key, value)?;
        }
        let next = self.next_sequence + events.len() as u64;
        for event in events {
            let (key, value) = (keys::event(event.sequence), codec::encode(event)?);
            bytes += key.len() + value.len();
            batch.insert(key, value);
            if let Some(old) = event.sequence.checked_sub(self.retention) {
                batch.remove(keys::event(old));
            }
        }
        batch.insert(keys::meta("sequence"), codec::encode(&next)?);
        crate::crash::point("ledger.before-batch");
        self.unsynced.store(true, Ordering::SeqCst);
        let started = Instant::now();
        self.tree.apply_batch(batch)?;
        crate::crash::point("ledger.before-flush");
        self.db.flush()?;
        self.counts.add(records, bytes as u64, started.elapsed());
        self.unsynced.store(false, Ordering::SeqCst);
        self.next_sequence = next;
        Ok(())
    }
}

/// Frees the pages that a group of so many transactions replaced. sled leaves them to the collector of
/// crossbeam-epoch, which frees at most 512 things at every 128th look at the tree: a large group is one look and replaces
/// thousands, so under load they would pile up to tens of MiB.
fn free_replaced(transactions: usize) {
    for _ in 0..=transactions / TRANSACTIONS_PER_COLLECTION {
        crossbeam_epoch::pin().flush();
    }
}
