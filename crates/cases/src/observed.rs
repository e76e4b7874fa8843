//! What was seen of one case.

use portlayer_taskdef::diego::Task;
use portlayer_taskdef::log::LogLine;

use crate::server::Request;

/// Everything seen of a case.
#[derive(Default)]
pub(crate) struct Observed {
    /// The definition as sent.
    pub(crate) sent: serde_json::Value,
    /// Text of the refusal; `None` = accepted.
    pub(crate) refused: Option<String>,
    /// The same definition in strict mode.
    pub(crate) refused_in_strict_mode: Option<String>,
    /// `created(Pending)`, `changed(Pending to Running)`, `removed`.
    pub(crate) changes: Vec<String>,
    /// As it was when it completed first.
    pub(crate) completed: Option<Task>,
    /// Seconds from desire to completed.
    pub(crate) seconds: u64,
    /// Its lines.
    pub(crate) log: Vec<LogLine>,
    /// Requests to the file server.
    pub(crate) gets: Vec<Request>,
    /// Requests to the hook server.
    pub(crate) posts: Vec<Request>,
    /// What a look-up says at the end.
    pub(crate) gone: bool,
    /// Answer to a second cancel.
    pub(crate) cancelled_again: Option<String>,
    /// Diego's type of the answer to a cancel of a guid that nobody has.
    pub(crate) cancel_of_unknown: Option<i32>,
    /// Executors and processes that were left.
    pub(crate) left: Vec<String>,
    /// Files in volumes of drivers, as `volume/path`.
    pub(crate) volume_files: Vec<String>,
}
