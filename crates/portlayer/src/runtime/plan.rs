//! What the port layer asks the engine to make.

use serde::{Deserialize, Serialize};

use super::{ContainerId, ProcessId};
use crate::element::{ElementId, StoreKeys};
use crate::store::{Access, MountSource};

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
