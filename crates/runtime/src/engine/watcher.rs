//! Starts containerd again when it ends: a kill, a crash, the kernel short of memory. Tasks go on meanwhile.

use std::{
    os::fd::{AsFd, OwnedFd},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::sync::watch;

use super::{EngineConfig, Places, spawn};

/// Pause before a second start; doubled for each further one that did not last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// A containerd that ran so long ended for a reason of its own: the next one is started at once.
const LASTING: Duration = Duration::from_secs(1);

/// containerd's process, when it is a child of ours: its end must be taken.
pub(super) type OurChild = Arc<Mutex<Option<Child>>>;

/// The thread that watches. Dropping it ends the watching and leaves containerd running.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(
        places: Places,
        config: EngineConfig,
        child: OurChild,
        losses: Arc<watch::Sender<u64>>,
    ) -> std::io::Result<Watcher> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let watch = Watch {
            places,
            config,
            child,
            losses,
            stop: stop.try_clone()?,
        };
        let thread = std::thread::Builder::new()
            .name("portlayer-engine".into())
            .spawn(move || watch.run())?;
        Ok(Watcher {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let told = rustix::io::write(&self.stop, &1u64.to_ne_bytes()).is_ok();
        if let (Some(thread), true) = (self.thread.take(), told) {
            let _ = thread.join();
        }
    }
}

struct Watch {
    places: Places,
    config: EngineConfig,
    child: OurChild,
    losses: Arc<watch::Sender<u64>>,
    stop: OwnedFd,
}

impl Watch {
    fn run(&self) {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            match self.pidfd() {
                Some(pidfd) => {
                    if self.stopped(Some(&pidfd), None) {
                        return;
                    }
                    self.take_end();
                    self.losses.send_modify(|losses| *losses += 1);
                    tracing::error!("containerd ended and is started again; tasks go on");
                    if since.elapsed() > LASTING {
                        pause = Duration::ZERO;
                    }
                }
                None => match spawn(&self.places, &self.config) {
                    Ok(new) => {
                        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
                        pause = (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "containerd cannot be started, trying again");
                        pause = (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                    }
                },
            }
            if self.stopped(None, Some(pause)) {
                return;
            }
        }
    }

    /// containerd's process, found by its arguments. The pidfd is taken before the second look, so it is of that process.
    fn pidfd(&self) -> Option<OwnedFd> {
        let running = || self.places.running().ok()?.into_iter().next();
        let process = running()?;
        let pidfd = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
        (running()?.pid == process.pid).then_some(pidfd)
    }

    /// Waits for the end of a process, or for some time, or to be stopped: then true.
    fn stopped(&self, process: Option<&OwnedFd>, limit: Option<Duration>) -> bool {
        let mut watched = vec![PollFd::new(&self.stop, PollFlags::IN)];
        watched.extend(
            process.map(|process| PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)),
        );
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        loop {
            match poll(&mut watched, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                _ => return !watched[0].revents().is_empty(),
            }
        }
    }

    fn take_end(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = child.as_mut() {
            let _ = ended.try_wait();
        }
    }
}
