//! Named places at which the program can be made to die, for tests of recovery (`portlayer-torture`).
//!
//! A point stands before or after a durable write or a call to the engine or the kernel. With the feature `crash-points` the
//! variable `PORTLAYER_CRASH=name[:nth]` makes the process kill itself with SIGKILL when it comes to that point for the nth
//! time; nothing is printed, flushed or dropped, as when the power of the machine ends one process. Without the feature a
//! point is no code at all.

/// Every point, grouped by what comes to it. `tests/tidy.rs` holds that each is in the code once.
pub const POINTS: &[&str] = &[
    // The ledger: opening it, and every transaction.
    "ledger.open",
    "ledger.opened",
    "ledger.before-batch",
    "ledger.before-flush",
    "ledger.before-answer",
    "ledger.after-answer",
    // Elements.
    "create.before-bytes",
    "create.before-record",
    "create.after-record",
    "update.before-record",
    "update.after-record",
    "delete.before-record",
    "delete.before-bytes",
    "delete.after-bytes",
    // A commit that starts a container.
    "start.before-claim",
    "start.before-steps",
    "start.before-container",
    "start.before-record",
    "start.after-record",
    // A commit that changes a running container.
    "change.before-claim",
    "change.before-steps",
    "change.before-record",
    "change.before-stop",
    "change.before-detach",
    "change.before-second-record",
    // Steps of both, and their undo.
    "step.before-attach",
    "step.before-process",
    "step.before-start",
    "step.after-start",
    "step.before-undo",
    // Ends of tasks, and starting them again.
    "exit.before-record",
    "exit.before-delete-process",
    "exit.before-delete-container",
    "exit.before-remove-root",
    "exit.before-detach",
    "restart.before-claim",
    "restart.before-record",
    "restart.after-record",
    // The real engine and the kernel.
    "engine.before-lease",
    "engine.before-snapshot",
    "engine.before-mount",
    "engine.after-mount",
    "engine.before-container",
    "engine.after-container",
    "engine.before-streams",
    "engine.before-process",
    "engine.after-process",
    "engine.before-kill",
    "engine.before-delete",
    "engine.after-delete",
    "engine.after-delete-container",
    "engine.after-unmount",
    "engine.before-end-lease",
    // What tasks write, and the file that keeps how one ended until the ledger does.
    "log.before-splice",
    "log.before-index",
    "log.before-segment",
    "log.after-segment",
    "log.before-drain",
    "status.before-take",
    "log.before-exit-file",
    "log.after-exit-file",
    // Recovery.
    "recover.before-undo",
    "recover.before-undo-record",
    "recover.before-purge",
    "recover.before-adopt",
    "recover.after-adopt",
    "recover.before-sweep",
    "recover.after-open",
];

/// Dies here when it is this point's turn.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    armed::come_to(name);
}

/// Nothing: the feature `crash-points` is off.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn point(_name: &'static str) {}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    struct Armed {
        name: String,
        /// How often it is still passed.
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let wanted = std::env::var("PORTLAYER_CRASH").ok()?;
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some(Armed {
            name: name.to_owned(),
            left: AtomicU64::new(nth.parse().unwrap_or(1)),
        })
    });

    pub(super) fn come_to(name: &'static str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.name == name) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Cannot fail for the process itself; and SIGKILL leaves no moment to come back in.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::POINTS;

    #[test]
    fn names_are_unique() {
        let mut names = POINTS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), POINTS.len());
        assert!(names.len() >= 25);
    }
}
