//! The difference between a committed and a wanted composition: what changes, and the steps that make it so. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::validate::{Resolved, VolumeUse};
use super::{CommitError, Composition, JoinHow, Joined, Role, RunState};
use crate::element::{ElementId, Kind, State, builtin};

/// What a commit would do, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The executor.
    pub executor: ElementId,
    /// The revision the plan was computed over.
    pub revision: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What happens to each element the handle names.
    pub elements: BTreeMap<ElementId, Vec<Change>>,
}

/// What changes about an element. None = nothing (no-op).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It takes part.
    Joins,
    /// It is activated; a task starts.
    Binds,
    /// Its settings change (the limits of an executor, the bind of a task).
    Settings,
    /// It is deactivated; a task is stopped.
    Unbinds,
    /// It no longer takes part.
    Leaves,
}

/// One step of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The intent and the references of what is joined become durable.
    Claim(Vec<ElementId>),
    /// The lease of the commit is opened.
    Begin,
    /// A volume is made visible on the host.
    Attach(ElementId),
    /// The root file system is made.
    PrepareRoot(ElementId),
    /// Mount targets are checked in the root.
    CheckMounts,
    /// The container is created.
    CreateContainer(String),
    /// The container is connected to a network, its rules first.
    Connect(ElementId),
    /// The container is taken from a network.
    Disconnect(ElementId),
    /// A task's process is created, as the first of its container or a further one.
    CreateProcess(ElementId),
    /// A task's process is started.
    StartProcess(ElementId),
    /// A volume is mounted into the running container.
    AttachLive(ElementId, String),
    /// The new composition becomes durable.
    Record,
    /// The lease is deleted.
    End,
    /// A task is stopped in stages.
    Stop(ElementId),
    /// A volume is unmounted from the running container.
    DetachLive(ElementId, String),
    /// The container is taken down, because its last task ended.
    TearDown,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Claim(ids) => {
                f.write_str("claim")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Step::Begin => f.write_str("open lease"),
            Step::Attach(id) => write!(f, "attach {id}"),
            Step::PrepareRoot(id) => write!(f, "prepare root from {id}"),
            Step::CheckMounts => f.write_str("check mount targets"),
            Step::Connect(id) => write!(f, "connect to {id}"),
            Step::Disconnect(id) => write!(f, "disconnect from {id}"),
            Step::CreateContainer(name) => write!(f, "create container {name}"),
            Step::CreateProcess(id) => write!(f, "create process of {id}"),
            Step::StartProcess(id) => write!(f, "start process of {id}"),
            Step::AttachLive(id, target) => {
                write!(f, "mount {id} at {target} in the running container")
            }
            Step::Record => f.write_str("record the composition"),
            Step::End => f.write_str("delete lease"),
            Step::Stop(id) => write!(f, "stop {id}"),
            Step::DetachLive(id, target) => {
                write!(f, "unmount {id} from {target} in the running container")
            }
            Step::TearDown => f.write_str("take the container down"),
        }
    }
}

/// What a commit has to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    /// What changes, by element; the executor itself only for its limits.
    pub(crate) changes: BTreeMap<ElementId, Vec<Change>>,
    /// How the node changes.
    pub(crate) action: Action,
}

/// How the node changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Not at all; only the record does.
    Record,
    /// A container is made and these tasks are started in it, the first one as its primary process.
    Start(Vec<ElementId>),
    /// The running container changes.
    Change(Live),
}

/// Changes to a running container.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Live {
    /// Volumes to mount.
    pub(crate) attaches: Vec<ElementId>,
    /// Tasks to start.
    pub(crate) starts: Vec<ElementId>,
    /// Tasks to stop.
    pub(crate) stops: Vec<ElementId>,
    /// Volumes to unmount, with their targets, children first.
    pub(crate) detaches: Vec<(ElementId, String)>,
    /// The bridge to connect to, or whose rules and ports change.
    pub(crate) connects: Option<ElementId>,
    /// The bridge to be taken from.
    pub(crate) disconnects: Option<ElementId>,
    /// After the stops nothing runs any more.
    pub(crate) tears_down: bool,
}

impl Difference {
    /// Nothing to do at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.action == Action::Record
    }

    /// Elements that take part for the first time.
    pub(crate) fn claims(&self) -> Vec<ElementId> {
        self.with(Change::Joins)
    }

    /// Elements with this change.
    pub(crate) fn with(&self, change: Change) -> Vec<ElementId> {
        let found = self
            .changes
            .iter()
            .filter(|(_, changes)| changes.contains(&change));
        found.map(|(id, _)| id.clone()).collect()
    }

    /// The steps, for people.
    pub(crate) fn steps(&self, resolved: &Resolved, container: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.is_empty() {
            return steps;
        }
        let process = |steps: &mut Vec<Step>, task: &ElementId| {
            steps.push(Step::CreateProcess(task.clone()));
            steps.push(Step::StartProcess(task.clone()));
        };
        match &self.action {
            Action::Record => {
                let claims = self.claims();
                if !claims.is_empty() {
                    steps.push(Step::Claim(claims));
                }
                steps.push(Step::Record);
            }
            Action::Start(tasks) => {
                steps.push(Step::Claim(self.claims()));
                steps.push(Step::Begin);
                let volumes = resolved
                    .volumes
                    .iter()
                    .filter(|volume| volume.tmpfs_bytes.is_none());
                steps.extend(volumes.map(|volume| Step::Attach(volume.record.id.clone())));
                steps.extend(
                    resolved
                        .root
                        .iter()
                        .map(|root| Step::PrepareRoot(root.id.clone())),
                );
                steps.push(Step::CheckMounts);
                steps.push(Step::CreateContainer(container.to_owned()));
                for (index, task) in tasks.iter().enumerate() {
                    steps.push(Step::CreateProcess(task.clone()));
                    if let (0, Some(bridge)) = (index, &resolved.bridge) {
                        steps.push(Step::Connect(bridge.id.clone()));
                    }
                    steps.push(Step::StartProcess(task.clone()));
                }
                steps.push(Step::Record);
                steps.push(Step::End);
            }
            Action::Change(live) => {
                steps.push(Step::Claim(self.claims()));
                steps.extend(live.connects.iter().cloned().map(Step::Connect));
                for id in &live.attaches {
                    let volume = resolved
                        .volumes
                        .iter()
                        .find(|volume| volume.record.id == *id);
                    let target = volume
                        .map(|volume| volume.target.clone())
                        .unwrap_or_default();
                    steps.push(Step::Attach(id.clone()));
                    steps.push(Step::AttachLive(id.clone(), target));
                }
                live.starts
                    .iter()
                    .for_each(|task| process(&mut steps, task));
                steps.push(Step::Record);
                steps.extend(live.stops.iter().cloned().map(Step::Stop));
                for (id, target) in &live.detaches {
                    steps.push(Step::DetachLive(id.clone(), target.clone()));
                }
                steps.extend(live.disconnects.iter().cloned().map(Step::Disconnect));
                if live.tears_down {
                    steps.push(Step::TearDown);
                }
            }
        }
        steps
    }
}

/// Computes the difference. Errors: `NeedsRestart` for what a running container cannot take.
pub(crate) fn diff(
    executor: &ElementId,
    state: State,
    committed: &Composition,
    draft: &Draft,
    resolved: &Resolved,
    live_attach: bool,
) -> Result<Difference, CommitError> {
    let changes = changes(executor, committed, &draft.wanted);
    let running: BTreeSet<&ElementId> = running(committed).collect();
    if running.is_empty() {
        let action = match draft.starts.is_empty() {
            true => Action::Record,
            false => Action::Start(draft.starts.clone()),
        };
        return Ok(Difference { changes, action });
    }
    let unbound = |task: &ElementId| {
        draft
            .wanted
            .joined
            .get(task)
            .is_none_or(|joined| !joined.bound)
    };
    let stops: Vec<_> = running
        .iter()
        .filter(|task| unbound(task))
        .map(|task| (*task).clone())
        .collect();
    let mut live = Live {
        tears_down: stops.len() == running.len() && draft.starts.is_empty(),
        starts: draft.starts.clone(),
        stops,
        ..Live::default()
    };
    if !live.tears_down {
        let refuse = |element: &ElementId, why| CommitError::NeedsRestart {
            executor: executor.clone(),
            element: element.clone(),
            state,
            why,
        };
        for (id, changes) in &changes {
            let active = changes
                .iter()
                .any(|change| !matches!(change, Change::Joins | Change::Leaves));
            match id.kind() {
                Kind::Executor => {
                    return Err(refuse(id, "limits are set when the container is made"));
                }
                Kind::Image if active => {
                    return Err(refuse(id, "the root of a running container stays"));
                }
                Kind::Network if active => {
                    change_network(id, changes, committed, resolved, &mut live)
                        .map_err(|why| refuse(id, why))?
                }
                Kind::Volume => {
                    change_volume(id, changes, committed, resolved, live_attach, &mut live)
                        .map_err(|why| refuse(id, why))?
                }
                _ => {}
            }
        }
        live.detaches
            .sort_by_key(|(_, target)| std::cmp::Reverse(target.len()));
    }
    let nothing = live == Live::default();
    let action = if nothing {
        Action::Record
    } else {
        Action::Change(live)
    };
    Ok(Difference { changes, action })
}

/// The tasks that run.
pub(crate) fn running(committed: &Composition) -> impl Iterator<Item = &ElementId> {
    let runs = committed.runs.iter();
    runs.filter(|(_, run)| run.state != RunState::Ended)
        .map(|(id, _)| id)
}

fn change_network(
    id: &ElementId,
    changes: &[Change],
    committed: &Composition,
    resolved: &Resolved,
    live: &mut Live,
) -> Result<(), &'static str> {
    let binds = changes.contains(&Change::Binds);
    let connected = committed.lease.as_ref().map(|lease| &lease.network);
    if id.as_str() == builtin::HOST_NETWORK {
        return Err("the host's network is taken or left when the container is made");
    }
    // To have no network is to be connected to none.
    if id.as_str() == builtin::NO_NETWORK {
        return Ok(());
    }
    if !binds {
        live.disconnects = connected.filter(|network| *network == id).cloned();
        return Ok(());
    }
    if connected.is_some_and(|network| network != id) {
        return Err("it is on another network: unbind that one and commit first");
    }
    if resolved
        .bridge
        .as_ref()
        .is_some_and(|bridge| bridge.id == *id)
    {
        live.connects = Some(id.clone());
    }
    Ok(())
}

fn change_volume(
    id: &ElementId,
    changes: &[Change],
    committed: &Composition,
    resolved: &Resolved,
    live_attach: bool,
    live: &mut Live,
) -> Result<(), &'static str> {
    let (binds, unbinds) = (
        changes.contains(&Change::Binds),
        changes.contains(&Change::Unbinds),
    );
    if !binds && !unbinds {
        return Ok(());
    }
    if !live_attach {
        return Err("this node cannot mount into a running container");
    }
    if binds && unbinds {
        return Err("it moves to another place");
    }
    if binds {
        let Some(volume) = resolved
            .volumes
            .iter()
            .find(|volume| volume.record.id == *id)
        else {
            return Err("it cannot be resolved");
        };
        can_attach(volume, resolved)?;
        live.attaches.push(id.clone());
    }
    if unbinds && let Some(target) = committed.joined.get(id).and_then(target) {
        live.detaches.push((id.clone(), target.to_owned()));
    }
    Ok(())
}

fn can_attach(volume: &VolumeUse, resolved: &Resolved) -> Result<(), &'static str> {
    if volume.copy_up {
        return Err("it is filled from the root before the container runs");
    }
    let below = |other: &VolumeUse| {
        let rest = other.target.strip_prefix(&volume.target);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    match resolved.volumes.iter().any(below) {
        true => Err("it would hide a volume mounted below it"),
        false => Ok(()),
    }
}

fn target(joined: &Joined) -> Option<&str> {
    match &joined.role {
        Role::Part(JoinHow::Volume { target, .. } | JoinHow::Image { target, .. }) => Some(target),
        _ => None,
    }
}

fn changes(
    executor: &ElementId,
    committed: &Composition,
    wanted: &Composition,
) -> BTreeMap<ElementId, Vec<Change>> {
    let mut all = BTreeMap::new();
    let ids: BTreeSet<_> = committed
        .joined
        .keys()
        .chain(wanted.joined.keys())
        .collect();
    for id in ids {
        let changes = entry_changes(committed.joined.get(id), wanted.joined.get(id));
        if !changes.is_empty() {
            all.insert(id.clone(), changes);
        }
    }
    if committed.limits != wanted.limits {
        all.insert(executor.clone(), vec![Change::Settings]);
    }
    all
}

fn entry_changes(before: Option<&Joined>, after: Option<&Joined>) -> Vec<Change> {
    let none: &[Change] = &[];
    let found: &[Change] = match (before, after) {
        (None, None) => none,
        (None, Some(after)) if after.bound => &[Change::Joins, Change::Binds],
        (None, Some(_)) => &[Change::Joins],
        (Some(before), None) if before.bound => &[Change::Unbinds, Change::Leaves],
        (Some(_), None) => &[Change::Leaves],
        (Some(before), Some(after)) => match (before.bound, after.bound) {
            (true, true) if before.role != after.role => &[Change::Unbinds, Change::Binds],
            (false, false) if before.role != after.role => &[Change::Settings],
            (false, true) => &[Change::Binds],
            (true, false) => &[Change::Unbinds],
            _ => none,
        },
    };
    found.to_vec()
}
