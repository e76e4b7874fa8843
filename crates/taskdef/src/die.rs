//! Named places of the runner and of the life of tasks at which the program can be made to die, for tests of recovery.
//! They are armed like those of [`portlayer::crash`] and are no code without its feature.

/// Every place, in the order a task comes to them.
pub const POINTS: &[&str] = &[
    "diego.before-record",
    "diego.after-record",
    "diego.before-running",
    "diego.after-running",
    "run.before-volumes",
    "run.before-executor",
    "run.before-commit",
    "run.after-commit",
    "run.before-process",
    "run.after-process",
    "run.after-exit",
    "run.before-outputs",
    "run.before-remove",
    "run.after-remove",
    "diego.before-completed",
    "diego.after-completed",
    "diego.before-callback",
    "diego.after-callback",
    "diego.before-delete",
    "diego.after-delete",
];

/// Dies here when it is this point's turn.
#[inline(always)]
pub(crate) fn at(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is in no table");
    portlayer::crash::point(name);
}
