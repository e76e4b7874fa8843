//! The steps of a commit in the engine, each noted for undo before it is tried: every undo is a removal that takes
//! what is not there for done, so a step whose answer was lost is undone like one that succeeded.

use futures::future::join_all;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use super::StepError;
use super::node::Node;
use super::oci;
use super::patience::{Away, patiently};
use super::validate::{EffectiveTask, Resolved, VolumeUse};
use crate::element::{ElementId, Record, StoreKeys};
use crate::runtime::{
    BridgePlan, ContainerId, ContainerPlan, DiskPlan, IdRange, MountPlan, OutputPlan, ProcessId,
    ProcessPlan, RootPlan, RuntimeError, RuntimeErrorKind, Scope,
};
use crate::store::{MountSource, StoreError};
use crate::task::LogChoice;

/// How a step is taken back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Undo {
    End(Scope),
    Detach(ElementId, StoreKeys),
    RemoveRoot,
    DeleteContainer,
    DeleteProcess(ProcessId, bool),
    DetachLive(String),
    /// To what it was connected to before; `None` = to nothing.
    Connection(Option<Box<BridgePlan>>),
}

impl Undo {
    fn name(&self) -> String {
        match self {
            Undo::End(_) => "delete lease".to_owned(),
            Undo::Detach(id, _) => format!("detach {id}"),
            Undo::RemoveRoot => "remove root".to_owned(),
            Undo::DeleteContainer => "delete container".to_owned(),
            Undo::DeleteProcess(process, _) => format!("delete process {}", process.name),
            Undo::Connection(None) => "disconnect".to_owned(),
            Undo::Connection(Some(plan)) => format!("connect to {} as before", plan.network),
            Undo::DetachLive(target) => format!("unmount {target}"),
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The element it was for.
    pub(crate) element: ElementId,
    /// The step.
    pub(crate) step: &'static str,
    /// Why.
    pub(crate) source: StepError,
}

/// One process to start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Start {
    /// The task.
    pub(crate) task: ElementId,
    /// Its run.
    pub(crate) run: u32,
    /// First of its container.
    pub(crate) primary: bool,
}

/// A step in a span of its own.
pub(super) fn step<F: Future>(name: &'static str, id: &ElementId, call: F) -> Instrumented<F> {
    call.instrument(tracing::debug_span!("step", name, %id))
}

/// The steps of one commit of one container.
pub(crate) struct Steps<'a> {
    /// Ledger, stores and engine.
    pub(crate) node: &'a Node,
    /// The executor.
    pub(crate) executor: &'a Record,
    /// The container.
    pub(crate) container: &'a ContainerId,
    /// The lease.
    pub(crate) scope: &'a Scope,
    /// What is wanted.
    pub(crate) resolved: &'a Resolved,
}

impl Steps<'_> {
    /// Opens the lease that protects what [`Steps::start`] makes until a record in the engine does.
    pub(crate) async fn begin(&self, undo: &mut Vec<Undo>) -> Result<(), Failed> {
        undo.push(Undo::End(self.scope.clone()));
        let begin = self.node.runtime.begin(self.scope);
        let begun = step("open lease", &self.executor.id, begin).await;
        begun.map_err(|error| failed(&self.executor.id, "open lease", error))
    }

    /// Makes the container and starts its tasks, after [`Steps::begin`]. Independent calls run at once.
    pub(crate) async fn start(&self, starts: &[Start], undo: &mut Vec<Undo>) -> Result<(), Failed> {
        let executor = &self.executor.id;
        undo.extend(self.resolved.volumes.iter().filter_map(detach));
        undo.push(Undo::RemoveRoot);
        let root = self.resolved.root.as_ref();
        let image = root.map_or(executor, |root| &root.id);
        let ids = self.ids()?;
        let root_plan = RootPlan {
            ids,
            disk: self.resolved.spec.limits.disk_bytes.map(|bytes| DiskPlan {
                bytes,
                inodes: self.resolved.spec.limits.disk_inodes,
            }),
            image: root.and_then(|root| root.keys.clone()),
            access: root.map_or(crate::store::Access::ReadOnly, |root| root.access),
        };
        let prepare = async {
            let prepared = self
                .node
                .runtime
                .prepare_root(self.scope, self.container, &root_plan);
            step("prepare root", image, prepared)
                .await
                .map_err(|error| failed(image, "prepare root", error))
        };
        let attached = join_all(
            self.resolved
                .volumes
                .iter()
                .map(|volume| self.attach(volume)),
        );
        let (Some((first, further)), Some(primary)) =
            (starts.split_first(), self.plan_first(starts))
        else {
            return Ok(());
        };
        undo.push(Undo::DeleteContainer);
        let furnish = self
            .node
            .runtime
            .furnish(self.container, executor, ids, &primary);
        // Built while the engine works.
        let spec = async { oci::spec(executor, self.resolved, &self.node.host, ids) };
        let (attached, prepared, (), spec) = futures::join!(attached, prepare, furnish, spec);
        let mounts = attached.into_iter().collect::<Result<Vec<_>, _>>()?;
        prepared?;

        let plan = ContainerPlan {
            id: self.container.clone(),
            executor: executor.clone(),
            revision: self.executor.revision + 1,
            root: root_plan,
            mounts,
            network: self.resolved.network_plan(executor),
            spec,
            several: starts.len() > 1,
        };
        crate::crash::point("start.before-container");
        let check = self.node.runtime.check_mounts(&plan);
        let create = self
            .node
            .runtime
            .create_container(self.scope, &plan, &primary);
        let (checked, created) = futures::join!(
            step("check mount targets", executor, check),
            step("create container", executor, create)
        );
        checked.map_err(|error| {
            failed(
                self.blame(&plan, &error).unwrap_or(executor),
                "check mount targets",
                error,
            )
        })?;
        created.map_err(|error| failed(executor, "create container", error))?;
        // The container's record protects its root from here on.
        let end = self.node.runtime.end(self.scope);
        let end = step("delete lease", executor, end);
        let (ended, ran) = futures::join!(end, self.run(first, undo));
        if let Err(error) = ended {
            // It is removed with the container's name at the next open.
            tracing::warn!(executor = %executor, %error, "deleting the lease of a commit failed");
        }
        ran?;
        self.run_all(further, undo).await
    }

    /// The executor's own range of user ids. One that is to have it and has none is not started.
    fn ids(&self) -> Result<Option<IdRange>, Failed> {
        if !self.resolved.spec.isolation.own_users() {
            return Ok(None);
        }
        let executor = &self.executor.id;
        let text = match self.node.ledger.ids(executor) {
            Ok(slot) => match slot.and_then(IdRange::of_slot) {
                Some(ids) => return Ok(Some(ids)),
                None => "it has none".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        let kind = RuntimeErrorKind::Internal;
        let error = RuntimeError::new(kind, "look up the user ids of", executor.to_string(), text);
        Err(failed(executor, "look up user ids", error))
    }

    /// Connects the running container, or changes what its connection allows.
    pub(crate) async fn connect_live(
        &self,
        before: Option<BridgePlan>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Failed> {
        undo.push(Undo::Connection(before.map(Box::new)));
        self.connect().await
    }

    async fn connect(&self) -> Result<(), Failed> {
        let Some(plan) = self.resolved.bridge_plan(&self.executor.id) else {
            return Ok(());
        };
        let connect = self.node.runtime.connect(self.container, &plan);
        let connected = step("connect to the network", &plan.network, connect).await;
        connected.map_err(|error| failed(&plan.network, "connect to the network", error))
    }

    /// Changes a running container: mounts volumes, starts tasks.
    pub(crate) async fn change(
        &self,
        attaches: &[ElementId],
        starts: &[Start],
        undo: &mut Vec<Undo>,
    ) -> Result<(), Failed> {
        // Parents before children, as `volumes` is sorted.
        for volume in self
            .resolved
            .volumes
            .iter()
            .filter(|v| attaches.contains(&v.record.id))
        {
            undo.extend(detach(volume));
            crate::crash::point("step.before-attach");
            let mount = self.attach(volume).await?;
            undo.push(Undo::DetachLive(mount.target.clone()));
            let attach = self.node.runtime.attach_mount(self.container, &mount);
            let attached = step("mount", &volume.record.id, attach).await;
            attached.map_err(|error| {
                failed(&volume.record.id, "mount into the running container", error)
            })?;
        }
        self.run_all(starts, undo).await
    }

    async fn run_all(&self, starts: &[Start], undo: &mut Vec<Undo>) -> Result<(), Failed> {
        let mut undos: Vec<Vec<Undo>> = starts.iter().map(|_| Vec::new()).collect();
        let runs = starts
            .iter()
            .zip(&mut undos)
            .map(|(start, undo)| self.run(start, undo));
        let outcomes = join_all(runs).await;
        undo.extend(undos.into_iter().flatten());
        outcomes.into_iter().collect()
    }

    async fn run(&self, start: &Start, undo: &mut Vec<Undo>) -> Result<(), Failed> {
        let Some(plan) = self.process_plan(start) else {
            return Ok(());
        };
        undo.push(Undo::DeleteProcess(plan.id.clone(), plan.primary));
        crate::crash::point("step.before-process");
        let create = self.node.runtime.create_process(&plan);
        let created = step("create process", &start.task, create).await;
        created.map_err(|error| failed(&start.task, "create process", error))?;
        if start.primary {
            // Its name spaces are there now, and nothing of the task runs before its rules hold.
            self.connect().await?;
        }
        crate::crash::point("step.before-start");
        let started = self.node.runtime.start_process(&plan.id, plan.primary);
        let started = step("start process", &start.task, started).await;
        crate::crash::point("step.after-start");
        started.map_err(|error| failed(&start.task, "start process", error))
    }

    async fn attach(&self, volume: &VolumeUse) -> Result<MountPlan, Failed> {
        let id = &volume.record.id;
        let source = match (volume.tmpfs_bytes, self.node.store(id)) {
            (Some(size_bytes), _) => MountSource::Tmpfs {
                size_bytes,
                mode: 0o1777,
            },
            (None, Some(store)) => {
                let attach = store.attach(&volume.record, &self.executor.id);
                let attached = step("attach", id, attach).await;
                attached.map_err(|error| failed(id, "attach", error))?
            }
            (None, None) => {
                let missing = StoreError::Unsupported("volumes");
                return Err(failed(id, "attach", missing));
            }
        };
        Ok(MountPlan {
            volume: id.clone(),
            source,
            target: volume.target.clone(),
            access: volume.access,
            sub_path: volume.sub_path.clone(),
            copy_up: volume.copy_up,
        })
    }

    /// The volume a failed check of mount targets is about.
    fn blame<'p>(
        &self,
        plan: &'p ContainerPlan,
        error: &crate::runtime::RuntimeError,
    ) -> Option<&'p ElementId> {
        let crate::runtime::RuntimeErrorKind::MountTarget { target, .. } = &error.kind else {
            return None;
        };
        plan.mounts
            .iter()
            .find(|mount| mount.target == *target)
            .map(|mount| &mount.volume)
    }

    fn plan_first(&self, starts: &[Start]) -> Option<ProcessPlan> {
        self.process_plan(starts.first()?)
    }

    fn process_plan(&self, start: &Start) -> Option<ProcessPlan> {
        let task = self.resolved.tasks.get(&start.task)?;
        Some(ProcessPlan {
            id: ProcessId::new(self.container.clone(), &start.task, start.run),
            primary: start.primary,
            task: start.task.clone(),
            run: start.run,
            process: oci::process(task, &self.resolved.spec.isolation, &self.node.host),
            user_text: task.user.clone(),
            sinks: task.outputs.sinks.clone(),
            redact: task.outputs.redact.clone(),
            stdin: task.interaction.stdin,
            stdout: output(&task.stdout),
            stderr: stderr(task),
        })
    }

    /// Takes steps back, newest first. What could not be taken back comes as its name and reason; the rest is
    /// still taken back.
    pub(crate) async fn undo(&self, undo: Vec<Undo>) -> Vec<(String, StepError)> {
        let (mut failures, mut is_away) = (Vec::new(), false);
        for step in undo.into_iter().rev() {
            crate::crash::point("step.before-undo");
            let undone = match is_away {
                false => patiently(|| self.undo_one(&step)).await,
                // It was waited for long enough.
                true => self.undo_one(&step).await,
            };
            if let Err(error) = undone {
                is_away |= error.is_away();
                failures.push((step.name(), error));
            }
        }
        failures
    }

    async fn undo_one(&self, step: &Undo) -> Result<(), StepError> {
        let runtime = &self.node.runtime;
        match step {
            Undo::End(scope) => runtime.end(scope).await?,
            Undo::Detach(id, keys) => {
                if let Some(store) = self.node.store(id) {
                    store.detach(id, keys, &self.executor.id).await?;
                }
            }
            Undo::RemoveRoot => runtime.remove_root(self.container).await?,
            Undo::DeleteContainer => runtime.delete_container(self.container).await?,
            Undo::DeleteProcess(process, primary) => {
                runtime.delete_process(process, *primary, true).await?;
            }
            Undo::Connection(None) => runtime.disconnect(self.container).await?,
            Undo::Connection(Some(plan)) => runtime.connect(self.container, plan).await?,
            Undo::DetachLive(target) => runtime.detach_mount(self.container, target).await?,
        }
        Ok(())
    }
}

fn failed(element: &ElementId, step: &'static str, source: impl Into<StepError>) -> Failed {
    Failed {
        element: element.clone(),
        step,
        source: source.into(),
    }
}

/// The undo of a volume's attach; a fresh tmpfs has none.
pub(crate) fn detach(volume: &VolumeUse) -> Option<Undo> {
    let keys = match &volume.record.body {
        crate::element::Body::Volume(body) => body.keys.clone(),
        _ => StoreKeys::new(),
    };
    volume
        .tmpfs_bytes
        .is_none()
        .then(|| Undo::Detach(volume.record.id.clone(), keys))
}

fn output(choice: &LogChoice) -> OutputPlan {
    match choice {
        LogChoice { discard: true, .. } => OutputPlan::Discard,
        LogChoice { required: true, .. } => OutputPlan::Required,
        _ => OutputPlan::BestEffort,
    }
}

/// With a terminal everything comes as standard output.
fn stderr(task: &EffectiveTask) -> OutputPlan {
    match task.terminal {
        true => OutputPlan::Discard,
        false => output(&task.stderr),
    }
}
