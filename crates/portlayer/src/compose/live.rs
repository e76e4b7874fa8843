//! What a driver knows of its running container.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::driver::Driver;
use super::prepare::Prepared;
use super::steps::Start;
use super::validate::Resolved;
use crate::element::ElementId;
use crate::runtime::{ContainerId, ProcessId};
use crate::time::Timestamp;

/// The running container.
pub(super) struct Live {
    pub(super) container: ContainerId,
    pub(super) resolved: Resolved,
    /// Processes by task, ended ones left out.
    pub(super) processes: BTreeMap<ElementId, Process>,
    /// The first process; deleting it ends the container.
    pub(super) primary: ProcessId,
}

/// A running process.
pub(super) struct Process {
    pub(super) id: ProcessId,
    pub(super) run: u32,
    pub(super) primary: bool,
    pub(super) started: Timestamp,
    pub(super) restarts: u32,
    pub(super) deadline: Option<Instant>,
}

impl Live {
    pub(super) fn new(container: &ContainerId, resolved: Resolved, starts: &[Start]) -> Self {
        let processes = starts
            .iter()
            .map(|start| (start.task.clone(), Process::new(container, start)));
        let primary = starts.iter().find(|start| start.primary).or(starts.first());
        Self {
            container: container.clone(),
            resolved,
            processes: processes.collect(),
            primary: primary.map_or_else(
                || ProcessId {
                    container: container.clone(),
                    name: String::new(),
                },
                |start| ProcessId::new(container.clone(), &start.task, start.run),
            ),
        }
    }
}

impl Process {
    pub(super) fn new(container: &ContainerId, start: &Start) -> Self {
        Self {
            id: ProcessId::new(container.clone(), &start.task, start.run),
            run: start.run,
            primary: start.primary,
            started: Timestamp::now(),
            restarts: 0,
            deadline: None,
        }
    }
}

impl Driver {
    pub(super) fn watch_all(&mut self, starts: &[Start]) {
        let Some(live) = &self.live else { return };
        let processes = starts
            .iter()
            .filter_map(|start| live.processes.get(&start.task).map(|p| (start, p)));
        let processes: Vec<_> = processes
            .map(|(start, p)| (start.clone(), p.id.clone()))
            .collect();
        for (start, id) in processes {
            self.watch(&start.task, start.run, &id, start.primary, false);
        }
    }

    pub(super) async fn unwatch(&mut self) {
        self.waits.shutdown().await;
    }

    /// Deadlines run from the moment the start is durable.
    pub(super) fn arm(&mut self, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        for start in starts {
            let limit = live
                .resolved
                .tasks
                .get(&start.task)
                .and_then(|task| task.deadline_ms);
            if let (Some(process), Some(ms)) = (live.processes.get_mut(&start.task), limit) {
                process.deadline = Some(Instant::now() + Duration::from_millis(ms));
            }
        }
    }

    pub(super) fn add_processes(&mut self, prepared: &Prepared, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        live.resolved = prepared.resolved.clone();
        let container = live.container.clone();
        live.processes.extend(
            starts
                .iter()
                .map(|start| (start.task.clone(), Process::new(&container, start))),
        );
    }

    pub(super) fn remove_processes(&mut self, starts: &[Start]) {
        let Some(live) = &mut self.live else { return };
        live.processes
            .retain(|task, _| starts.iter().all(|start| start.task != *task));
    }
}
