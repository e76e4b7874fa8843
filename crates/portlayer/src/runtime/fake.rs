//! An engine in memory, for every test above the [`Runtime`](super::Runtime) port: it keeps the port's rules (order, idempotence,
//! which state allows what), journals every call and fails where it is told to.
//!
//! A task's argv is a script of its own, run word by word: `echo TEXT`, `err TEXT` (standard error), `sleep MS`,
//! `hang` (until a signal ends it), `trap N` (from now on signal N does nothing), `cat` (standard input to standard
//! output), `oom`, `exit N`. After the last word it exits with 0. Any other first word is a missing program.

mod engine;
mod log;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{BridgePlan, ContainerId, LogChunk, ProcessId, RuntimeError, RuntimeErrorKind};
use crate::element::ElementId;
use process::FakeProcess;

/// The engine in memory. Cloning shares it: two port layers over one fake are one node before and after a restart.
#[derive(Clone, Default)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    journal: Vec<String>,
    faults: Vec<Fault>,
    holds: BTreeMap<&'static str, watch::Receiver<bool>>,
    scopes: BTreeSet<String>,
    roots: BTreeSet<ContainerId>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    logs: BTreeMap<ElementId, Vec<(ElementId, LogChunk)>>,
    no_live_attach: bool,
    inside: Option<std::path::PathBuf>,
}

struct Fault {
    verb: &'static str,
    /// Calls of the verb to let pass first.
    after: usize,
    kind: RuntimeErrorKind,
    /// The call has its effect before it fails, as when an answer is lost.
    with_effect: bool,
}

struct FakeContainer {
    executor: ElementId,
    paused: bool,
    several: bool,
    mounts: BTreeMap<String, ElementId>,
    bridge: Option<BridgePlan>,
    processes: BTreeMap<String, FakeProcess>,
}

/// Keeps calls of a verb waiting until it is dropped.
pub struct Hold(#[allow(dead_code, reason = "its drop is its use")] watch::Sender<bool>);

impl FakeRuntime {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the `nth` call of `verb` from now (the first is 1) fail with `kind`, without effect.
    pub fn fail(&self, verb: &'static str, nth: usize, kind: RuntimeErrorKind) {
        self.fault(verb, nth, kind, false);
    }

    /// The same, but the call has its effect and only its answer is lost.
    pub fn fail_after_effect(&self, verb: &'static str, nth: usize, kind: RuntimeErrorKind) {
        self.fault(verb, nth, kind, true);
    }

    fn fault(&self, verb: &'static str, nth: usize, kind: RuntimeErrorKind, with_effect: bool) {
        self.lock().faults.push(Fault {
            verb,
            after: nth.saturating_sub(1),
            kind,
            with_effect,
        });
    }

    /// Keeps calls of `verb` waiting at their start until the returned value is dropped.
    pub fn hold(&self, verb: &'static str) -> Hold {
        let (sender, receiver) = watch::channel(false);
        self.lock().holds.insert(verb, receiver);
        Hold(sender)
    }

    /// From now on volumes cannot be attached to or detached from running containers.
    pub fn refuse_live_attach(&self) {
        self.lock().no_live_attach = true;
    }

    /// From now on the file system of every running container is this directory.
    pub fn set_inside(&self, directory: impl Into<std::path::PathBuf>) {
        self.lock().inside = Some(directory.into());
    }

    /// Every call so far, as `verb object`.
    pub fn journal(&self) -> Vec<String> {
        self.lock().journal.clone()
    }

    /// Empties the journal.
    pub fn clear_journal(&self) {
        self.lock().journal.clear();
    }

    /// Lets a container and its processes vanish, as when somebody else removes them from the engine.
    pub fn vanish(&self, id: &ContainerId) {
        let gone = self.lock().containers.remove(id);
        for process in gone.iter().flat_map(|c| c.processes.values()) {
            process.lose();
        }
    }

    /// The targets mounted in a container now, with their volumes.
    pub fn mounts(&self, id: &ContainerId) -> BTreeMap<String, ElementId> {
        let state = self.lock();
        let container = state.containers.get(id);
        container.map(|c| c.mounts.clone()).unwrap_or_default()
    }

    /// What a container is connected to now.
    pub fn bridge(&self, id: &ContainerId) -> Option<BridgePlan> {
        let state = self.lock();
        state.containers.get(id)?.bridge.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Journals a call; `Some` = the call is to have its effect and then fail like this.
    async fn enter(
        &self,
        verb: &'static str,
        object: &str,
    ) -> Result<Option<RuntimeError>, RuntimeError> {
        let hold = {
            let mut state = self.lock();
            state.journal.push(format!("{verb} {object}"));
            state.holds.get(verb).cloned()
        };
        if let Some(mut hold) = hold {
            // Never set to true: this ends when the sender is dropped.
            let _ = hold.wait_for(|released| *released).await;
        }
        let mut state = self.lock();
        let mut hit = None;
        for (index, fault) in state.faults.iter_mut().enumerate() {
            if fault.verb != verb {
                continue;
            }
            match fault.after.checked_sub(1) {
                Some(left) => fault.after = left,
                None => hit = hit.or(Some(index)),
            }
        }
        let Some(index) = hit else {
            return Ok(None);
        };
        let fault = state.faults.remove(index);
        let error = RuntimeError::new(fault.kind, verb, object, "injected");
        match fault.with_effect {
            true => Ok(Some(error)),
            false => Err(error),
        }
    }

    fn process<T>(
        &self,
        id: &ProcessId,
        read: impl FnOnce(&mut FakeProcess) -> T,
    ) -> Result<T, RuntimeError> {
        let mut state = self.lock();
        let container = state.containers.get_mut(&id.container);
        let process = container.and_then(|c| c.processes.get_mut(&id.name));
        process
            .map(read)
            .ok_or_else(|| error(RuntimeErrorKind::NotFound, "process", &id.name))
    }
}

fn error(kind: RuntimeErrorKind, verb: &'static str, object: &str) -> RuntimeError {
    RuntimeError::new(kind, verb, object, "said the fake engine")
}

fn answer<T>(fault: Option<RuntimeError>, value: T) -> Result<T, RuntimeError> {
    match fault {
        Some(error) => Err(error),
        None => Ok(value),
    }
}
