//! What driver and worker say to each other: one line of JSON each way. An answer is written only when what it answers was
//! acknowledged by the port layer.

use serde::{Deserialize, Serialize};

/// What the driver wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    /// The image and the task templates.
    Setup,
    /// A volume whose metadata says `value`.
    CreateVolume {
        name: String,
        value: u64,
    },
    /// A volume that holds a file of so many bytes.
    CreateFilled {
        name: String,
        bytes: usize,
    },
    /// Creates a volume whose record is that large.
    CreateHeavy {
        name: String,
        bytes: usize,
    },
    /// Another value for a volume.
    UpdateVolume {
        name: String,
        value: u64,
    },
    DeleteVolume {
        name: String,
    },
    CreateExecutor {
        name: String,
    },
    DeleteExecutor {
        name: String,
    },
    /// Edits of one executor, committed at once.
    Commit {
        executor: String,
        edits: Vec<Edit>,
    },
    /// A staged stop of one task.
    Stop {
        executor: String,
        task: String,
    },
    /// Waits for the end of a run.
    Wait {
        executor: String,
        task: String,
        run: u32,
    },
    /// Everything there is.
    State(Look),
    /// The same, but of elements only the executors that run.
    Running(Look),
}

/// One edit of a composition. Names are those of [`Op`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Edit {
    JoinImage,
    JoinVolume(String),
    JoinTask(String),
    BindAll,
    BindTask(String),
    BindVolume(String),
    UnbindTask(String),
    UnbindAll,
    LeaveTask(String),
    LeaveVolume(String),
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Look {
    /// Events from this sequence on.
    pub(crate) from: u64,
    /// Logs to read, by executor and task.
    pub(crate) logs: Vec<(String, String)>,
    /// An executor whose exit records are all wanted.
    pub(crate) exits_of: Option<String>,
    /// Take the audit.
    pub(crate) audit: bool,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The node is open; after so many milliseconds.
    Opened {
        ms: u64,
    },
    /// Acknowledged.
    Done,
    /// Acknowledged: these runs were started.
    Committed {
        runs: Vec<(String, u32)>,
    },
    /// A commit of which some element failed.
    PartlyDone,
    /// Refused; nothing changed. Text is for people.
    Refused {
        text: String,
        /// The name of the error for programs.
        reason: String,
    },
    State(Box<State>),
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// Volumes and the value in their metadata.
    pub(crate) volumes: Vec<(String, Option<u64>)>,
    pub(crate) executors: Vec<ExecutorState>,
    /// Exit records told by events since `from`, in order.
    pub(crate) exits: Vec<Exit>,
    /// The sequence of the last event told.
    pub(crate) last: u64,
    /// Events that are missing.
    pub(crate) gaps: u64,
    /// Exit records of the executor asked for.
    pub(crate) recorded: Vec<Exit>,
    /// What nobody owns.
    pub(crate) leaks: Vec<String>,
    /// Logs asked for: executor, task, standard output, standard error, bytes dropped.
    pub(crate) logs: Vec<LogSeen>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogSeen {
    pub(crate) executor: String,
    pub(crate) task: String,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) lost: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExecutorState {
    pub(crate) name: String,
    /// Running or paused.
    pub(crate) live: bool,
    /// Everything joined, by its last path segment.
    pub(crate) joined: Vec<String>,
    /// Newest run of each task and whether it runs.
    pub(crate) runs: Vec<(String, u32, bool)>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) executor: String,
    pub(crate) task: String,
    pub(crate) run: u32,
    pub(crate) reason: String,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// Why it could not be started.
    pub(crate) message: Option<String>,
}
