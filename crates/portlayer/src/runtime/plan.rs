//! What the port layer asks the engine to make.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ContainerId, ProcessId};
use crate::element::{ElementId, StoreKeys};
use crate::log::LogSpec;
use crate::network::{Allow, NetworkLease, NetworkSpec};
use crate::store::{Access, MountSource};
use crate::task::Secret;

/// The root file system to prepare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootPlan {
    /// Keys of the image element; `None` = empty root (`image://builtin/scratch`).
    pub image: Option<StoreKeys>,
    /// Writable layer or read-only view.
    pub access: Access,
    /// The host ids that stand for the container's; `None` = the same ids.
    pub ids: Option<IdRange>,
    /// Bound of the writable layer; `None` = the disk's.
    pub disk: Option<DiskPlan>,
}

/// Bound of a writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// Bytes, with what the file system needs itself.
    pub bytes: u64,
    /// Files, directories and links; `None` = what the file system chooses.
    pub inodes: Option<u64>,
}

/// A range of host user and group ids that stands for the ids from 0 of one executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host id of the container's root.
    pub first: u32,
    /// How many ids the container has.
    pub count: u32,
}

impl IdRange {
    /// Ids of each executor: every id that is in use in images, the overflow ids 65534 included.
    pub const COUNT: u32 = 1 << 16;
    /// How many ranges there are.
    pub const SLOTS: u32 = 24_576;
    /// The first id of the first range. All are in what systemd's table of ids leaves to container managers
    /// (524,288 to 1,879,048,191), above everything that is usually handed out in /etc/subuid.
    const FIRST: u32 = 0x1000_0000;

    /// The range of a number below [`IdRange::SLOTS`].
    pub fn of_slot(slot: u32) -> Option<IdRange> {
        (slot < Self::SLOTS).then(|| IdRange {
            first: Self::FIRST + slot * Self::COUNT,
            count: Self::COUNT,
        })
    }

    /// The host id that stands for an id of the container; `None` when it has no such id.
    pub fn host(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.first + id)
    }
}

/// One mount of a container, in the order they are made (parents before children).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    /// The volume.
    pub volume: ElementId,
    /// What to mount.
    pub source: MountSource,
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
    /// Its network. What belongs to the file system (resolver, hosts) is made with the container; addresses and rules are
    /// made by [`Runtime::connect`](super::Runtime::connect).
    pub network: NetworkPlan,
    /// The OCI spec without process and volume mounts, built field by field by `compose::oci`.
    pub spec: oci_spec::runtime::Spec,
    /// Several tasks start with the container: it must outlive a first one that ends before the others are created,
    /// so init stays until the primary process is deleted.
    pub several: bool,
}

/// The network of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum NetworkPlan {
    /// A name space of its own with a loopback.
    #[default]
    None,
    /// The host's.
    Host,
    /// A name space of its own on a bridge.
    Bridge(Box<BridgePlan>),
}

/// A place on a bridge. Two containers never have the same address of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BridgePlan {
    /// The network.
    pub network: ElementId,
    /// How the network is configured.
    pub spec: NetworkSpec,
    /// Addresses and published ports.
    pub lease: NetworkLease,
    /// What may be reached; `None` = all that is not closed.
    pub egress: Option<Vec<Allow>>,
    /// Resolvers, which it may ask without a rule.
    pub dns: Vec<IpAddr>,
    /// Host name, for the hosts file.
    pub hostname: String,
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

/// A log that output of a process goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkPlan {
    /// The log element.
    pub log: ElementId,
    /// What it is.
    pub spec: LogSpec,
    /// Standard output goes there.
    pub stdout: bool,
    /// Standard error goes there.
    pub stderr: bool,
    /// The process is not created when it cannot be reached.
    pub required: bool,
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
    /// Logs its output goes to beside the node's files.
    pub sinks: Vec<SinkPlan>,
    /// Values that are replaced in its output before anything is stored; none = nothing is looked for.
    pub redact: Vec<Secret>,
    /// Keep standard input open for attach.
    pub stdin: bool,
    /// Standard output.
    pub stdout: OutputPlan,
    /// Standard error.
    pub stderr: OutputPlan,
}
