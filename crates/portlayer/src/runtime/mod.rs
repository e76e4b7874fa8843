//! The port to the engine: what the port layer needs of containerd and the kernel, and nothing more.
//!
//! Terms are the engine's: a *container* is one executor's, named by its [`ContainerId`]; a *process* is one run
//! of a task in it (containerd calls the first one its task and the others execs). Commit calls these verbs one at
//! a time, each with its undo:
//!
//! ```text
//! begin -> prepare_root -> create_container -> create_process(primary) -> start_process
//!                                           -> create_process(further) -> start_process ...   -> end
//! on the way down: signal -> wait_process -> (exit record is durable) -> delete_process
//!                  -> delete_container -> remove_root
//! ```
//!
//! Every removing verb is idempotent: what is gone is fine. Every creating verb uses names derived from its
//! arguments, so repeating one after a crash finds what the first attempt made.

pub mod fake;
mod fake_process;

pub mod suite;

use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncRead;

use crate::element::{ElementId, StoreKeys};
use crate::store::Access;
use crate::task::ExitReason;
use crate::time::Timestamp;

/// The engine's name of one start of an executor: `<executor digest, 20 hex digits>-<generation>`. Deterministic,
/// and short enough for containerd (76 characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// The name of the `generation`th start of this executor.
    pub fn new(executor: &ElementId, generation: u32) -> Self {
        Self(format!("{}-{generation}", &executor.digest_hex()[..20]))
    }

    /// Reads a name back from the engine; whether it is one of ours is for the labels to say.
    pub fn from_engine(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One run of a task: its container and a name within it, `<task digest, 16 hex digits>-<run>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The container.
    pub container: ContainerId,
    /// Name within the container; for the primary process only our name, the engine knows it as the container.
    pub name: String,
}

impl ProcessId {
    /// The name of one run of a task.
    pub fn new(container: ContainerId, task: &ElementId, run: u32) -> Self {
        Self {
            container,
            name: format!("{}-{run}", &task.digest_hex()[..16]),
        }
    }
}

/// The lease that protects what one commit makes until its record is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope(String);

impl Scope {
    /// The scope of one commit of an executor.
    pub fn new(container: &ContainerId, revision: u64) -> Self {
        Self(format!("pl-{}-r{revision}", container.as_str()))
    }

    /// The name of the lease.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The root file system to prepare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootPlan {
    /// Keys of the image element; `None` = empty root (`image://builtin/scratch`).
    pub image: Option<StoreKeys>,
    /// Writable layer or read-only view.
    pub access: Access,
}

/// One mount of a container, in the order they are made (parents before children).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    /// The volume.
    pub volume: ElementId,
    /// What to mount.
    pub source: crate::store::MountSource,
    /// Absolute target inside the container.
    pub target: String,
    /// Read-write or read-only.
    pub access: Access,
    /// Directory below the source's root to mount instead; resolved inside it by the runtime.
    pub sub_path: Option<String>,
    /// Fill the empty source from the root file system's content at the target first.
    pub copy_up: bool,
}

/// One container to create. The runtime adds only what belongs to it: the init, cgroup paths, engine labels.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Its name.
    pub id: ContainerId,
    /// The executor, for the labels by which the audit and recovery find the owner.
    pub executor: ElementId,
    /// Executor revision, for the labels.
    pub revision: u64,
    /// Root file system, already prepared.
    pub root: RootPlan,
    /// Volumes, parents before children.
    pub mounts: Vec<MountPlan>,
    /// The OCI spec without process and volume mounts, built field by field by `compose::oci`.
    pub spec: oci_spec::runtime::Spec,
    /// Several tasks start with the container: it must outlive a first one that ends before the others are created,
    /// so init stays until the primary process is deleted.
    pub several: bool,
}

/// Where one output stream of a process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputPlan {
    /// Nowhere.
    Discard,
    /// The node's bounded log files; the task goes on when they cannot be written, losses are counted.
    BestEffort,
    /// The same, but the process is not created when the log cannot be opened.
    Required,
}

/// One process to create.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    /// Its name.
    pub id: ProcessId,
    /// First process of its container (below the init) or a further one.
    pub primary: bool,
    /// The task, for log names and labels.
    pub task: ElementId,
    /// Run of the task.
    pub run: u32,
    /// Arguments, environment, working directory, capabilities, rlimits, terminal. `user` is set from `user_text`
    /// by the runtime, because only it can read the root's passwd and group files safely.
    pub process: oci_spec::runtime::Process,
    /// `name`, `uid`, `uid:gid`, `name:group`; empty = 0:0.
    pub user_text: String,
    /// Keep standard input open for attach.
    pub stdin: bool,
    /// Standard output.
    pub stdout: OutputPlan,
    /// Standard error.
    pub stderr: OutputPlan,
}

/// How a process ended, as the engine and the kernel saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// `Exited`, `Signaled`, `Oom` or `Lost`; deadline and cancel are the port layer's to know.
    pub reason: ExitReason,
    /// Code, when it returned one.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// When it ended.
    pub exited: Timestamp,
    /// CPU time of the container so far, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Peak memory of the container in bytes.
    pub memory_peak_bytes: Option<u64>,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalScope {
    /// The task's first process.
    Process,
    /// Every process of the container.
    All,
}

/// Whether a signal got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It was sent to a living process.
    Delivered,
    /// The process had ended before.
    AlreadyExited,
    /// There is no such process.
    NotRunning,
}

/// State of a process in the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped(ProcessExit),
    /// The engine does not know it.
    Unknown,
}

/// One container found in the engine, for recovery and audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundContainer {
    /// Its name.
    pub id: ContainerId,
    /// Owner according to its label.
    pub executor: Option<ElementId>,
    /// State of its primary process; `None` = no process.
    pub primary: Option<ProcessState>,
}

/// Something of ours in the engine or the kernel, found by looking there and not into the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub class: FindingClass,
    /// Its name there.
    pub name: String,
    /// The container, volume digest or other owner its name or label tells.
    pub owner: Option<String>,
}

/// Classes of things the audit looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingClass {
    /// containerd task.
    Process,
    /// containerd container.
    Container,
    /// Snapshot.
    Snapshot,
    /// Lease.
    Lease,
    /// Open content ingest.
    Ingest,
    /// Content blob.
    Content,
    /// Shim process.
    Shim,
    /// cgroup directory.
    Cgroup,
    /// Mount below our directories.
    Mount,
    /// Named network namespace.
    NetworkNamespace,
    /// FIFO file.
    Fifo,
    /// runc state directory.
    RuncState,
    /// Loop device.
    LoopDevice,
    /// Open descriptor of ours to something deleted.
    Descriptor,
    /// Volume data directory or file.
    VolumeData,
    /// Log directory.
    Log,
}

/// Versions and abilities found at start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// Name and version of the engine.
    pub engine: String,
    /// Name and version of the OCI runtime.
    pub oci_runtime: String,
    /// Kernel release.
    pub kernel: String,
    /// `v1`, `hybrid` or `v2`.
    pub cgroups: String,
    /// cgroup hierarchies are mounted with favordynmods (performance.md 3.1).
    pub favordynmods: bool,
    /// Snapshotter in use.
    pub snapshotter: String,
    /// Engine namespace.
    pub namespace: String,
    /// Volumes can be attached to a running container.
    pub live_attach: bool,
    /// What is missing or degraded, in plain words.
    pub warnings: Vec<String>,
}

/// Which log to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogQuery {
    /// The executor.
    pub executor: ElementId,
    /// The task.
    pub task: ElementId,
    /// Standard output, standard error, or both in the order stored.
    pub streams: LogStreams,
    /// Only lines stored at or after this time.
    pub since: Option<Timestamp>,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Go on until the task has ended and all is read.
    pub follow: bool,
}

/// Which streams of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStreams {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both.
    Both,
}

/// One piece of stored output, bytes exactly as written by the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// True for standard error.
    pub stderr: bool,
    /// When it was stored.
    pub time: Timestamp,
    /// Place in the log, from 0, over both streams.
    pub sequence: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Bytes lost just before this chunk (rotated away or not storable).
    pub lost_bytes: u64,
}

/// A stream of log chunks. Ends when all is read (or, following, when the task ended and all is read).
pub type LogReader = Pin<Box<dyn futures::Stream<Item = Result<LogChunk, RuntimeError>> + Send>>;

/// What is fed to the standard input of a process.
pub type InputStream = Pin<Box<dyn AsyncRead + Send>>;

/// The engine. See the module for terms and order.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Versions and abilities.
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError>;

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

    /// Reads stored output, any number of readers at once.
    async fn logs(&self, query: &LogQuery) -> Result<LogReader, RuntimeError>;

    /// Removes the stored output of an executor (all its tasks). Idempotent.
    async fn remove_logs(&self, executor: &ElementId) -> Result<(), RuntimeError>;

    /// Every container with our label.
    async fn list(&self) -> Result<Vec<FoundContainer>, RuntimeError>;

    /// Removes everything a name stands for in the engine and the kernel, whatever state it is in: for leftovers
    /// of crashed commits. Idempotent.
    async fn purge(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Everything of ours, from the kernel and the engine.
    async fn audit(&self) -> Result<Vec<Finding>, RuntimeError>;

    /// The private directory of the runtime, for messages.
    fn state_dir(&self) -> PathBuf;
}

/// What the engine or the kernel said, by what a caller can do about it. The engine's own text is in `text` and
/// for people only.
#[derive(Debug, Clone, Error)]
#[error("{verb} {object}: {kind}")]
pub struct RuntimeError {
    /// Class.
    pub kind: RuntimeErrorKind,
    /// What was tried.
    pub verb: &'static str,
    /// On what.
    pub object: String,
    /// The engine's or kernel's words.
    pub text: String,
}

impl RuntimeError {
    /// An error of this class.
    pub fn new(
        kind: RuntimeErrorKind,
        verb: &'static str,
        object: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            verb,
            object: object.into(),
            text: text.into(),
        }
    }
}

/// Classes of [`RuntimeError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuntimeErrorKind {
    /// The engine does not know the object.
    #[error("not found")]
    NotFound,
    /// The object is there already.
    #[error("already exists")]
    AlreadyExists,
    /// Not possible in the object's state.
    #[error("not possible in this state")]
    State,
    /// Someone else uses it.
    #[error("busy")]
    Busy,
    /// The engine cannot be reached.
    #[error("the engine is unavailable")]
    Unavailable,
    /// The engine did not answer in time; what it did is unknown until reconciled.
    #[error("the engine did not answer in time")]
    Timeout,
    /// A disk is full.
    #[error("no space left")]
    NoSpace,
    /// Kernel or engine cannot do it.
    #[error("not supported here")]
    Unsupported,
    /// The program of a task is not in its root file system.
    #[error("executable not found")]
    ExecutableNotFound,
    /// The program is there and cannot be executed.
    #[error("executable cannot be executed")]
    NotExecutable,
    /// The user or group is not known in the image.
    #[error("user or group not known in the image")]
    UnknownUser,
    /// A mount target is missing in a read-only root or is not what it must be.
    #[error("mount target {target}: {rule}")]
    MountTarget {
        /// The target.
        target: String,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The image has something unsafe where the container's own mounts go (`/dev`, `/proc`, `/sys`).
    #[error("unsafe image: {path} is not a directory")]
    UnsafeImage {
        /// The path.
        path: &'static str,
    },
    /// Anything else; a bug of ours or of the engine.
    #[error("engine failure")]
    Internal,
}
