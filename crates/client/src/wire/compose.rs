//! Composition: roles, binds, what is committed, plans and results.

use std::collections::BTreeMap;

use portlayer::compose::{
    BindHow, Change, Composition, JoinHow, Joined, Plan, Role, Run, RunId, RunState, Step, TaskBind,
};
use portlayer::element::ElementId;
use portlayer::store::Access;
use portlayer_proto::v1;

use super::{
    Wire, WireError, all, all_into, choice, id, missing, optional, optional_checksum, optional_id,
    or_default, read_time, required, time,
};
use crate::compose::{Committed, ElementOutcome};

impl Wire for Access {
    type Message = v1::Access;

    fn into_wire(self) -> v1::Access {
        match self {
            Access::ReadWrite => v1::Access::ReadWrite,
            Access::ReadOnly => v1::Access::ReadOnly,
        }
    }

    fn from_wire(message: v1::Access) -> Result<Self, WireError> {
        Ok(match message {
            v1::Access::Unspecified | v1::Access::ReadWrite => Access::ReadWrite,
            v1::Access::ReadOnly => Access::ReadOnly,
        })
    }
}

impl Wire for JoinHow {
    type Message = v1::JoinHow;

    fn into_wire(self) -> v1::JoinHow {
        use v1::join_how::{Image, Log, Role as R, Task, Volume};
        v1::JoinHow {
            role: Some(match self {
                JoinHow::Image { target, access } => R::Image(Image {
                    target,
                    access: access.into_wire().into(),
                }),
                JoinHow::Volume {
                    target,
                    access,
                    sub_path,
                    copy_up,
                    tmpfs_bytes,
                } => R::Volume(Volume {
                    target,
                    access: access.into_wire().into(),
                    sub_path,
                    copy_up,
                    tmpfs_bytes,
                }),
                JoinHow::Task => R::Task(Task {}),
                JoinHow::Network(wanted) => R::Network(wanted.into_wire()),
                JoinHow::Log => R::Log(Log {}),
            }),
        }
    }

    fn from_wire(message: v1::JoinHow) -> Result<Self, WireError> {
        use v1::join_how::{Image, Role as R, Volume};
        Ok(match message.role.ok_or_else(|| missing("role"))? {
            R::Image(Image { target, access }) => JoinHow::Image {
                target: if target.is_empty() {
                    "/".to_owned()
                } else {
                    target
                },
                access: choice("image.access", access)?,
            },
            R::Volume(Volume {
                target,
                access,
                sub_path,
                copy_up,
                tmpfs_bytes,
            }) => JoinHow::Volume {
                target,
                access: choice("volume.access", access)?,
                sub_path,
                copy_up,
                tmpfs_bytes,
            },
            R::Task(_) => JoinHow::Task,
            R::Network(wanted) => JoinHow::Network(required("network", Some(wanted))?),
            R::Log(_) => JoinHow::Log,
        })
    }
}

/// The role of a join.
pub fn join(how: Option<v1::JoinHow>) -> Result<JoinHow, WireError> {
    required("how", how)
}

/// The settings of a bind; none said = nothing to say.
pub fn bind(how: Option<v1::BindHow>) -> Result<BindHow, WireError> {
    or_default("how", how)
}

impl Wire for BindHow {
    type Message = v1::BindHow;

    fn into_wire(self) -> v1::BindHow {
        use v1::bind_how::Settings;
        v1::BindHow {
            settings: match self {
                BindHow::Plain => None,
                BindHow::Task(bind) => Some(Settings::Task(bind.into_wire())),
                BindHow::Executor(limits) => Some(Settings::Executor(limits.into_wire())),
            },
        }
    }

    fn from_wire(message: v1::BindHow) -> Result<Self, WireError> {
        use v1::bind_how::Settings;
        Ok(match message.settings {
            None => BindHow::Plain,
            Some(Settings::Task(bind)) => BindHow::Task(required("task", Some(bind))?),
            Some(Settings::Executor(limits)) => {
                BindHow::Executor(required("executor", Some(limits))?)
            }
        })
    }
}

impl Wire for TaskBind {
    type Message = v1::TaskBind;

    fn into_wire(self) -> v1::TaskBind {
        let TaskBind {
            cwd,
            user,
            deadline_ms,
            restart,
            stop,
            stdout,
            stderr,
        } = self;
        v1::TaskBind {
            cwd,
            user,
            deadline_ms,
            restart: restart.map(Wire::into_wire),
            stop: stop.map(Wire::into_wire),
            stdout: stdout.map(Wire::into_wire),
            stderr: stderr.map(Wire::into_wire),
        }
    }

    fn from_wire(message: v1::TaskBind) -> Result<Self, WireError> {
        Ok(TaskBind {
            cwd: message.cwd,
            user: message.user,
            deadline_ms: message.deadline_ms,
            restart: optional("restart", message.restart)?,
            stop: optional("stop", message.stop)?,
            stdout: optional("stdout", message.stdout)?,
            stderr: optional("stderr", message.stderr)?,
        })
    }
}

impl Wire for Composition {
    type Message = v1::Composition;

    fn into_wire(self) -> v1::Composition {
        let Composition {
            joined,
            limits,
            limits_changed,
            runs,
            lease,
            generation,
        } = self;
        v1::Composition {
            joined: joined.into_iter().map(joined_message).collect(),
            limits: limits.map(Wire::into_wire),
            limits_changed,
            runs: runs.into_iter().map(run_message).collect(),
            lease: lease.map(Wire::into_wire),
            generation,
        }
    }

    fn from_wire(message: v1::Composition) -> Result<Self, WireError> {
        let joined = message.joined.into_iter().map(read_joined);
        let runs = message.runs.into_iter().map(read_run);
        Ok(Composition {
            joined: joined.collect::<Result<_, _>>()?,
            limits: optional("limits", message.limits)?,
            limits_changed: message.limits_changed,
            runs: runs.collect::<Result<_, _>>()?,
            lease: optional("lease", message.lease)?,
            generation: message.generation,
        })
    }
}

fn joined_message((element, joined): (ElementId, Joined)) -> v1::Joined {
    let Joined {
        role,
        bound,
        revision,
        changed,
    } = joined;
    let (how, task) = match role {
        Role::Part(how) => (how, None),
        Role::Task {
            spec,
            checksum,
            owner,
            bind,
        } => {
            let task = v1::JoinedTask {
                spec: Some(spec.into_wire()),
                checksum: checksum.map(|sum| sum.to_string()),
                owner: owner.map(|id| id.to_string()),
                bind: Some(bind.into_wire()),
            };
            (JoinHow::Task, Some(task))
        }
    };
    v1::Joined {
        id: element.to_string(),
        how: Some(how.into_wire()),
        task,
        bound,
        revision,
        changed,
    }
}

fn read_joined(message: v1::Joined) -> Result<(ElementId, Joined), WireError> {
    let role = match message.task {
        None => Role::Part(join(message.how)?),
        Some(task) => Role::Task {
            spec: Box::new(required("task.spec", task.spec)?),
            checksum: optional_checksum("task.checksum", task.checksum.as_deref())?,
            owner: optional_id("task.owner", task.owner.as_deref())?,
            bind: or_default("task.bind", task.bind)?,
        },
    };
    let joined = Joined {
        role,
        bound: message.bound,
        revision: message.revision,
        changed: message.changed,
    };
    Ok((id("id", &message.id)?, joined))
}

fn run_message((task, run): (ElementId, Run)) -> v1::Run {
    let Run {
        run,
        state,
        started,
        restarts,
        primary,
        generation,
        deadline_ms,
        // Means nothing on another machine.
        clock: _,
    } = run;
    v1::Run {
        task: task.to_string(),
        run,
        state: state.into_wire().into(),
        started: Some(time(started)),
        restarts,
        primary,
        generation,
        deadline_ms,
    }
}

fn read_run(message: v1::Run) -> Result<(ElementId, Run), WireError> {
    let run = Run {
        run: message.run,
        state: choice("state", message.state)?,
        started: read_time("started", message.started)?,
        restarts: message.restarts,
        primary: message.primary,
        generation: message.generation,
        deadline_ms: message.deadline_ms,
        clock: None,
    };
    Ok((id("task", &message.task)?, run))
}

impl Wire for RunState {
    type Message = v1::RunState;

    fn into_wire(self) -> v1::RunState {
        match self {
            RunState::Starting => v1::RunState::Starting,
            RunState::Running => v1::RunState::Running,
            RunState::Ended => v1::RunState::Ended,
        }
    }

    fn from_wire(message: v1::RunState) -> Result<Self, WireError> {
        Ok(match message {
            v1::RunState::Unspecified => return Err(missing("state")),
            v1::RunState::Starting => RunState::Starting,
            v1::RunState::Running => RunState::Running,
            v1::RunState::Ended => RunState::Ended,
        })
    }
}

impl Wire for RunId {
    type Message = v1::StartedRun;

    fn into_wire(self) -> v1::StartedRun {
        let RunId { task, run } = self;
        v1::StartedRun {
            task: task.to_string(),
            run,
        }
    }

    fn from_wire(message: v1::StartedRun) -> Result<Self, WireError> {
        Ok(RunId {
            task: id("task", &message.task)?,
            run: message.run,
        })
    }
}

impl Wire for Plan {
    type Message = v1::PlanResponse;

    fn into_wire(self) -> v1::PlanResponse {
        let Plan {
            executor,
            revision,
            steps,
            elements,
        } = self;
        let elements = elements
            .into_iter()
            .map(|(id, changes)| v1::ElementChanges {
                id: id.to_string(),
                changes: changes.into_iter().map(|c| c.into_wire().into()).collect(),
            });
        v1::PlanResponse {
            executor: executor.to_string(),
            revision,
            steps: all_into(steps),
            elements: elements.collect(),
        }
    }

    fn from_wire(message: v1::PlanResponse) -> Result<Self, WireError> {
        let elements = message.elements.into_iter().map(|element| {
            let changes = element.changes.into_iter();
            let changes = changes.map(|change| choice("changes", change));
            Ok((id("id", &element.id)?, changes.collect::<Result<_, _>>()?))
        });
        Ok(Plan {
            executor: id("executor", &message.executor)?,
            revision: message.revision,
            steps: all("steps", message.steps)?,
            elements: elements.collect::<Result<_, WireError>>()?,
        })
    }
}

impl Wire for Change {
    type Message = v1::ChangeKind;

    fn into_wire(self) -> v1::ChangeKind {
        match self {
            Change::Joins => v1::ChangeKind::Joins,
            Change::Binds => v1::ChangeKind::Binds,
            Change::Settings => v1::ChangeKind::Settings,
            Change::Unbinds => v1::ChangeKind::Unbinds,
            Change::Leaves => v1::ChangeKind::Leaves,
        }
    }

    fn from_wire(message: v1::ChangeKind) -> Result<Self, WireError> {
        Ok(match message {
            v1::ChangeKind::Unspecified => return Err(missing("change")),
            v1::ChangeKind::Joins => Change::Joins,
            v1::ChangeKind::Binds => Change::Binds,
            v1::ChangeKind::Settings => Change::Settings,
            v1::ChangeKind::Unbinds => Change::Unbinds,
            v1::ChangeKind::Leaves => Change::Leaves,
        })
    }
}

impl Wire for Step {
    type Message = v1::PlanStep;

    fn into_wire(self) -> v1::PlanStep {
        use v1::PlanStepKind as K;
        let text = self.to_string();
        let one = |id: ElementId| vec![id];
        let (kind, elements, target, container) = match self {
            Step::Claim(ids) => (K::Claim, ids, None, None),
            Step::Begin => (K::Begin, Vec::new(), None, None),
            Step::Attach(id) => (K::Attach, one(id), None, None),
            Step::PrepareRoot(id) => (K::PrepareRoot, one(id), None, None),
            Step::CheckMounts => (K::CheckMounts, Vec::new(), None, None),
            Step::CreateContainer(name) => (K::CreateContainer, Vec::new(), None, Some(name)),
            Step::Connect(id) => (K::Connect, one(id), None, None),
            Step::Disconnect(id) => (K::Disconnect, one(id), None, None),
            Step::CreateProcess(id) => (K::CreateProcess, one(id), None, None),
            Step::StartProcess(id) => (K::StartProcess, one(id), None, None),
            Step::AttachLive(id, target) => (K::AttachLive, one(id), Some(target), None),
            Step::Record => (K::Record, Vec::new(), None, None),
            Step::End => (K::End, Vec::new(), None, None),
            Step::Stop(id) => (K::Stop, one(id), None, None),
            Step::DetachLive(id, target) => (K::DetachLive, one(id), Some(target), None),
            Step::TearDown => (K::TearDown, Vec::new(), None, None),
        };
        v1::PlanStep {
            kind: kind.into(),
            elements: elements.iter().map(ToString::to_string).collect(),
            target,
            container,
            text,
        }
    }

    fn from_wire(message: v1::PlanStep) -> Result<Self, WireError> {
        use v1::PlanStepKind as K;
        let ids = message.elements.iter().map(|text| id("elements", text));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let one = || ids.first().cloned().ok_or_else(|| missing("elements"));
        let target = || message.target.clone().ok_or_else(|| missing("target"));
        let container = || {
            message
                .container
                .clone()
                .ok_or_else(|| missing("container"))
        };
        let kind = K::try_from(message.kind).map_err(|_| WireError::Unknown {
            field: "kind".to_owned(),
            value: message.kind.to_string(),
        })?;
        Ok(match kind {
            K::Unspecified => return Err(missing("kind")),
            K::Claim => Step::Claim(ids),
            K::Begin => Step::Begin,
            K::Attach => Step::Attach(one()?),
            K::PrepareRoot => Step::PrepareRoot(one()?),
            K::CheckMounts => Step::CheckMounts,
            K::CreateContainer => Step::CreateContainer(container()?),
            K::Connect => Step::Connect(one()?),
            K::Disconnect => Step::Disconnect(one()?),
            K::CreateProcess => Step::CreateProcess(one()?),
            K::StartProcess => Step::StartProcess(one()?),
            K::AttachLive => Step::AttachLive(one()?, target()?),
            K::Record => Step::Record,
            K::End => Step::End,
            K::Stop => Step::Stop(one()?),
            K::DetachLive => Step::DetachLive(one()?, target()?),
            K::TearDown => Step::TearDown,
        })
    }
}

impl Wire for Committed {
    type Message = v1::Committed;

    fn into_wire(self) -> v1::Committed {
        let Committed {
            executor,
            revision,
            elements,
            runs,
        } = self;
        let elements = elements.into_iter().map(|(id, outcome)| {
            let (outcome, fault) = match outcome {
                ElementOutcome::Success => (v1::ElementOutcome::Success, None),
                ElementOutcome::NoOp => (v1::ElementOutcome::NoOp, None),
                ElementOutcome::Error(fault) => {
                    (v1::ElementOutcome::Error, Some(fault.into_wire()))
                }
            };
            v1::ElementResult {
                id: id.to_string(),
                outcome: outcome.into(),
                fault,
            }
        });
        v1::Committed {
            executor: executor.to_string(),
            revision,
            elements: elements.collect(),
            runs: all_into(runs),
        }
    }

    fn from_wire(message: v1::Committed) -> Result<Self, WireError> {
        let mut elements = BTreeMap::new();
        for element in message.elements {
            let outcome = match v1::ElementOutcome::try_from(element.outcome) {
                Ok(v1::ElementOutcome::Success) => ElementOutcome::Success,
                Ok(v1::ElementOutcome::NoOp) => ElementOutcome::NoOp,
                Ok(v1::ElementOutcome::Error) => {
                    ElementOutcome::Error(required("fault", element.fault)?)
                }
                Ok(v1::ElementOutcome::Unspecified) | Err(_) => return Err(missing("outcome")),
            };
            elements.insert(id("id", &element.id)?, outcome);
        }
        Ok(Committed {
            executor: id("executor", &message.executor)?,
            revision: message.revision,
            elements,
            runs: all("runs", message.runs)?,
        })
    }
}
