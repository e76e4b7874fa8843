//! What every commit works with: ledger, locations and engine; and the seats of executors that are live.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::CommitError;
use super::driver::{Command, Driver};
use super::record::{self, TxnError};
use crate::Operation;
use crate::element::health::Health;
use crate::element::{ElementId, State};
use crate::ledger::Ledger;
use crate::network::NetworkSpec;
use crate::runtime::{ContainerId, HostIsolation, IdRange, ProcessId, Runtime, RuntimeInfo};
use crate::store::{Location, Store};
use crate::task::{ExitReason, Isolation};

/// What the documents of the OCI runtime depend on besides what is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// cgroup v2 alone is mounted.
    pub(crate) cgroup2: bool,
    /// What it has to keep executors apart.
    pub(crate) isolation: HostIsolation,
}

/// The node below composition. Drivers hold this and not the port layer, so that dropping the port layer ends them.
pub(crate) struct Node {
    /// Records, exit records, events.
    pub(crate) ledger: Ledger,
    /// The engine.
    pub(crate) runtime: Arc<dyn Runtime>,
    /// What the host can do.
    pub(crate) host: Host,
    /// Volumes can be mounted into running containers.
    pub(crate) live_attach: bool,
    /// Which locations cannot be used.
    pub(crate) health: Health,
    /// Configured bridge networks, by id.
    pub(crate) networks: BTreeMap<ElementId, NetworkSpec>,
    locations: BTreeMap<String, Location>,
    /// Containers of which something was left behind when we opened: their names are not used again.
    leftovers: Mutex<BTreeSet<ContainerId>>,
    /// Cancelled once an open has taken over what runs: until then nothing that can wait takes its time.
    pub(crate) taken_over: CancellationToken,
}

impl Node {
    /// Keeps the names of leftovers from being used, so that the sweep of one never meets a new container.
    pub(crate) fn reserve(&self, leftovers: impl IntoIterator<Item = ContainerId>) {
        self.leftovers().extend(leftovers);
    }

    /// The next generation of an executor whose container has a name nothing is left of.
    pub(crate) fn next_generation(&self, executor: &ElementId, last: u32) -> u32 {
        let leftovers = self.leftovers();
        let mut next = last + 1;
        while leftovers.contains(&ContainerId::new(executor, next)) {
            next += 1;
        }
        next
    }

    fn leftovers(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The store of an element's bytes.
    pub(crate) fn store(&self, id: &ElementId) -> Option<&Arc<dyn Store>> {
        self.locations.get(id.location())?.store.as_ref()
    }

    /// The host ids that stand for the executor's own; `None` when it uses the host's, or was never started.
    pub(crate) fn ids(
        &self,
        executor: &ElementId,
        isolation: &Isolation,
    ) -> Result<Option<IdRange>, CommitError> {
        if !isolation.own_users() {
            return Ok(None);
        }
        let slot = self.ledger.ids(executor);
        let slot = slot.map_err(|source| CommitError::Ledger {
            executor: executor.clone(),
            source,
        })?;
        Ok(slot.and_then(IdRange::of_slot))
    }

    /// Notes that a paused executor goes on: a frozen process cannot die, so the engine thaws a container to kill in it.
    pub(crate) async fn note_thawed(&self, executor: &ElementId) {
        let paused = self
            .executor(executor)
            .is_ok_and(|(record, _)| record.state == State::Paused);
        if !paused {
            return;
        }
        let operation = Operation {
            id: format!("thaw-{}", &executor.digest_hex()[..16]),
            actor: "driver".to_owned(),
        };
        let id = executor.clone();
        let written: Result<(), TxnError> = self
            .ledger
            .write(move |txn| record::paused(txn, &operation, &id, false))
            .await;
        if let Err(error) = written {
            tracing::error!(%executor, ?error, "recording that a paused executor goes on failed");
        }
    }

    /// Who made `revision` of an element, from the audit log; "unknown" when its row is no longer kept.
    pub(crate) fn changed_by(&self, id: &ElementId, revision: u64) -> String {
        let rows = self.ledger.audit_log(id).unwrap_or_default();
        let row = rows.iter().rev().find(|row| row.revision_after == revision);
        row.map_or_else(
            || "unknown".to_owned(),
            |row| format!("{} ({} by {})", row.operation, row.verb.as_str(), row.actor),
        )
    }
}

/// Why a process was made to end: set before the signal goes out, read when the end is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A staged stop, or its deadline.
    Stopped(ExitReason),
    /// One signal of a caller; the cause of the end only when the process died of it.
    Signal(i32),
}

/// A live executor as callers see it: the way to its driver and what they share with it.
pub(crate) struct Seat {
    commands: mpsc::Sender<Command>,
    /// Shared with the driver, which must not hold a way to itself: it ends when nobody can ask it any more.
    pub(crate) board: Arc<Board>,
}

/// What a driver and the callers of its executor tell each other past its queue.
pub(crate) struct Board {
    /// Changes whenever an exit record of the executor became durable.
    pub(crate) exits: watch::Sender<u64>,
    causes: Mutex<HashMap<ProcessId, Cause>>,
}

impl Board {
    /// Notes why a process is about to be signalled. A stop is not forgotten for a later signal.
    pub(crate) fn note(&self, process: &ProcessId, cause: Cause) {
        let mut causes = self.causes();
        match (causes.get(process), cause) {
            (Some(Cause::Stopped(_)), _) => {}
            _ => {
                causes.insert(process.clone(), cause);
            }
        }
    }

    /// The signal did not get there: it is no cause.
    pub(crate) fn forget(&self, process: &ProcessId, cause: Cause) {
        let mut causes = self.causes();
        if causes.get(process) == Some(&cause) {
            causes.remove(process);
        }
    }

    /// Takes the cause of an end.
    pub(crate) fn take_cause(&self, process: &ProcessId) -> Option<Cause> {
        self.causes().remove(process)
    }

    /// Wakes everyone who waits for an exit record.
    pub(crate) fn announce_exit(&self) {
        self.exits.send_modify(|count| *count += 1);
    }

    fn causes(&self) -> MutexGuard<'_, HashMap<ProcessId, Cause>> {
        // Every change of the map is one step that cannot panic half-way.
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seats of live executors. A driver is there as long as something runs or is asked of it.
#[derive(Clone)]
pub(crate) struct Composer {
    /// What drivers work with.
    pub(crate) node: Arc<Node>,
    seats: Arc<Mutex<HashMap<ElementId, Arc<Seat>>>>,
}

impl Composer {
    pub(crate) fn new(
        ledger: Ledger,
        locations: BTreeMap<String, Location>,
        networks: BTreeMap<ElementId, NetworkSpec>,
        health: Health,
        runtime: Arc<dyn Runtime>,
        info: &RuntimeInfo,
    ) -> Self {
        Self {
            node: Arc::new(Node {
                ledger,
                runtime,
                host: Host {
                    cgroup2: info.cgroups == "v2",
                    isolation: info.isolation.clone(),
                },
                live_attach: info.live_attach,
                health,
                networks,
                locations,
                leftovers: Mutex::default(),
                taken_over: CancellationToken::new(),
            }),
            seats: Arc::default(),
        }
    }

    /// The seat of an executor; its driver is started when there is none.
    pub(crate) fn seat(&self, executor: &ElementId) -> Arc<Seat> {
        let mut seats = self.seats();
        if let Some(seat) = seats
            .get(executor)
            .filter(|seat| !seat.commands.is_closed())
        {
            return seat.clone();
        }
        // Bounded: whoever asks too fast waits.
        let (commands, asked) = mpsc::channel(16);
        let board = Arc::new(Board {
            exits: watch::Sender::new(0),
            causes: Mutex::default(),
        });
        let seat = Arc::new(Seat {
            commands,
            board: board.clone(),
        });
        seats.insert(executor.clone(), seat.clone());
        let driver = Driver::new(executor.clone(), self.node.clone(), board);
        tokio::spawn(driver.run(asked, self.clone_weak()));
        seat
    }

    /// The seat of an executor, if it is live.
    pub(crate) fn live_seat(&self, executor: &ElementId) -> Option<Arc<Seat>> {
        self.seats().get(executor).cloned()
    }

    /// Hands a command to the driver of an executor. `None`: the driver is gone, as at shutdown.
    pub(crate) async fn send(&self, executor: &ElementId, command: Command) -> Option<()> {
        let mut command = command;
        // A driver may end between being found and being asked; the next one takes over.
        for _ in 0..8 {
            let seat = self.seat(executor);
            match seat.commands.send(command).await {
                Ok(()) => return Some(()),
                Err(refused) => command = refused.0,
            }
        }
        None
    }

    /// Executors with a driver.
    pub(crate) fn live(&self) -> Vec<ElementId> {
        self.seats().keys().cloned().collect()
    }

    fn clone_weak(&self) -> Seats {
        Seats(Arc::downgrade(&self.seats))
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<ElementId, Arc<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seats as a driver knows them: without keeping them alive.
pub(crate) struct Seats(std::sync::Weak<Mutex<HashMap<ElementId, Arc<Seat>>>>);

impl Seats {
    /// Gives the seat up unless someone is about to use it. True = the driver may end.
    pub(crate) fn give_up(&self, executor: &ElementId, asked: &mpsc::Receiver<Command>) -> bool {
        let Some(seats) = self.0.upgrade() else {
            return true;
        };
        let mut seats = seats.lock().unwrap_or_else(PoisonError::into_inner);
        // Seats are handed out only under this lock: nobody but the table has this one.
        let unused = seats
            .get(executor)
            .is_none_or(|seat| Arc::strong_count(seat) == 1);
        if unused && asked.is_empty() {
            seats.remove(executor);
            return true;
        }
        false
    }
}
