//! A process we look after: its streams, and the one who waits for its end.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portlayer::runtime::{ProcessExit, ProcessId, RuntimeError};
use tokio::{sync::watch, task::AbortHandle};

use super::Shared;
use crate::{
    cgroup::Usage,
    error::failed,
    exits::{self, Seen},
    io::{Drained, Output, Redactor, Stream, Watched, make_fifo, open_both, open_reader},
    place::{ContainerPlace, ProcessPlace, ProcessRecord},
    process::{Name, Streams},
    status::{Status, Word},
};

/// How long the shim may take to hand on the last output of a process that has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A process and what of it lives in our memory. Made again from the disk after a restart.
pub(super) struct Tracked {
    pub(super) id: ProcessId,
    pub(super) record: ProcessRecord,
    pub(super) place: ProcessPlace,
    /// Only of a primary process.
    pub(super) status: Option<Arc<Status>>,
    exit: watch::Sender<Option<ProcessExit>>,
    drained: Mutex<Vec<Drained>>,
    watched: Mutex<Vec<Watched>>,
    /// Keeps standard input open until the shim does.
    stdin: Mutex<Option<OwnedFd>>,
    pub(super) stdin_taken: AtomicBool,
    waited_for: AtomicBool,
    waiter: Mutex<Option<AbortHandle>>,
}

impl Tracked {
    /// Opens the streams of a new process, before containerd hears of it.
    pub(super) fn create(
        shared: &Shared,
        id: &ProcessId,
        record: ProcessRecord,
    ) -> Result<Arc<Tracked>, RuntimeError> {
        let place = ProcessPlace::of(&shared.places, id);
        let object = record.task.to_string();
        place
            .write(&record)
            .map_err(failed("make the directory of", object.clone()))?;
        let tracked = Tracked::new(shared, id, record, place)
            .map_err(failed("open the status of", object.clone()))?;
        portlayer::crash::point("engine.before-streams");
        tracked
            .open_streams(shared, true)
            .map_err(failed("open the log of", object))?;
        Ok(Arc::new(tracked))
    }

    /// Finds a process that an earlier run of ours created; `None` when there is no such process.
    pub(super) fn find(
        shared: &Shared,
        id: &ProcessId,
    ) -> Result<Option<Arc<Tracked>>, RuntimeError> {
        let place = ProcessPlace::of(&shared.places, id);
        let fault = || failed("read the record of", id.name.clone());
        let Some(record) = place.read().map_err(fault())? else {
            return Ok(None);
        };
        let exit = place.read_exit().map_err(fault())?;
        let tracked = Tracked::new(shared, id, record, place).map_err(fault())?;
        if exit.is_some() {
            tracked.exit.send_replace(exit);
        } else {
            tracked.open_streams(shared, false).map_err(fault())?;
        }
        Ok(Some(Arc::new(tracked)))
    }

    fn new(
        shared: &Shared,
        id: &ProcessId,
        record: ProcessRecord,
        place: ProcessPlace,
    ) -> io::Result<Tracked> {
        let container = ContainerPlace::new(&shared.places, &id.container);
        let mut watched = Vec::new();
        let status = match container.read()? {
            Some(owner) if record.primary => {
                make_fifo(&container.status(), 0o622)?;
                let fifo = open_both(&container.status())?;
                let status = Arc::new(Status::new(fifo, owner.token, &container.word())?);
                let source: Arc<dyn crate::io::Source> = Arc::<Status>::clone(&status);
                watched.push(shared.pump.watch(source)?);
                Some(status)
            }
            _ => None,
        };
        Ok(Tracked {
            id: id.clone(),
            record,
            place,
            status,
            exit: watch::Sender::new(None),
            drained: Mutex::default(),
            watched: Mutex::new(watched),
            stdin: Mutex::default(),
            stdin_taken: AtomicBool::new(false),
            waited_for: AtomicBool::new(false),
            waiter: Mutex::default(),
        })
    }

    fn open_streams(&self, shared: &Shared, new: bool) -> io::Result<()> {
        if self.record.stdin {
            let path = self.place.stream("stdin");
            make_fifo(&path, 0o600)?;
            if new {
                *lock(&self.stdin) = Some(open_both(&path)?);
            }
        }
        if self.record.is_silent() {
            return Ok(());
        }
        let wanted = |stream| match stream {
            Stream::Out => self.record.log_stdout,
            Stream::Err => self.record.log_stderr,
        } && self.record.handed(stream).is_none();
        let directory = shared
            .logs
            .directory(&self.record.executor, &self.record.task);
        let log = if wanted(Stream::Out) || wanted(Stream::Err) {
            let log = shared.logs.open(&directory, self.record.bounds())?;
            let (executor, task, sinks) =
                (&self.record.executor, &self.record.task, &self.record.sinks);
            match new {
                true => shared.forwarders.begin(executor, task, sinks)?,
                false => shared.forwarders.again(executor, task, sinks)?,
            }
            Some(log)
        } else {
            None
        };
        let streams: &[(Stream, &str)] = if self.record.terminal {
            &[(Stream::Out, "stdout")]
        } else {
            &[(Stream::Out, "stdout"), (Stream::Err, "stderr")]
        };
        for &(stream, name) in streams {
            if self.record.handed(stream).is_some() {
                continue;
            }
            let path = self.place.stream(name);
            make_fifo(&path, 0o600)?;
            let (output, drained) = Output::new(
                open_reader(&path)?,
                stream,
                log.clone().filter(|_| wanted(stream)),
                Redactor::new(self.record.redact.0.iter().map(String::as_str))?,
            );
            if !new {
                // A writer that is gone already is not signalled to a reader that comes later.
                crate::io::Source::read(&*output);
            }
            lock(&self.watched).push(shared.pump.watch(output)?);
            lock(&self.drained).push(drained);
        }
        Ok(())
    }

    /// The paths containerd gets.
    pub(super) fn streams(&self) -> Streams {
        let path = |wanted: bool, name: &str| {
            let path = self.place.stream(name);
            Streams::path(wanted.then_some(path.as_path()))
        };
        let output = |wanted: bool, stream: Stream, name: &str| match self.record.handed(stream) {
            Some(handed) if wanted => Streams::path(Some(std::path::Path::new(handed))),
            _ => path(wanted, name),
        };
        let loud = !self.record.is_silent();
        Streams {
            stdin: path(self.record.stdin, "stdin"),
            stdout: output(loud, Stream::Out, "stdout"),
            stderr: output(loud && !self.record.terminal, Stream::Err, "stderr"),
            terminal: self.record.terminal,
        }
    }

    /// The shim holds standard input open from now on.
    pub(super) fn release_stdin(&self) {
        lock(&self.stdin).take();
    }

    pub(super) fn name(&self) -> Name {
        Name::new(&self.id, self.record.primary)
    }

    /// How it ended, if it did.
    pub(super) fn exit(&self) -> Option<ProcessExit> {
        self.exit.borrow().clone()
    }

    /// Waits for the end, and for its output to be stored.
    pub(super) async fn ended(&self) -> ProcessExit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = exit.borrow_and_update().clone() {
                return exit;
            }
            // The sender is part of self and so cannot be gone.
            let _ = exit.changed().await;
        }
    }

    /// Starts the one waiter, if there is none and it has not ended.
    pub(super) fn wait_in_background(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.exit.borrow().is_none() && !self.waited_for.swap(true, Ordering::AcqRel) {
            let (tracked, shared) = (Arc::clone(self), Arc::clone(shared));
            let waiter = Arc::clone(&tracked);
            let task = tokio::spawn(async move { waiter.wait(&shared).await });
            *lock(&tracked.waiter) = Some(task.abort_handle());
        }
    }

    /// Ends the waiting without a result, as the end of our process would.
    pub(super) fn abandon(&self) {
        if let Some(waiter) = lock(&self.waiter).take() {
            waiter.abort();
        }
    }

    async fn wait(&self, shared: &Shared) {
        let name = self.name();
        let seen = match &self.status {
            None => Some(exits::wait(&shared.client, &name).await),
            Some(status) => {
                let mut word = status.subscribe();
                tokio::select! {
                    seen = exits::wait(&shared.client, &name) => Some(seen),
                    // The primary can end while further tasks go on in its container.
                    _ = word.wait_for(|word| word.is_end()) => None,
                }
            }
        };
        let word = self.status.as_ref().map(|status| status.now());
        portlayer::crash::point("log.before-drain");
        // Also of one nobody knows any more: what it wrote while its shim lived is in the FIFOs.
        self.drain(shared).await;
        portlayer::crash::point("log.before-exit-file");
        let exit = self.store_exit(shared, word, seen).await;
        portlayer::crash::point("log.after-exit-file");
        lock(&self.watched).clear();
        self.release_stdin();
        self.exit.send_replace(Some(exit));
    }

    /// Puts the end together and stores it beside the process.
    async fn store_exit(
        &self,
        shared: &Shared,
        word: Option<Word>,
        seen: Option<Seen>,
    ) -> ProcessExit {
        let cgroup = shared.cgroup(&self.id.container);
        let (layout, place) = (shared.layout.clone(), self.place.clone());
        let oom_kills_before = self.record.oom_kills_before;
        let work = move || {
            // Read now: containerd removes the cgroup with the process.
            let exit = exits::judge(word, seen, layout.usage(&cgroup), oom_kills_before);
            let stored = place.write_exit(&exit);
            (exit, stored)
        };
        let (exit, stored) = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            // The runtime is shutting down: nobody will hear of it.
            Err(_) => return exits::judge(word, seen, Usage::default(), oom_kills_before),
        };
        // A record that cannot be written is told anyway; only a restart before the ledger has it would ask containerd again.
        if let Err(error) = stored {
            tracing::warn!(%error, process = %self.id.name, "exit is not stored beside the process");
        }
        exit
    }

    /// Waits until all output is stored.
    async fn drain(&self, shared: &Shared) {
        let drained = std::mem::take(&mut *lock(&self.drained));
        for mut stream in drained {
            let (layout, cgroup) = (shared.layout.clone(), shared.cgroup(&self.id.container));
            let held = move || !layout.processes(&cgroup).is_empty();
            stream.wait(DRAIN_LIMIT, held).await;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
