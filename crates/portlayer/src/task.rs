//! What a task says and what an executor allows: plain values, the same for callers, records and handles.
//!
//! Units are in the names. A value left out means "the default of the image, then of the node".

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::element::ElementId;
use crate::time::Timestamp;

/// What to run. Paths are absolute and, for a task owned by a storage element, relative to where that element is
/// mounted in the composition (seed 003).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSpec {
    /// Program and arguments; empty = the image's entrypoint and command.
    pub argv: Vec<String>,
    /// Environment, in order; a later entry of the same name wins. Added to the image's.
    pub env: Vec<(String, String)>,
    /// Secrets handed over as environment; shown nowhere.
    pub secrets: Vec<Secret>,
    /// Working directory; `None` = the image's, else `/`.
    pub cwd: Option<String>,
    /// `name`, `uid`, `uid:gid` or `name:group`, looked up in the image; `None` = the image's, else 0:0.
    pub user: Option<String>,
    /// Further groups, by id.
    pub extra_gids: Vec<u32>,
    /// Give the task a terminal; its output is then one stream.
    pub terminal: bool,
    /// Who may talk to the running task.
    pub interaction: Interaction,
    /// Where standard output goes.
    pub stdout: LogChoice,
    /// Where standard error goes (ignored with a terminal).
    pub stderr: LogChoice,
    /// Limits of this process (the executor's limits hold for all of them together).
    pub rlimits: Vec<Rlimit>,
    /// Wall time the task may run, in milliseconds; measured on a monotonic clock.
    pub deadline_ms: Option<u64>,
    /// How the task is stopped.
    pub stop: StopSpec,
    /// What happens when it ends.
    pub restart: RestartPolicy,
}

/// A secret environment variable. The value is in no log, event, error, table or JSON: human-readable formats get
/// `***`, only the ledger's own encoding carries it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret {
    /// Name of the variable.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let value = if serializer.is_human_readable() {
            "***"
        } else {
            self.value.as_str()
        };
        let mut fields = serializer.serialize_struct("Secret", 2)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("value", value)?;
        fields.end()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}=***)", self.name)
    }
}

/// Who may talk to a running task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interaction {
    /// Keep standard input open for `attach`; otherwise it is empty.
    pub stdin: bool,
}

/// Where one stream of a task goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogChoice {
    /// The log element, which must be joined to the executor; `None` = every bound log of the executor but those that are
    /// handed over, else the node's files.
    pub sink: Option<ElementId>,
    /// Start fails when the sink cannot take output; otherwise losses are counted.
    pub required: bool,
    /// Throw the stream away.
    pub discard: bool,
}

/// One POSIX resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// Name in lower case without prefix: `nofile`, `nproc`, `core`, `fsize`, ...
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit; at least the soft one.
    pub hard: u64,
}

/// Stop in stages: the signal, then after the grace SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopSpec {
    /// First signal, by number; `None` = the image's stop signal, else SIGTERM (15).
    pub signal: Option<i32>,
    /// Milliseconds until SIGKILL.
    pub grace_ms: u64,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self {
            signal: None,
            grace_ms: 10_000,
        }
    }
}

/// What happens when a task ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    Never,
    /// It is started again when the code is not 0, at most `max` times, waiting `backoff_ms` doubled each time.
    OnFailure {
        /// Most restarts; 0 = no bound.
        max: u32,
        /// First wait in milliseconds; doubles up to a minute.
        backoff_ms: u64,
    },
    /// It is started again whatever the code.
    Always {
        /// First wait in milliseconds; doubles up to a minute.
        backoff_ms: u64,
    },
}

/// What an image's configuration says about running it; filled in where the task is silent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// User text.
    pub user: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Stop signal by number.
    pub stop_signal: Option<i32>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Paths the image wants as volumes.
    pub volumes: Vec<String>,
}

/// One container: its isolation and the limits all its tasks share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorSpec {
    /// Host name inside; `None` = derived from the id.
    pub hostname: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// Isolation.
    pub isolation: Isolation,
}

/// Limits of an executor; `None` = no limit of ours except where noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes, page cache included.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together in bytes; `None` with a memory limit = no swap.
    pub memory_swap_bytes: Option<u64>,
    /// Relative CPU weight in cgroup v1 shares (2 to 262144); converted on v2.
    pub cpu_shares: Option<u64>,
    /// CPU time per period in microseconds, with a period of 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// Processes and threads; `None` = 1024.
    pub pids: Option<u32>,
    /// Size of the writable layer in bytes, its file system's own tables included. A write beyond it fails with `ENOSPC`.
    pub disk_bytes: Option<u64>,
    /// Files, directories and links the writable layer can hold; needs `disk_bytes`.
    pub disk_inodes: Option<u64>,
}

/// How an executor is kept apart from the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Isolation {
    /// All capabilities the host has, no masked paths, no seccomp. Explicit, never a default.
    pub privileged: bool,
    /// Capabilities added to the default set, by name (`CAP_NET_RAW`).
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from the default set.
    pub drop_capabilities: Vec<String>,
    /// Let set-id programs gain privileges (clears no_new_privileges).
    pub allow_new_privileges: bool,
    /// Use the host's user ids: root inside is root outside. Without it every executor that is not privileged gets ids of its
    /// own, which are nobody's on the host.
    pub host_users: bool,
    /// Programs of the processor's other instruction set (32-bit x86 on `x86_64`) may run, filtered by the same list; without it
    /// their first call ends them with SIGSYS. The filter is built for each set at the start of every process, which takes
    /// milliseconds.
    pub compat_programs: bool,
}

impl Isolation {
    /// Whether the executor has user ids of its own.
    pub fn own_users(&self) -> bool {
        !self.host_users && !self.privileged
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// It returned a code.
    Exited,
    /// A signal ended it that we did not send. Known of the first task of an executor; of a further one the engine tells
    /// a signal n and the code 128+n alike, and it is `Exited` with that code.
    Signaled,
    /// The kernel killed it for memory.
    Oom,
    /// Its deadline passed.
    Deadline,
    /// A caller stopped it.
    Cancelled,
    /// It never ran: the program could not be started.
    StartFailed,
    /// It ended while nobody could see how. Never reported as code 0.
    Lost,
}

impl ExitReason {
    /// The name used in output and filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExitReason::Exited => "exited",
            ExitReason::Signaled => "signaled",
            ExitReason::Oom => "oom",
            ExitReason::Deadline => "deadline",
            ExitReason::Cancelled => "cancelled",
            ExitReason::StartFailed => "start-failed",
            ExitReason::Lost => "lost",
        }
    }
}

/// How one run of a task ended; written once, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The executor it ran in.
    pub executor: ElementId,
    /// The task.
    pub task: ElementId,
    /// Which run of this task in this executor, from 1.
    pub run: u32,
    /// Why it ended.
    pub reason: ExitReason,
    /// The code it returned; `None` when a signal ended it or nobody knows.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// CPU time of the executor since its start, in nanoseconds, when last read.
    pub cpu_ns: Option<u64>,
    /// Highest memory use of the executor in bytes, when last read.
    pub memory_peak_bytes: Option<u64>,
    /// When it was started (wall clock).
    pub started: Timestamp,
    /// When it ended (wall clock).
    pub exited: Timestamp,
    /// Learned by reconciling, not by watching it end.
    pub reconciled: bool,
    /// What the engine said when it could not be started; may be shown to people, never parsed.
    pub message: Option<String>,
}
