//! What the engine tells: how processes end and stand, what is there, what it is.

use serde::{Deserialize, Serialize};

use super::ContainerId;
use crate::element::ElementId;
use crate::task::ExitReason;
use crate::time::Timestamp;

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

/// What a container uses now, as its cgroup tells; `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// CPU time since its start, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory in bytes, page cache included.
    pub memory_bytes: Option<u64>,
    /// Highest memory use in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How often the kernel killed in it for memory.
    pub oom_kills: Option<u64>,
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

impl FoundContainer {
    /// One of which less than its record was made, so that nothing tells its owner.
    pub fn half_made(id: ContainerId) -> Self {
        Self {
            id,
            executor: None,
            primary: None,
        }
    }
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

impl Finding {
    /// The container it belongs to, by its owner or its name; `None` for what belongs to no container.
    pub fn container(&self) -> Option<ContainerId> {
        let owner = self.owner.as_deref().and_then(ContainerId::parse);
        owner.or_else(|| ContainerId::parse(&self.name))
    }
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
    /// Network namespace kept by a mount.
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
    /// Network interface of the host: the host's end of a container's, or a bridge.
    Interface,
    /// Table or chain of the firewall.
    Firewall,
    /// Private directory of a container.
    Directory,
}

/// How the files of images and volumes come to belong to an executor's own range of user ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdMapping {
    /// Not at all: executors have to be in the host's user name space, which must be asked for.
    #[default]
    None,
    /// Root file systems are copied with changed owners; volumes cannot be used.
    Copied,
    /// The kernel maps the ids of the mount: no copy, whatever the size.
    Mapped,
}

impl IdMapping {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            IdMapping::None => "none",
            IdMapping::Copied => "copied",
            IdMapping::Mapped => "mapped",
        }
    }
}

/// How the writable layer of an executor is bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBound {
    /// Not at all: such a limit is refused.
    #[default]
    None,
    /// A file system of that size in a sparse file.
    BlockFile,
    /// A quota group of a btrfs in one file.
    Pool,
}

impl DiskBound {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            DiskBound::None => "none",
            DiskBound::BlockFile => "block-file",
            DiskBound::Pool => "btrfs-pool",
        }
    }
}

/// What the host has to keep executors apart from it and from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIsolation {
    /// Capabilities that can be given at all: bit n is the capability n of `linux/capability.h`.
    pub capabilities: u64,
    /// How executors get user ids of their own.
    pub ids: IdMapping,
    /// How writable layers are bounded.
    pub disk: DiskBound,
    /// The loaded AppArmor profile that executors get; `None` = the kernel has no AppArmor, or none of the profiles we know.
    pub apparmor: Option<String>,
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
    /// What the host has to keep executors apart.
    #[serde(default)]
    pub isolation: HostIsolation,
    /// What is missing or degraded, in plain words.
    pub warnings: Vec<String>,
}
