//! Elements, runs, events and audit rows as rows of a table, and an element in detail.

use portlayer::compose::{Composition, Role, RunState};
use portlayer::element::{Body, Descriptor, ElementId, Metadata};
use portlayer::event::{Change, Event};
use portlayer::ledger::{AuditRow, Outcome};
use portlayer::task::ExitRecord;
use portlayer::time::Timestamp;
use serde::Serialize;

use super::exit_code;
use super::output::{Column, Row};

/// An element in a list.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct ElementRow {
    pub(crate) element: Descriptor,
    #[serde(skip)]
    pub(crate) now: Timestamp,
}

impl ElementRow {
    /// Rows of these elements, their age as of now.
    pub(crate) fn of(elements: Vec<Descriptor>) -> Vec<Self> {
        let now = Timestamp::now();
        elements
            .into_iter()
            .map(|element| Self { element, now })
            .collect()
    }
}

impl Row for ElementRow {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("STATE"),
        Column::new("SIZE").right(),
        Column::new("AGE").right(),
        Column::new("PARENT").wide(),
        Column::new("CHECKSUM").wide(),
        Column::new("REVISION").wide().right(),
        Column::new("CREATED").wide(),
        Column::new("RO").wide(),
        Column::new("METADATA").cut(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let element = &self.element;
        vec![
            element.id.as_str().into(),
            element.state.as_str().into(),
            bytes(element.size).into(),
            age(element.created, self.now).into(),
            element.parent.as_ref().map_or("", ElementId::as_str).into(),
            element
                .checksum
                .map(|sum| sum.to_string())
                .unwrap_or_default()
                .into(),
            element.revision.to_string().into(),
            element.created.to_string().into(),
            metadata(&element.ro),
            metadata(&element.rw),
        ]
    }

    fn name(&self) -> String {
        self.element.id.to_string()
    }
}

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

/// An event; `transparent`, so that JSON is the event itself.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct EventRow<'a>(pub(crate) &'a Event);

impl EventRow<'_> {
    /// The event on one line for people.
    pub(crate) fn line(&self) -> String {
        let event = self.0;
        let details = match &event.change {
            Change::Created | Change::Deleted => String::new(),
            Change::Modified { keys } => keys.join(","),
            Change::Inherited { child } => format!("child={child}"),
            Change::Joined { executor }
            | Change::Left { executor }
            | Change::Bound { executor } => {
                format!("executor={executor}")
            }
            Change::Unbound {
                executor,
                exit: None,
            } => format!("executor={executor}"),
            Change::Unbound {
                executor,
                exit: Some(exit),
            } => format!("executor={executor} {}", exit_code::describe(exit)),
            Change::LocationHealth {
                location,
                available,
                reason,
            } => format!(
                "location={location} {}{}",
                if *available {
                    "available"
                } else {
                    "unavailable: "
                },
                if *available { "" } else { reason }
            ),
            Change::Gap { from, to } => format!("events {from} to {to} are not here"),
        };
        let reconciled = if event.reconciled {
            " (reconciled)"
        } else {
            ""
        };
        format!(
            "{} {:>6} {:<9} {} {details}{reconciled}",
            event.time,
            event.sequence,
            event.change.as_str(),
            event.id
        )
        .trim_end()
        .to_owned()
    }
}

/// A row of the audit log.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct AuditLine(pub(crate) AuditRow);

impl Row for AuditLine {
    const COLUMNS: &'static [Column] = &[
        Column::new("ROW").right(),
        Column::new("TIME"),
        Column::new("ACTOR"),
        Column::new("VERB"),
        Column::new("OUTCOME"),
        Column::new("REVISION"),
        Column::new("KEYS").cut(),
        Column::new("OPERATION").wide(),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let row = &self.0;
        vec![
            row.sequence.to_string().into(),
            row.time.to_string().into(),
            row.actor.clone().into(),
            row.verb.as_str().into(),
            match &row.outcome {
                Outcome::Ok => "ok".into(),
                Outcome::Failed(code) => code.clone().into(),
            },
            format!("{} -> {}", row.revision_before, row.revision_after).into(),
            row.keys.join(",").into(),
            row.operation.clone().into(),
        ]
    }

    fn name(&self) -> String {
        self.0.sequence.to_string()
    }
}

/// An element in detail, as lines of name and value.
pub(crate) fn details(element: &Descriptor) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
    let mut line = |name: &str, value: Vec<u8>| lines.push((name.to_owned(), value));
    line("id", element.id.as_str().into());
    line("state", element.state.as_str().into());
    if let Some(parent) = &element.parent {
        line("parent", parent.as_str().into());
    }
    if let Some(owner) = &element.owner {
        line("owner", owner.as_str().into());
    }
    if let Some(checksum) = element.checksum {
        line("checksum", checksum.to_string().into());
        line("size", bytes(element.size).into());
    }
    line("revision", element.revision.to_string().into());
    line("created", element.created.to_string().into());
    line("modified", element.modified.to_string().into());
    for (name, map) in [("ro", &element.ro), ("rw", &element.rw)] {
        let mut name = name;
        for (key, value) in map {
            let mut text = format!("{key}=").into_bytes();
            text.extend_from_slice(value);
            line(name, text);
            name = "";
        }
    }
    body(&element.body, &mut line);
    lines
}

fn body(body: &Body, line: &mut dyn FnMut(&str, Vec<u8>)) {
    // Only what was asked for or is known; empty fields say nothing.
    match body {
        Body::Image(image) => {
            if image.metadata_only {
                line("data", "shared with the parent".into());
            }
            fields("defaults", &image.defaults, line);
        }
        Body::Volume(volume) => fields("spec", &volume.spec, line),
        Body::Task(task) => fields("task", &task.spec, line),
        Body::Executor(executor) => {
            fields("executor", &executor.spec, line);
            let composition = &executor.composition;
            let mut name = "joined";
            for (id, joined) in &composition.joined {
                let bound = if joined.bound { "bound" } else { "joined" };
                line(name, format!("{id} {bound}{}", role(&joined.role)).into());
                name = "";
            }
            let mut name = "runs";
            for (task, run) in &composition.runs {
                line(
                    name,
                    format!("{task} run {} since {}", run.run, run.started).into(),
                );
                name = "";
            }
        }
        Body::Network(network) => fields("settings", &network.settings, line),
        Body::Log(log) => fields("settings", &log.settings, line),
    }
}

fn role(role: &Role) -> String {
    use portlayer::compose::JoinHow;
    use portlayer::store::Access;
    let mode = |access: &Access| match access {
        Access::ReadWrite => "",
        Access::ReadOnly => " read-only",
    };
    match role {
        Role::Part(JoinHow::Image { target, access }) => format!(" at {target}{}", mode(access)),
        Role::Part(JoinHow::Volume { target, access, .. }) => {
            format!(" at {target}{}", mode(access))
        }
        Role::Part(_) => String::new(),
        Role::Task { spec, .. } => format!(": {}", spec.argv.join(" ")),
    }
}

/// The fields of a value that say something, as `name.field: json`.
fn fields<T: Serialize>(name: &str, value: &T, line: &mut dyn FnMut(&str, Vec<u8>)) {
    use serde_json::Value;
    fn silent(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_u64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.values().all(silent),
            Value::Bool(true) => false,
        }
    }
    if let Ok(Value::Object(map)) = serde_json::to_value(value) {
        for (field, value) in map.into_iter().filter(|(_, value)| !silent(value)) {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            line(&format!("{name}.{field}"), text.into());
        }
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

/// Metadata as `key=value` pairs.
fn metadata(map: &Metadata) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in map {
        if !text.is_empty() {
            text.push(b' ');
        }
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value);
    }
    text
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        count => indicatif::HumanBytes(count).to_string(),
    }
}

/// How long ago, in the largest unit that has at least one.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_nanos().saturating_sub(since.as_nanos()) / 1_000_000_000;
    match seconds {
        ..0 => "future".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Out, OutputArgs};
    use portlayer::element::{State, TaskBody};
    use portlayer::task::TaskSpec;

    fn task() -> Descriptor {
        Descriptor {
            id: "task://tasks/t".parse().unwrap(),
            parent: None,
            owner: None,
            checksum: None,
            size: 0,
            ro: [("team".to_owned(), b"a".to_vec())].into(),
            rw: [("evil".to_owned(), b"\xff\x1b[2J".to_vec())].into(),
            revision: 3,
            created: Timestamp::from_nanos(0),
            modified: Timestamp::from_nanos(0),
            state: State::Ready,
            hidden: false,
            body: Body::Task(Box::new(TaskBody {
                spec: TaskSpec {
                    argv: vec!["echo".to_owned(), "a b".to_owned()],
                    ..TaskSpec::default()
                },
            })),
        }
    }

    #[test]
    fn an_element_is_a_row_with_inert_metadata() {
        let row = ElementRow {
            element: task(),
            now: Timestamp::from_nanos(7_200_000_000_000),
        };
        let text = Out::new(OutputArgs::default(), false)
            .draw_list(&[row])
            .unwrap();
        assert_eq!(
            text,
            "ID              STATE  SIZE  AGE  METADATA\n\
             task://tasks/t  ready     -   2h  evil=\\xff\\x1b[2J\n"
        );
    }

    #[test]
    fn details_show_what_was_said_and_nothing_else() {
        let names: Vec<_> = details(&task()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "id",
                "state",
                "revision",
                "created",
                "modified",
                "ro",
                "rw",
                "task.argv",
                "task.restart",
                "task.stop"
            ]
        );
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            sequence: 7,
            time: Timestamp::from_nanos(0),
            id: "volume://volumes/v".parse().unwrap(),
            revision: 1,
            reconciled: true,
            change: Change::Joined {
                executor: "executor://executors/x".parse().unwrap(),
            },
        };
        assert_eq!(
            EventRow(&event).line(),
            "1970-01-01T00:00:00.000000000Z      7 joined    volume://volumes/v \
             executor=executor://executors/x (reconciled)"
        );
    }

    #[test]
    fn ages_are_short() {
        let at = |seconds: i64| {
            age(
                Timestamp::from_nanos(0),
                Timestamp::from_nanos(seconds * 1_000_000_000),
            )
        };
        assert_eq!(
            [at(0), at(61), at(7199), at(86_400 * 3)],
            ["0s", "1m", "1h", "3d"]
        );
        assert_eq!(at(-10), "future");
    }
}
