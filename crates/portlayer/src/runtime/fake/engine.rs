//! The verbs of the port over the state in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;

use super::process::{Ended, FakeProcess, Phase, script_error};
use super::{FakeContainer, FakeRuntime, answer, error};
use crate::element::ElementId;
use crate::runtime::{
    BridgePlan, ContainerId, ContainerPlan, ContainerStats, Delivery, Finding, FindingClass,
    FoundContainer, IdMap, InputStream, Inside, LogQuery, LogReader, MountPlan, ProcessExit,
    ProcessId, ProcessPlan, ProcessState, RootPlan, Runtime, RuntimeError, RuntimeErrorKind,
    RuntimeInfo, Scope, SignalScope,
};
use crate::task::ExitReason;

#[async_trait]
impl Runtime for FakeRuntime {
    async fn ping(&self) -> Result<(), RuntimeError> {
        let fault = self.enter("ping", "fake").await?;
        answer(fault, ())
    }

    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        Ok(RuntimeInfo {
            engine: "fake".into(),
            oci_runtime: "fake".into(),
            kernel: "fake".into(),
            cgroups: "v1".into(),
            favordynmods: false,
            snapshotter: "fake".into(),
            namespace: "fake".into(),
            live_attach: !self.lock().no_live_attach,
            isolation: crate::runtime::HostIsolation {
                capabilities: u64::MAX,
                ids: crate::runtime::IdMapping::Mapped,
                disk: crate::runtime::DiskBound::BlockFile,
                ..Default::default()
            },
            warnings: Vec::new(),
        })
    }

    async fn begin(&self, scope: &Scope) -> Result<(), RuntimeError> {
        let fault = self.enter("begin", scope.as_str()).await?;
        self.lock().scopes.insert(scope.as_str().to_owned());
        answer(fault, ())
    }

    async fn end(&self, scope: &Scope) -> Result<(), RuntimeError> {
        let fault = self.enter("end", scope.as_str()).await?;
        self.lock().scopes.remove(scope.as_str());
        answer(fault, ())
    }

    async fn prepare_root(
        &self,
        scope: &Scope,
        id: &ContainerId,
        _root: &RootPlan,
    ) -> Result<(), RuntimeError> {
        let fault = self.enter("prepare_root", id.as_str()).await?;
        let mut state = self.lock();
        if !state.scopes.contains(scope.as_str()) {
            return Err(error(
                RuntimeErrorKind::NotFound,
                "prepare_root",
                scope.as_str(),
            ));
        }
        state.roots.insert(id.clone());
        answer(fault, ())
    }

    async fn remove_root(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let fault = self.enter("remove_root", id.as_str()).await?;
        let mut state = self.lock();
        if state.containers.contains_key(id) {
            return Err(error(RuntimeErrorKind::Busy, "remove_root", id.as_str()));
        }
        state.roots.remove(id);
        answer(fault, ())
    }

    async fn check_mounts(&self, plan: &ContainerPlan) -> Result<(), RuntimeError> {
        let fault = self.enter("check_mounts", plan.id.as_str()).await?;
        if !self.lock().roots.contains(&plan.id) {
            return Err(error(
                RuntimeErrorKind::NotFound,
                "check_mounts",
                plan.id.as_str(),
            ));
        }
        answer(fault, ())
    }

    async fn create_container(
        &self,
        _scope: &Scope,
        plan: &ContainerPlan,
        _primary: &ProcessPlan,
    ) -> Result<(), RuntimeError> {
        let fault = self.enter("create_container", plan.id.as_str()).await?;
        let mut state = self.lock();
        let refused = if state.containers.contains_key(&plan.id) {
            Some(RuntimeErrorKind::AlreadyExists)
        } else if !state.roots.contains(&plan.id) {
            Some(RuntimeErrorKind::NotFound)
        } else {
            None
        };
        if let Some(kind) = refused {
            return Err(error(kind, "create_container", plan.id.as_str()));
        }
        let mounts = plan.mounts.iter();
        let container = FakeContainer {
            executor: plan.executor.clone(),
            paused: false,
            several: plan.several,
            mounts: mounts
                .map(|m| (m.target.clone(), m.volume.clone()))
                .collect(),
            bridge: None,
            processes: BTreeMap::new(),
        };
        state.containers.insert(plan.id.clone(), container);
        answer(fault, ())
    }

    async fn delete_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let fault = self.enter("delete_container", id.as_str()).await?;
        let mut state = self.lock();
        let busy = state
            .containers
            .get(id)
            .is_some_and(|container| !container.processes.is_empty());
        if busy {
            return Err(error(
                RuntimeErrorKind::State,
                "delete_container",
                id.as_str(),
            ));
        }
        state.containers.remove(id);
        answer(fault, ())
    }

    async fn create_process(&self, plan: &ProcessPlan) -> Result<(), RuntimeError> {
        let fault = self.enter("create_process", &plan.id.name).await?;
        let mut state = self.lock();
        let refuse = |kind| Err(error(kind, "create_process", &plan.id.name));
        let Some(container) = state.containers.get_mut(&plan.id.container) else {
            return refuse(RuntimeErrorKind::NotFound);
        };
        if container.processes.contains_key(&plan.id.name) {
            return refuse(RuntimeErrorKind::AlreadyExists);
        }
        let mut processes = container.processes.values();
        let alive = processes.any(|p| p.running() || (container.several && p.primary));
        if plan.primary != container.processes.is_empty() || (!plan.primary && !alive) {
            return refuse(RuntimeErrorKind::State);
        }
        let process = FakeProcess::new(plan);
        container.processes.insert(plan.id.name.clone(), process);
        answer(fault, ())
    }

    async fn start_process(&self, id: &ProcessId, _primary: bool) -> Result<(), RuntimeError> {
        let fault = self.enter("start_process", &id.name).await?;
        let executor = {
            let state = self.lock();
            let container = state.containers.get(&id.container);
            container.map(|container| container.executor.clone())
        };
        let Some(executor) = executor else {
            return Err(error(RuntimeErrorKind::NotFound, "start_process", &id.name));
        };
        let task = self.process(id, |process| process.task.clone())?;
        let output = self.output(&executor, &task);
        self.process(id, |process| match script_error(&process.argv) {
            Some(kind) => Err(error(kind, "start_process", &id.name)),
            None if process.start(output) => Ok(()),
            None => Err(error(RuntimeErrorKind::State, "start_process", &id.name)),
        })??;
        answer(fault, ())
    }

    async fn wait_process(
        &self,
        id: &ProcessId,
        _primary: bool,
    ) -> Result<ProcessExit, RuntimeError> {
        let fault = self.enter("wait_process", &id.name).await?;
        let exit = match self.process(id, |process| process.phases()) {
            Ok(mut phases) => match phases.wait_for(|p| matches!(p, Phase::Ended(_))).await {
                Ok(phase) => match &*phase {
                    Phase::Ended(exit) => exit.clone(),
                    Phase::Created | Phase::Running => Ended::Lost.exit(),
                },
                Err(_) => Ended::Lost.exit(),
            },
            Err(_) => Ended::Lost.exit(),
        };
        answer(fault, exit)
    }

    async fn delete_process(
        &self,
        id: &ProcessId,
        primary: bool,
        force: bool,
    ) -> Result<(), RuntimeError> {
        let fault = self.enter("delete_process", &id.name).await?;
        let doomed: Vec<String> = {
            let state = self.lock();
            let Some(container) = state.containers.get(&id.container) else {
                return answer(fault, ());
            };
            let Some(process) = container.processes.get(&id.name) else {
                return answer(fault, ());
            };
            if process.running() && !force {
                return Err(error(RuntimeErrorKind::State, "delete_process", &id.name));
            }
            match primary {
                true => container.processes.keys().cloned().collect(),
                false => vec![id.name.clone()],
            }
        };
        for name in doomed {
            let of = ProcessId {
                container: id.container.clone(),
                name,
            };
            let phases = self.process(&of, |process| {
                process.signal(9);
                (process.running()).then(|| process.phases())
            });
            if let Ok(Some(mut phases)) = phases {
                // The script always ends after signal 9.
                let _ = phases.wait_for(|p| matches!(p, Phase::Ended(_))).await;
            }
            if let Some(container) = self.lock().containers.get_mut(&of.container) {
                container.processes.remove(&of.name);
            }
        }
        answer(fault, ())
    }

    async fn signal(
        &self,
        id: &ProcessId,
        _primary: bool,
        signal: i32,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError> {
        let fault = self
            .enter("signal", &format!("{} {signal}", id.name))
            .await?;
        let mut state = self.lock();
        let Some(container) = state.containers.get_mut(&id.container) else {
            return answer(fault, Delivery::NotRunning);
        };
        let delivery = match container.processes.get(&id.name).map(|p| p.phase()) {
            None | Some(Phase::Created) => Delivery::NotRunning,
            Some(Phase::Ended(_)) => Delivery::AlreadyExited,
            Some(Phase::Running) => Delivery::Delivered,
        };
        // A frozen process does not die.
        if signal == 9 {
            container.paused = false;
        }
        for (name, process) in &mut container.processes {
            if scope == SignalScope::All || *name == id.name {
                process.signal(signal);
            }
        }
        answer(fault, delivery)
    }

    async fn set_paused(&self, id: &ContainerId, paused: bool) -> Result<Delivery, RuntimeError> {
        let fault = self.enter("set_paused", id.as_str()).await?;
        let delivery = match self.lock().containers.get_mut(id) {
            Some(container) => {
                container.paused = paused;
                Delivery::Delivered
            }
            None => Delivery::NotRunning,
        };
        answer(fault, delivery)
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        let fault = self.enter("stats", id.as_str()).await?;
        let running = match self.lock().containers.get(id) {
            Some(container) => container
                .processes
                .values()
                .filter(|process| matches!(process.phase(), Phase::Running))
                .count(),
            None => 0,
        };
        let stats = ContainerStats {
            pids: Some(running as u64),
            ..ContainerStats::default()
        };
        answer(fault, stats)
    }

    async fn process_state(
        &self,
        id: &ProcessId,
        _primary: bool,
    ) -> Result<ProcessState, RuntimeError> {
        let fault = self.enter("process_state", &id.name).await?;
        let state = self.lock();
        let container = state.containers.get(&id.container);
        let process = container.and_then(|c| c.processes.get(&id.name));
        let paused = container.is_some_and(|container| container.paused);
        answer(fault, found_state(process, paused))
    }

    async fn attach_mount(&self, id: &ContainerId, mount: &MountPlan) -> Result<(), RuntimeError> {
        let fault = self.enter("attach_mount", &mount.target).await?;
        let mut state = self.lock();
        if state.no_live_attach {
            return Err(error(
                RuntimeErrorKind::Unsupported,
                "attach_mount",
                &mount.target,
            ));
        }
        let Some(container) = state.containers.get_mut(id) else {
            return Err(error(
                RuntimeErrorKind::NotFound,
                "attach_mount",
                id.as_str(),
            ));
        };
        container
            .mounts
            .insert(mount.target.clone(), mount.volume.clone());
        answer(fault, ())
    }

    async fn detach_mount(&self, id: &ContainerId, target: &str) -> Result<(), RuntimeError> {
        let fault = self.enter("detach_mount", target).await?;
        if let Some(container) = self.lock().containers.get_mut(id) {
            container.mounts.remove(target);
        }
        answer(fault, ())
    }

    async fn connect(&self, id: &ContainerId, plan: &BridgePlan) -> Result<(), RuntimeError> {
        let fault = self.enter("connect", id.as_str()).await?;
        let mut state = self.lock();
        let taken = state.containers.iter().any(|(other, container)| {
            let same = |there: &BridgePlan| {
                there.network == plan.network && there.lease.number == plan.lease.number
            };
            other != id && container.bridge.as_ref().is_some_and(same)
        });
        let container = state.containers.get_mut(id);
        let started = container.as_ref().is_some_and(|c| !c.processes.is_empty());
        let refused = match (&container, taken) {
            (None, _) => Some(RuntimeErrorKind::NotFound),
            (_, true) => Some(RuntimeErrorKind::AlreadyExists),
            // The primary process has made the name space.
            _ if !started => Some(RuntimeErrorKind::State),
            _ => None,
        };
        if let Some(kind) = refused {
            return Err(error(kind, "connect", id.as_str()));
        }
        if let Some(container) = container {
            container.bridge = Some(plan.clone());
        }
        answer(fault, ())
    }

    async fn disconnect(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let fault = self.enter("disconnect", id.as_str()).await?;
        if let Some(container) = self.lock().containers.get_mut(id) {
            container.bridge = None;
        }
        answer(fault, ())
    }

    async fn restore_networks(
        &self,
        connected: &[(ContainerId, BridgePlan)],
    ) -> Result<(), RuntimeError> {
        let fault = self
            .enter("restore_networks", &connected.len().to_string())
            .await?;
        let mut state = self.lock();
        for (id, container) in &mut state.containers {
            let wanted = connected.iter().find(|(wanted, _)| wanted == id);
            container.bridge = wanted.map(|(_, plan)| plan.clone());
        }
        answer(fault, ())
    }

    async fn write_stdin(
        &self,
        id: &ProcessId,
        _primary: bool,
        mut input: InputStream,
    ) -> Result<(), RuntimeError> {
        use tokio::io::AsyncReadExt;
        let fault = self.enter("write_stdin", &id.name).await?;
        let writer = self.process(id, FakeProcess::take_input)?;
        let writer =
            writer.ok_or_else(|| error(RuntimeErrorKind::Busy, "write_stdin", &id.name))?;
        let mut piece = vec![0; 4096];
        loop {
            let read = input.read(&mut piece).await.map_err(|cause| {
                RuntimeError::new(
                    RuntimeErrorKind::Internal,
                    "write_stdin",
                    &id.name,
                    cause.to_string(),
                )
            })?;
            // A process that ended reads no more; what is left is thrown away.
            if read == 0 || writer.send(piece[..read].to_vec()).await.is_err() {
                return answer(fault, ());
            }
        }
    }

    async fn resize(
        &self,
        id: &ProcessId,
        _primary: bool,
        columns: u16,
        rows: u16,
    ) -> Result<(), RuntimeError> {
        let fault = self
            .enter("resize", &format!("{} {columns}x{rows}", id.name))
            .await?;
        let terminal = self.process(id, |process| process.terminal)?;
        if !terminal {
            return Err(error(RuntimeErrorKind::State, "resize", &id.name));
        }
        answer(fault, ())
    }

    async fn inside(&self, id: &ContainerId) -> Result<Inside, RuntimeError> {
        let fault = self.enter("inside", id.as_str()).await?;
        let directory = {
            let state = self.lock();
            if !state.containers.contains_key(id) {
                return Err(error(RuntimeErrorKind::NotFound, "inside", id.as_str()));
            }
            state.inside.clone()
        };
        let opened = directory.and_then(|directory| std::fs::File::open(directory).ok());
        let Some(root) = opened else {
            return Err(error(RuntimeErrorKind::Unsupported, "inside", id.as_str()));
        };
        let inside = Inside {
            root: root.into(),
            uids: IdMap::identity(),
            gids: IdMap::identity(),
            oom_kills: 0,
        };
        answer(fault, inside)
    }

    async fn logs(&self, query: &LogQuery) -> Result<LogReader, RuntimeError> {
        self.enter("logs", query.task.as_str()).await?;
        Ok(self.read(query.clone()))
    }

    async fn remove_logs(&self, executor: &ElementId) -> Result<(), RuntimeError> {
        let fault = self.enter("remove_logs", executor.as_str()).await?;
        self.lock().logs.remove(executor);
        answer(fault, ())
    }

    async fn list(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let fault = self.enter("list", "").await?;
        let state = self.lock();
        let found = state.containers.iter().map(|(id, container)| {
            let primary = container.processes.values().find(|p| p.primary);
            FoundContainer {
                id: id.clone(),
                executor: Some(container.executor.clone()),
                primary: primary.map(|p| found_state(Some(p), container.paused)),
            }
        });
        let mut found: Vec<_> = found.collect();
        let leased = state
            .scopes
            .iter()
            .filter_map(|scope| Scope::container_of(scope));
        let half_made: BTreeSet<_> = leased.chain(state.roots.iter().cloned()).collect();
        let half_made = half_made
            .into_iter()
            .filter(|id| !state.containers.contains_key(id));
        found.extend(half_made.map(FoundContainer::half_made));
        answer(fault, found)
    }

    async fn purge(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let fault = self.enter("purge", id.as_str()).await?;
        self.vanish(id);
        let mut state = self.lock();
        state.roots.remove(id);
        let lease = format!("pl-{}-", id.as_str());
        state.scopes.retain(|scope| !scope.starts_with(&lease));
        answer(fault, ())
    }

    async fn audit(&self) -> Result<Vec<Finding>, RuntimeError> {
        let state = self.lock();
        let mut found = Vec::new();
        let mut add = |class, name: &str, owner: &str| {
            found.push(Finding {
                class,
                name: name.to_owned(),
                owner: Some(owner.to_owned()),
            });
        };
        for (id, container) in &state.containers {
            add(FindingClass::Container, id.as_str(), id.as_str());
            for name in container.processes.keys() {
                add(FindingClass::Process, name, id.as_str());
            }
        }
        state
            .roots
            .iter()
            .for_each(|id| add(FindingClass::Snapshot, id.as_str(), id.as_str()));
        state.scopes.iter().for_each(|scope| {
            add(
                FindingClass::Lease,
                scope,
                Scope::container_of(scope)
                    .as_ref()
                    .map_or("", ContainerId::as_str),
            )
        });
        state
            .logs
            .keys()
            .for_each(|id| add(FindingClass::Log, id.as_str(), id.as_str()));
        Ok(found)
    }

    async fn sweep(&self, leak: &Finding) -> Result<(), RuntimeError> {
        let fault = self.enter("sweep", &leak.name).await?;
        let mut state = self.lock();
        match leak.class {
            FindingClass::Lease => state.scopes.retain(|scope| *scope != leak.name),
            FindingClass::Log => state.logs.retain(|id, _| id.as_str() != leak.name),
            _ => {
                drop(state);
                if let Some(id) = leak.container() {
                    self.vanish(&id);
                    self.lock().roots.remove(&id);
                }
            }
        }
        answer(fault, ())
    }

    fn state_dir(&self) -> PathBuf {
        PathBuf::from("/nonexistent/fake")
    }
}

fn found_state(process: Option<&FakeProcess>, paused: bool) -> ProcessState {
    match process.map(FakeProcess::phase) {
        None => ProcessState::Unknown,
        Some(Phase::Created) => ProcessState::Created,
        Some(Phase::Running) if paused => ProcessState::Paused,
        Some(Phase::Running) => ProcessState::Running,
        Some(Phase::Ended(exit)) if exit.reason == ExitReason::Lost => ProcessState::Unknown,
        Some(Phase::Ended(exit)) => ProcessState::Stopped(exit),
    }
}
