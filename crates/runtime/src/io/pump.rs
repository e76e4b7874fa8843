//! One thread that serves the FIFOs of all processes.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::event::{EventfdFlags, epoll, eventfd};
use tokio::sync::watch;

use super::log::{Moved, OpenLog, Stream, discard};
use super::redact::Redactor;

/// Pieces taken from one FIFO before the next one gets its turn.
const TURN: usize = 4;

/// Between two looks whether an ended process left output.
const LOOK: Duration = Duration::from_millis(10);

/// So many looks in a row that find nothing are the end of a stream that somebody still holds open. Looks and not a time: a
/// machine that stood still has given nobody any.
const QUIET: u32 = 10;

/// The key of the descriptor that ends the thread.
const STOP: u64 = 0;

/// What a source says after it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// There may be more.
    Goes,
    /// It is at its end and need not be watched.
    Ended,
}

/// Something with a descriptor that is read when it can be. Reading never waits.
pub(crate) trait Source: Send + Sync {
    fn descriptor(&self) -> BorrowedFd<'_>;
    fn read(&self) -> Readiness;

    /// It may leave bytes unread until more come: then it is told of new ones only, and must take all it can each time.
    fn waits_for_more(&self) -> bool {
        false
    }
}

/// The thread and what it watches. The thread has ended when this is dropped.
pub(crate) struct Pump {
    shared: Arc<Shared>,
    stop: OwnedFd,
    next: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: OwnedFd,
    sources: Mutex<HashMap<u64, Arc<dyn Source>>>,
}

impl Pump {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Pump> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(
            &epoll,
            &stop,
            epoll::EventData::new_u64(STOP),
            epoll::EventFlags::IN,
        )?;
        let shared = Arc::new(Shared {
            epoll,
            sources: Mutex::new(HashMap::new()),
        });
        let thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("portlayer-io".into())
            .spawn(move || thread.run())?;
        Ok(Pump {
            shared,
            stop,
            next: AtomicU64::new(STOP + 1),
            thread: Some(thread),
        })
    }

    /// Watches a source until it ends or the returned guard is dropped.
    pub(crate) fn watch(&self, source: Arc<dyn Source>) -> io::Result<Watched> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.shared.lock().insert(key, Arc::clone(&source));
        let added = epoll::add(
            &self.shared.epoll,
            source.descriptor(),
            epoll::EventData::new_u64(key),
            match source.waits_for_more() {
                true => epoll::EventFlags::IN | epoll::EventFlags::ET,
                false => epoll::EventFlags::IN,
            },
        );
        if let Err(error) = added {
            self.shared.lock().remove(&key);
            return Err(error.into());
        }
        Ok(Watched {
            key,
            shared: Arc::downgrade(&self.shared),
        })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let told = rustix::io::write(&self.stop, &1u64.to_ne_bytes()).is_ok();
        // Whoever takes over the FIFOs must not share them with this thread. It never waits for anything but its descriptors.
        if let Some(thread) = self.thread.take()
            && told
        {
            let _ = thread.join();
        }
    }
}

/// Ends the watching when dropped.
pub(crate) struct Watched {
    key: u64,
    shared: Weak<Shared>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(self.key);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<dyn Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, key: u64) {
        let source = self.lock().remove(&key);
        if let Some(source) = source {
            let _ = epoll::delete(&self.epoll, source.descriptor());
        }
    }

    fn run(&self) {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 64];
        loop {
            let events = match epoll::wait(&self.epoll, &mut space, None) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "output of tasks is not stored any more");
                    return;
                }
            };
            for event in events {
                let key = event.data.u64();
                if key == STOP {
                    return;
                }
                let source = self.lock().get(&key).cloned();
                if let Some(source) = source
                    && source.read() == Readiness::Ended
                {
                    self.forget(key);
                }
            }
        }
    }
}

/// One output stream of a process on its way into a log, or nowhere.
pub(crate) struct Output {
    fifo: OwnedFd,
    stream: Stream,
    /// Let go at the end, so that followers of the log learn that nobody writes it any more.
    log: Mutex<Option<Arc<OpenLog>>>,
    discard: bool,
    redactor: Option<Redactor>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    bytes: u64,
    ended: bool,
}

impl Output {
    /// `log` = `None` drops everything.
    pub(crate) fn new(
        fifo: OwnedFd,
        stream: Stream,
        log: Option<Arc<OpenLog>>,
        redactor: Option<Redactor>,
    ) -> (Arc<Output>, Drained) {
        let (progress, watched) = watch::channel(Progress::default());
        let discard = log.is_none();
        let output = Arc::new(Output {
            fifo,
            stream,
            log: Mutex::new(log),
            discard,
            redactor,
            progress,
        });
        let drained = Drained {
            output: Arc::clone(&output),
            progress: watched,
        };
        (output, drained)
    }
}

impl Source for Output {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }

    fn waits_for_more(&self) -> bool {
        self.redactor.is_some()
    }

    fn read(&self) -> Readiness {
        let turns = if self.waits_for_more() {
            usize::MAX
        } else {
            TURN
        };
        let mut slot = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..turns {
            let moved = match &*slot {
                Some(log) => log.store(self.stream, self.fifo.as_fd(), self.redactor.as_ref()),
                None if self.discard => discard(self.fifo.as_fd()),
                None => return Readiness::Ended,
            };
            match moved {
                Ok(Moved::Bytes(count)) => self
                    .progress
                    .send_modify(|progress| progress.bytes += count as u64),
                Ok(Moved::Nothing) => return Readiness::Goes,
                Ok(Moved::End) | Err(_) => {
                    *slot = None;
                    self.progress.send_modify(|progress| progress.ended = true);
                    return Readiness::Ended;
                }
            }
        }
        Readiness::Goes
    }
}

/// Tells when an output stream has been stored completely.
pub(crate) struct Drained {
    output: Arc<Output>,
    progress: watch::Receiver<Progress>,
}

impl Drained {
    /// Waits for the end of the stream of a process that has ended; but when something that it left behind may hold it open
    /// (`held`, which may block), only until nothing comes any more, and never longer than `limit`. What the process
    /// wrote and the shim has handed on is stored then, however late the thread of the pump is.
    pub(crate) async fn wait(
        &mut self,
        limit: Duration,
        held: impl Fn() -> bool + Clone + Send + 'static,
    ) {
        if tokio::time::timeout(limit, self.quiet(held)).await.is_err() {
            self.take().await;
        }
    }

    async fn quiet(&mut self, held: impl Fn() -> bool + Clone + Send + 'static) {
        let mut looks = 0;
        loop {
            let before = self.progress.borrow_and_update().bytes;
            let ended = self.progress.wait_for(|progress| progress.ended);
            if tokio::time::timeout(LOOK, ended).await.is_ok() {
                return;
            }
            // Taken here, so that nothing found means that nothing is there.
            self.take().await;
            let came = self.progress.borrow().bytes != before;
            looks = if came { 0 } else { looks + 1 };
            if looks >= QUIET {
                let held = held.clone();
                if tokio::task::spawn_blocking(held).await.unwrap_or(true) {
                    return;
                }
            }
        }
    }

    /// Stores what is in the FIFO now.
    async fn take(&self) {
        let output = Arc::clone(&self.output);
        // It ends at shutdown only, when nobody hears of the end of the process either.
        let _ = tokio::task::spawn_blocking(move || output.read()).await;
    }
}
