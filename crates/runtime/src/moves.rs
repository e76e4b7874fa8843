//! Keeps the kernel ready to move processes between control groups while something is being started.
//!
//! A move takes one lock of the whole kernel, and whoever takes it after a rest waits for an RCU grace period first: some 11 ms
//! of every `runc create` and `runc exec` on an idle node (reference: performance.md 3.1). Within a grace period of the last one
//! it costs nothing (kernel/rcu/sync.c). So a thread of ours takes that lock while containerd and runc are still on their way to
//! it: it moves itself to the group it is in, which changes nothing. Where cgroups are mounted with favordynmods the kernel is
//! always ready, and there is no thread.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::cgroup::Layout;

/// How often the lock is taken while something starts: more often than the shortest grace period, which is a few ticks.
const EVERY: Duration = Duration::from_millis(3);

/// Knows whether anything is being started.
pub(crate) struct Moves(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    starting: usize,
    closed: bool,
}

/// Something is being started for as long as it lives.
pub(crate) struct Starting<'a>(&'a Inner);

impl Moves {
    /// Starts the thread, where it is of use.
    pub(crate) fn open(layout: &Layout) -> io::Result<Moves> {
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        if !layout.favordynmods() {
            let (inner, layout) = (Arc::clone(&inner), layout.clone());
            std::thread::Builder::new()
                .name("cgroup moves".to_owned())
                .spawn(move || inner.run(&layout))?;
        }
        Ok(Moves(inner))
    }

    /// To be held while runc may be about to move a process.
    pub(crate) fn expect(&self) -> Starting<'_> {
        self.0.lock().starting += 1;
        self.0.changed.notify_one();
        Starting(&self.0)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when it is closed.
    fn run(&self, layout: &Layout) {
        while self.wait() {
            if let Err(error) = self.keep_ready(layout) {
                // These starts take as long as with any other client of containerd.
                tracing::debug!(%error, "the kernel is not kept ready for moves between cgroups");
                while self.is_starting() {
                    std::thread::sleep(EVERY);
                }
            }
        }
    }

    fn keep_ready(&self, layout: &Layout) -> io::Result<()> {
        // Looked up again after each rest: the process may have been moved meanwhile.
        let mut group = own_group(layout)?;
        while self.is_starting() {
            write!(group, "{}", rustix::thread::gettid().as_raw_nonzero())?;
            std::thread::sleep(EVERY);
        }
        Ok(())
    }

    fn is_starting(&self) -> bool {
        let state = self.lock();
        state.starting > 0 && !state.closed
    }

    /// Rests until something is being started; false when it is closed.
    fn wait(&self) -> bool {
        let rests = |state: &mut State| state.starting == 0 && !state.closed;
        let state = self.changed.wait_while(self.lock(), rests);
        !state.unwrap_or_else(PoisonError::into_inner).closed
    }
}

/// The file that moves a thread to the group in which this one is. A thread cannot leave its process's group by it in the
/// unified hierarchy; in one of version 1 it could, but only this thread, which has no other work.
fn own_group(layout: &Layout) -> io::Result<File> {
    let own = std::fs::read_to_string("/proc/thread-self/cgroup")?;
    let path = layout
        .threads_file(&own)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    OpenOptions::new().write(true).open(path)
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_its_owner_and_nothing_is_moved() {
        let layout = Layout::detect().unwrap();
        // Of every thread; one that has just ended has no file any more.
        let groups = || -> std::collections::BTreeSet<String> {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let groups = threads.map(|thread| thread.unwrap().path().join("cgroup"));
            groups.flat_map(std::fs::read_to_string).collect()
        };
        let before = groups();
        let moves = Moves::open(&layout).unwrap();
        let inner = Arc::downgrade(&moves.0);
        {
            let _first = moves.expect();
            let _second = moves.expect();
            std::thread::sleep(EVERY * 4);
            assert_eq!(groups(), before);
        }
        assert_eq!(moves.0.lock().starting, 0);
        drop(moves);
        // It holds the other reference until it has ended.
        let started = std::time::Instant::now();
        while inner.upgrade().is_some() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "the thread goes on"
            );
            std::thread::sleep(EVERY);
        }
    }
}
