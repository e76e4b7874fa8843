//! The port to the engine: what the port layer needs of containerd and the kernel, and nothing more.
//!
//! Terms are the engine's: a *container* is one executor's, named by its [`ContainerId`]; a *process* is one run
//! of a task in it (containerd calls the first one its task and the others execs). Commit calls these verbs one at
//! a time, each with its undo:
//!
//! ```text
//! begin -> prepare_root -> create_container -> end
//!                                           -> create_process(primary) -> start_process
//!                                           -> create_process(further) -> start_process ...
//! on the way down: signal -> wait_process -> (exit record is durable) -> delete_process
//!                  -> delete_container -> remove_root
//! ```
//!
//! Every removing verb is idempotent: what is gone is fine. Every creating verb uses names derived from its
//! arguments, so repeating one after a crash finds what the first attempt made.

mod error;
pub mod fake;
mod found;
mod inside;
mod log;
mod name;
mod plan;
pub mod suite;

use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use tokio::io::AsyncRead;
use tokio::sync::watch;

pub use error::{RuntimeError, RuntimeErrorKind};
pub use found::{
    ContainerStats, Delivery, DiskBound, Finding, FindingClass, FoundContainer, HostIsolation,
    IdMapping, ProcessExit, ProcessState, RuntimeInfo, SignalScope,
};
pub use inside::{IdMap, Inside};
pub use log::{LogChunk, LogFigures, LogProgress, LogQuery, LogReader, LogStreams};
pub use name::{ContainerId, ProcessId, Scope};
pub use plan::{
    BridgePlan, ContainerPlan, DiskPlan, IdRange, MountPlan, NetworkPlan, OutputPlan, ProcessPlan,
    RootPlan, SinkPlan,
};

use crate::element::ElementId;
use crate::log::LogSpec;

/// What is fed to the standard input of a process.
pub type InputStream = Pin<Box<dyn AsyncRead + Send>>;

/// The engine. See the module for terms and order.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Versions and abilities.
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

    /// Whether the engine answers now. Itself answers within seconds, whatever hangs.
    async fn ping(&self) -> Result<(), RuntimeError>;

    /// Counts how often the engine was lost since we opened it, and tells of every further time: its process ended, was
    /// killed or was replaced. What runs goes on; calls that were in flight have failed, with or without effect. By default
    /// it is never lost.
    fn losses(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// Opens the lease of a commit. Idempotent.
    async fn begin(&self, scope: &Scope) -> Result<(), RuntimeError>;

    /// Deletes the lease; what it protected must by now be protected by a record in the engine. Idempotent.
    async fn end(&self, scope: &Scope) -> Result<(), RuntimeError>;

    /// Makes the root snapshot of a container. Idempotent for the same plan.
    async fn prepare_root(
        &self,
        scope: &Scope,
        id: &ContainerId,
        root: &RootPlan,
    ) -> Result<(), RuntimeError>;

    /// Makes of a container that is to be created what needs neither root nor engine: its private directory and the
    /// streams of its primary. [`Runtime::create_container`] makes what is missing, and says why it cannot; done while
    /// the engine makes the root, it costs no time. Undone by [`Runtime::delete_container`].
    async fn furnish(
        &self,
        _id: &ContainerId,
        _executor: &ElementId,
        _ids: Option<IdRange>,
        _primary: &ProcessPlan,
    ) {
    }

    /// Removes the root snapshot. The container must be deleted before. Idempotent.
    async fn remove_root(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Checks that every mount target exists in the root (or can be created, when the root is writable); what a
    /// late failure of the OCI runtime would say without a type. Also fills copy-up volumes.
    async fn check_mounts(&self, plan: &ContainerPlan) -> Result<(), RuntimeError>;

    /// Creates the engine's record of a container whose primary process will be `primary`. `AlreadyExists` when it
    /// is there.
    async fn create_container(
        &self,
        scope: &Scope,
        plan: &ContainerPlan,
        primary: &ProcessPlan,
    ) -> Result<(), RuntimeError>;

    /// Deletes the record, its cgroups and its private directory. Its processes must be deleted. Idempotent.
    async fn delete_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Creates a process: log files are open and drained before it can write. The primary one makes namespaces,
    /// cgroup and mounts; nothing of the task runs yet.
    async fn create_process(&self, plan: &ProcessPlan) -> Result<(), RuntimeError>;

    /// Starts a created process. The error tells apart a missing program, one that cannot be executed, and others.
    async fn start_process(&self, id: &ProcessId, primary: bool) -> Result<(), RuntimeError>;

    /// Waits until the process ended and its output is drained and stored. May be called often and at once, before
    /// or after the end; survives a restart of the engine. A process nobody knows any more ends as `Lost`.
    async fn wait_process(
        &self,
        id: &ProcessId,
        primary: bool,
    ) -> Result<ProcessExit, RuntimeError>;

    /// Deletes an ended (or only created) process; kills it first if `force`. Deleting the primary one ends the
    /// container: everything in its cgroup. Idempotent.
    async fn delete_process(
        &self,
        id: &ProcessId,
        primary: bool,
        force: bool,
    ) -> Result<(), RuntimeError>;

    /// Sends a signal. Not part of a commit; safe at any time.
    async fn signal(
        &self,
        id: &ProcessId,
        primary: bool,
        signal: i32,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError>;

    /// Freezes or thaws a container.
    async fn set_paused(&self, id: &ContainerId, paused: bool) -> Result<Delivery, RuntimeError>;

    /// What a container uses now. A container that does not run uses nothing that is known.
    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError>;

    /// State of one process now.
    async fn process_state(
        &self,
        id: &ProcessId,
        primary: bool,
    ) -> Result<ProcessState, RuntimeError>;

    /// Mounts a volume into a running container. `Unsupported` when the kernel cannot.
    async fn attach_mount(&self, id: &ContainerId, mount: &MountPlan) -> Result<(), RuntimeError>;

    /// Unmounts a volume from a running container. Idempotent. `Busy` when the container uses it.
    async fn detach_mount(&self, id: &ContainerId, target: &str) -> Result<(), RuntimeError>;

    /// Connects a container to a bridge: its rules are in force before it has an address. Between `create_process` of the
    /// primary process and its start, or while the container runs. Idempotent for the same plan; with another plan of the
    /// same network, rules and ports change. `Firewall` when the rules cannot be loaded, `PortInUse`; nothing is
    /// connected then.
    async fn connect(&self, id: &ContainerId, plan: &BridgePlan) -> Result<(), RuntimeError>;

    /// Takes a container from its bridge. Idempotent. `delete_container` and `purge` do it too.
    async fn disconnect(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Removes the bridge of a network that no container is connected to. Idempotent.
    async fn forget_network(&self, network: &ElementId) -> Result<(), RuntimeError> {
        let _ = network;
        Ok(())
    }

    /// Whether the node's owner allows what a log reaches outside of the node's own data. Error: the rule.
    fn allows_log(&self, log: &LogSpec) -> Result<(), String> {
        let _ = log;
        Ok(())
    }

    /// Makes the host's side of every bridge what it must be and nothing else: these containers are connected, with
    /// these rules, whatever was lost or left. After a start of the port layer.
    async fn restore_networks(
        &self,
        connected: &[(ContainerId, BridgePlan)],
    ) -> Result<(), RuntimeError>;

    /// Feeds standard input from `input` until it ends, then closes it. One writer at a time, else `Busy`.
    async fn write_stdin(
        &self,
        id: &ProcessId,
        primary: bool,
        input: InputStream,
    ) -> Result<(), RuntimeError>;

    /// Sets the size of a process's terminal.
    async fn resize(
        &self,
        id: &ProcessId,
        primary: bool,
        columns: u16,
        rows: u16,
    ) -> Result<(), RuntimeError>;

    /// Opens the file system of a running container. `State` or `NotFound` when it does not run; `Unsupported` by an
    /// engine whose containers have none.
    async fn inside(&self, id: &ContainerId) -> Result<Inside, RuntimeError> {
        Err(RuntimeError::new(
            RuntimeErrorKind::Unsupported,
            "look into",
            id.as_str(),
            "this engine's containers have no file system to look into",
        ))
    }

    /// Reads stored output, any number of readers at once.
    async fn logs(&self, query: &LogQuery) -> Result<LogReader, RuntimeError>;

    /// How far each log that the output of a task is sent on to has got, by the log's id. An engine that sends nothing on
    /// has none.
    async fn log_progress(
        &self,
        _executor: &ElementId,
        _task: &ElementId,
    ) -> Result<Vec<LogProgress>, RuntimeError> {
        Ok(Vec::new())
    }

    /// What became of the output of tasks, counted. Cheap.
    fn log_figures(&self) -> LogFigures {
        LogFigures::default()
    }

    /// Removes the stored output of an executor (all its tasks). Idempotent.
    async fn remove_logs(&self, executor: &ElementId) -> Result<(), RuntimeError>;

    /// Every container with our label, and every one of which a commit that did not finish made less than its record:
    /// its lease or its private directory alone.
    async fn list(&self) -> Result<Vec<FoundContainer>, RuntimeError>;

    /// Removes everything a name stands for in the engine and the kernel, whatever state it is in: for leftovers
    /// of crashed commits. Idempotent.
    async fn purge(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Everything of ours, from the kernel and the engine.
    async fn audit(&self) -> Result<Vec<Finding>, RuntimeError>;

    /// Removes one thing the audit found and nobody owns; where it belongs to a container, at least this and perhaps all
    /// of that container. What the engine collects by itself is left to it. Idempotent.
    async fn sweep(&self, leak: &Finding) -> Result<(), RuntimeError>;

    /// The private directory of the runtime, for messages.
    fn state_dir(&self) -> PathBuf;
}
