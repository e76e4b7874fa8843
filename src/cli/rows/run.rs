//! Runs of tasks: as rows, and how one ended.

use portlayer::compose::{Composition, Role, RunState};
use portlayer::element::{Body, Descriptor, ElementId};
use portlayer::task::ExitRecord;
use portlayer::time::Timestamp;
use serde::Serialize;

use super::{age, bytes};
use crate::cli::exit_code;
use crate::cli::output::{Column, Row};

/// One run of a task in `ps`.
#[derive(Debug, Serialize)]
pub(crate) struct RunRow {
    /// The executor.
    pub(crate) executor: ElementId,
    /// The task.
    pub(crate) task: ElementId,
    /// State of the run, or of the executor while it is paused.
    pub(crate) state: &'static str,
    /// Number of the run.
    pub(crate) run: u32,
    /// Restarts so far.
    pub(crate) restarts: u32,
    /// When it was started.
    pub(crate) started: Timestamp,
    /// What it runs.
    pub(crate) argv: Vec<String>,
}

impl RunRow {
    /// The runs of an executor; those that ended only when asked for.
    pub(crate) fn of(executor: &Descriptor, all: bool) -> Vec<Self> {
        let Body::Executor(body) = &executor.body else {
            return Vec::new();
        };
        let paused = executor.state == portlayer::element::State::Paused;
        body.composition
            .runs
            .iter()
            .filter(|(_, run)| all || run.state != RunState::Ended)
            .map(|(task, run)| Self {
                executor: executor.id.clone(),
                task: task.clone(),
                state: match run.state {
                    RunState::Starting => "starting",
                    RunState::Running if paused => "paused",
                    RunState::Running => "running",
                    RunState::Ended => "ended",
                },
                run: run.run,
                restarts: run.restarts,
                started: run.started,
                argv: argv(&body.composition, task),
            })
            .collect()
    }
}

fn argv(composition: &Composition, task: &ElementId) -> Vec<String> {
    match composition.joined.get(task).map(|joined| &joined.role) {
        Some(Role::Task { spec, .. }) => spec.argv.clone(),
        _ => Vec::new(),
    }
}

impl Row for RunRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("EXECUTOR"),
        Column::new("TASK"),
        Column::new("STATE"),
        Column::new("AGE").right(),
        Column::new("RUN").wide().right(),
        Column::new("RESTARTS").wide().right(),
        Column::new("STARTED").wide(),
        Column::new("COMMAND").cut(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        vec![
            self.executor.as_str().into(),
            self.task.as_str().into(),
            self.state.into(),
            age(self.started, Timestamp::now()).into(),
            self.run.to_string().into(),
            self.restarts.to_string().into(),
            self.started.to_string().into(),
            self.argv.join(" ").into(),
        ]
    }

    fn name(&self) -> String {
        self.executor.to_string()
    }
}

/// How a run ended, as lines of name and value.
pub(crate) fn exit_details(exit: &ExitRecord) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<(String, Vec<u8>)> = vec![
        ("executor".to_owned(), exit.executor.as_str().into()),
        ("task".to_owned(), exit.task.as_str().into()),
        ("run".to_owned(), exit.run.to_string().into()),
        ("exit".to_owned(), exit_code::describe(exit).into()),
        ("started".to_owned(), exit.started.to_string().into()),
        ("exited".to_owned(), exit.exited.to_string().into()),
    ];
    if let Some(peak) = exit.memory_peak_bytes {
        lines.push(("memory peak".to_owned(), bytes(peak).into()));
    }
    if let Some(message) = &exit.message {
        lines.push(("message".to_owned(), message.clone().into()));
    }
    lines
}
