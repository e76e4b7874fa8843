//! [`Runtime`] over a containerd.

mod input;
mod lifecycle;
mod mounts;
mod opened;
mod output;
mod shared;
mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use containerd_client::types::v1::{Process as EngineProcess, Status as EngineState};
use portlayer::{
    element::ElementId,
    log::LogSpec,
    runtime::{
        BridgePlan, ContainerId, ContainerPlan, ContainerStats, Delivery, Finding, FoundContainer,
        IdRange, InputStream, Inside, LogFigures, LogProgress, LogQuery, LogReader, MountPlan,
        ProcessExit, ProcessId, ProcessPlan, ProcessState, RootPlan, Runtime, RuntimeError,
        RuntimeErrorKind, RuntimeInfo, Scope, SignalScope,
    },
};

use crate::{
    audit, container,
    engine::Engine,
    error::failed,
    host, inside,
    io::reader,
    lease, live, probe,
    process::{self, Name},
    root::{self, blocking},
};
pub(crate) use shared::Shared;
use tokio::sync::watch;
use tracked::{Tracked, lock};

/// The signal that init passes on as SIGKILL, and the one for SIGSTOP (see `crates/init`).
const KILL_BY_INIT: i32 = 64;
const STOP_BY_INIT: i32 = 63;

/// The runtime of a node: one containerd and what belongs to it.
pub struct Containerd {
    shared: Arc<Shared>,
    engine: Mutex<Option<Engine>>,
}

impl Containerd {
    /// The process, from memory or from the disk; starts waiting for its end.
    async fn tracked(&self, id: &ProcessId) -> Result<Option<Arc<Tracked>>, RuntimeError> {
        if let Some(tracked) = lock(&self.shared.tracked).get(id) {
            return Ok(Some(Arc::clone(tracked)));
        }
        let (shared, wanted) = (Arc::clone(&self.shared), id.clone());
        let Some(found) = blocking(move || Tracked::find(&shared, &wanted)).await? else {
            return Ok(None);
        };
        let tracked = Arc::clone(
            lock(&self.shared.tracked)
                .entry(id.clone())
                .or_insert(found),
        );
        tracked.wait_in_background(&self.shared);
        Ok(Some(tracked))
    }

    async fn known(
        &self,
        verb: &'static str,
        id: &ProcessId,
    ) -> Result<Arc<Tracked>, RuntimeError> {
        let missing = || {
            RuntimeError::new(
                RuntimeErrorKind::NotFound,
                verb,
                id.name.clone(),
                "no such process",
            )
        };
        self.tracked(id).await?.ok_or_else(missing)
    }

    /// Host process id of the container's init.
    async fn init_pid(&self, verb: &'static str, id: &ContainerId) -> Result<u32, RuntimeError> {
        let name = Name {
            container: id.as_str().to_owned(),
            exec: String::new(),
        };
        match process::get(&self.shared.client, &name).await? {
            Some(process)
                if matches!(
                    process.status(),
                    EngineState::Running | EngineState::Paused | EngineState::Created
                ) =>
            {
                Ok(process.pid)
            }
            Some(_) => Err(RuntimeError::new(
                RuntimeErrorKind::State,
                verb,
                id.as_str(),
                "the container has ended",
            )),
            None => Err(RuntimeError::new(
                RuntimeErrorKind::NotFound,
                verb,
                id.as_str(),
                "no such container",
            )),
        }
    }

    /// Containers that have a lease or a private directory and are not among `found`.
    async fn half_made(
        &self,
        found: &[FoundContainer],
    ) -> Result<BTreeSet<ContainerId>, RuntimeError> {
        let places = self.shared.places.clone();
        let mut named = blocking(move || {
            let mut named = BTreeSet::new();
            for directory in [places.containers(), places.roots()] {
                let names = host::names(&directory)
                    .map_err(failed("list", directory.display().to_string()))?;
                named.extend(names.into_iter().map(ContainerId::from_engine));
            }
            Ok(named)
        })
        .await?;
        let leases = lease::list(&self.shared.client).await?;
        named.extend(leases.iter().filter_map(|lease| Scope::container_of(lease)));
        for container in found {
            named.remove(&container.id);
        }
        Ok(named)
    }

    async fn state_of(&self, tracked: &Tracked, process: Option<EngineProcess>) -> ProcessState {
        if let Some(exit) = tracked.exit() {
            return ProcessState::Stopped(exit);
        }
        match process.map(|process| process.status()) {
            Some(EngineState::Created) => ProcessState::Created,
            Some(EngineState::Running) => ProcessState::Running,
            Some(EngineState::Paused | EngineState::Pausing) => ProcessState::Paused,
            // The waiter knows it in a moment, with everything that belongs to it.
            Some(EngineState::Stopped) => ProcessState::Stopped(tracked.ended().await),
            Some(EngineState::Unknown) | None => ProcessState::Unknown,
        }
    }
}

#[async_trait]
impl Runtime for Containerd {
    async fn info(&self) -> Result<RuntimeInfo, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut info = shared.info.clone();
            if !shared.networks.is_forwarding() {
                let text = "the host does not forward (net.ipv4.ip_forward is 0): executors on bridge networks reach the host's bridges and nothing beyond";
                info.warnings.push(text.to_owned());
            }
            Ok(info)
        })
        .await
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        if !self.shared.networks.are_in_force() {
            let text = "somebody removed the rules of the networks and they cannot be loaded";
            let (kind, object) = (RuntimeErrorKind::Firewall, "networks");
            return Err(RuntimeError::new(kind, "check", object, text));
        }
        probe::ping(&self.shared.client).await
    }

    fn losses(&self) -> watch::Receiver<u64> {
        self.shared.losses.clone()
    }

    async fn begin(&self, scope: &Scope) -> Result<(), RuntimeError> {
        lease::create(&self.shared.client, scope.as_str()).await
    }

    async fn end(&self, scope: &Scope) -> Result<(), RuntimeError> {
        lease::delete(&self.shared.client, scope.as_str(), false).await
    }

    async fn prepare_root(
        &self,
        scope: &Scope,
        id: &ContainerId,
        plan: &RootPlan,
    ) -> Result<(), RuntimeError> {
        let leased = self.shared.client.leased(scope.as_str()).map_err(|error| {
            RuntimeError::new(
                RuntimeErrorKind::Internal,
                "use lease",
                scope.as_str(),
                error.to_string(),
            )
        })?;
        let (place, mapping) = (self.shared.place(id), self.shared.info.isolation.ids);
        root::prepare(
            &leased,
            id.as_str(),
            plan,
            &place,
            &self.shared.users,
            mapping,
            self.shared.disks.as_ref(),
        )
        .await
    }

    async fn furnish(
        &self,
        id: &ContainerId,
        executor: &ElementId,
        ids: Option<IdRange>,
        primary: &ProcessPlan,
    ) {
        lifecycle::furnish(&self.shared, id, executor, ids, primary).await;
    }

    async fn remove_root(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        root::remove(&self.shared.client, id.as_str(), &self.shared.place(id)).await
    }

    async fn check_mounts(&self, plan: &ContainerPlan) -> Result<(), RuntimeError> {
        let (shared, plan) = (Arc::clone(&self.shared), plan.clone());
        blocking(move || mounts::check(&shared, &plan)).await
    }

    async fn create_container(
        &self,
        _scope: &Scope,
        plan: &ContainerPlan,
        primary: &ProcessPlan,
    ) -> Result<(), RuntimeError> {
        lifecycle::create_container(&self.shared, plan, primary).await
    }

    async fn delete_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        lifecycle::delete_container(&self.shared, id).await
    }

    async fn create_process(&self, plan: &ProcessPlan) -> Result<(), RuntimeError> {
        let _starting = self.shared.moves.expect();
        lifecycle::create_process(&self.shared, plan).await
    }

    async fn start_process(&self, id: &ProcessId, _primary: bool) -> Result<(), RuntimeError> {
        let _starting = self.shared.moves.expect();
        let tracked = self.known("start process", id).await?;
        lifecycle::start_process(&self.shared, &tracked).await
    }

    async fn wait_process(
        &self,
        id: &ProcessId,
        _primary: bool,
    ) -> Result<ProcessExit, RuntimeError> {
        match self.tracked(id).await? {
            Some(tracked) => Ok(tracked.ended().await),
            None => Ok(lifecycle::lost()),
        }
    }

    async fn delete_process(
        &self,
        id: &ProcessId,
        primary: bool,
        force: bool,
    ) -> Result<(), RuntimeError> {
        lifecycle::delete_process(&self.shared, id, primary, force).await
    }

    async fn signal(
        &self,
        id: &ProcessId,
        primary: bool,
        signal: i32,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError> {
        let Some(tracked) = self.tracked(id).await? else {
            return Ok(Delivery::NotRunning);
        };
        if tracked.exit().is_some() && (scope == SignalScope::Process || !primary) {
            return Ok(Delivery::AlreadyExited);
        }
        let all = scope == SignalScope::All;
        // What goes to init alone is meant for the task it started.
        let passed_on = match signal {
            9 if primary && !all => KILL_BY_INIT,
            19 if primary && !all => STOP_BY_INIT,
            other => other,
        };
        let number = u32::try_from(passed_on).map_err(|_| {
            RuntimeError::new(
                RuntimeErrorKind::Internal,
                "signal process",
                id.name.clone(),
                "a signal is a positive number",
            )
        })?;
        let name = Name::new(id, primary || all);
        if process::kill(&self.shared.client, &name, number, all).await? {
            // A frozen container does not die, and its init passes nothing on.
            if signal == 9 {
                self.set_paused(&id.container, false).await?;
            }
            Ok(Delivery::Delivered)
        } else if tracked.exit().is_some()
            || process::get(&self.shared.client, &name).await?.is_some()
        {
            Ok(Delivery::AlreadyExited)
        } else {
            Ok(Delivery::NotRunning)
        }
    }

    async fn set_paused(&self, id: &ContainerId, paused: bool) -> Result<Delivery, RuntimeError> {
        let name = Name {
            container: id.as_str().to_owned(),
            exec: String::new(),
        };
        match process::get(&self.shared.client, &name)
            .await?
            .map(|process| process.status())
        {
            Some(EngineState::Stopped) => Ok(Delivery::AlreadyExited),
            // Repeating it is no error.
            Some(EngineState::Paused) if paused => Ok(Delivery::Delivered),
            Some(EngineState::Running) if !paused => Ok(Delivery::Delivered),
            Some(EngineState::Running | EngineState::Paused | EngineState::Pausing) => {
                let there = process::set_paused(&self.shared.client, id.as_str(), paused).await?;
                Ok(if there {
                    Delivery::Delivered
                } else {
                    Delivery::NotRunning
                })
            }
            _ => Ok(Delivery::NotRunning),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        let (layout, group) = (self.shared.layout.clone(), self.shared.cgroup(id));
        let read = tokio::task::spawn_blocking(move || layout.stats(&group)).await;
        read.map_err(|error| {
            RuntimeError::new(
                RuntimeErrorKind::Internal,
                "read cgroup of",
                id.as_str(),
                error.to_string(),
            )
        })
    }

    async fn process_state(
        &self,
        id: &ProcessId,
        primary: bool,
    ) -> Result<ProcessState, RuntimeError> {
        let Some(tracked) = self.tracked(id).await? else {
            return Ok(ProcessState::Unknown);
        };
        let process = process::get(&self.shared.client, &Name::new(id, primary)).await?;
        Ok(self.state_of(&tracked, process).await)
    }

    async fn attach_mount(&self, id: &ContainerId, mount: &MountPlan) -> Result<(), RuntimeError> {
        let pid = self.init_pid("attach mount to", id).await?;
        mounts::attach(&self.shared, id, pid, mount).await
    }

    async fn detach_mount(&self, id: &ContainerId, target: &str) -> Result<(), RuntimeError> {
        let pid = match self.init_pid("detach mount from", id).await {
            // Its mounts went with it.
            Err(error)
                if matches!(
                    error.kind,
                    RuntimeErrorKind::NotFound | RuntimeErrorKind::State
                ) =>
            {
                return Ok(());
            }
            other => other?,
        };
        let target = target.to_owned();
        blocking(move || {
            live::detach(pid, &target).map_err(mounts::live_error("detach mount", &target))
        })
        .await
    }

    async fn inside(&self, id: &ContainerId) -> Result<Inside, RuntimeError> {
        let pid = self.init_pid("look into", id).await?;
        let oom_kills = crate::exits::usage(&self.shared.layout, &self.shared.cgroup(id))
            .await
            .oom_kills;
        let object = id.as_str().to_owned();
        blocking(move || inside::open(pid, oom_kills).map_err(failed("look into", object))).await
    }

    async fn connect(&self, id: &ContainerId, plan: &BridgePlan) -> Result<(), RuntimeError> {
        let pid = self.init_pid("connect", id).await?;
        let (shared, id, plan) = (Arc::clone(&self.shared), id.clone(), plan.clone());
        blocking(move || {
            let keep = shared.place(&id).network();
            let connected = shared.networks.connect(&id, pid, &keep, &plan);
            connected.map_err(|error| error.of("connect", id.as_str()))
        })
        .await
    }

    async fn disconnect(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        blocking(move || lifecycle::disconnect(&shared, &id)).await
    }

    async fn forget_network(&self, network: &ElementId) -> Result<(), RuntimeError> {
        let (shared, network) = (Arc::clone(&self.shared), network.clone());
        blocking(move || {
            let forgotten = shared.networks.forget(&network);
            forgotten.map_err(|error| error.of("remove", network.as_str()))
        })
        .await
    }

    fn allows_log(&self, log: &LogSpec) -> Result<(), String> {
        output::allows(&self.shared.log_destinations, log)
    }

    async fn restore_networks(
        &self,
        connected: &[(ContainerId, BridgePlan)],
    ) -> Result<(), RuntimeError> {
        let mut pids = BTreeMap::new();
        for (id, _) in connected {
            // One that has ended needs no connection: its end is about to be seen.
            if let Ok(pid) = self.init_pid("restore the network of", id).await {
                pids.insert(id.clone(), pid);
            }
        }
        let (shared, connected) = (Arc::clone(&self.shared), connected.to_vec());
        blocking(move || {
            let restored = shared.networks.restore(&connected, &pids);
            restored.map_err(|error| error.of("restore", "networks"))
        })
        .await
    }

    async fn write_stdin(
        &self,
        id: &ProcessId,
        _primary: bool,
        input: InputStream,
    ) -> Result<(), RuntimeError> {
        let tracked = self.known("write to", id).await?;
        input::write(&self.shared, &tracked, input).await
    }

    async fn resize(
        &self,
        id: &ProcessId,
        primary: bool,
        columns: u16,
        rows: u16,
    ) -> Result<(), RuntimeError> {
        process::resize(&self.shared.client, &Name::new(id, primary), columns, rows).await
    }

    async fn logs(&self, query: &LogQuery) -> Result<LogReader, RuntimeError> {
        Ok(reader(&self.shared.logs, query))
    }

    async fn log_progress(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> Result<Vec<LogProgress>, RuntimeError> {
        let (shared, executor, task) = (Arc::clone(&self.shared), executor.clone(), task.clone());
        blocking(move || {
            let found = shared.forwarders.progress(&executor, &task);
            found.map_err(failed("read the progress of logs of", task.to_string()))
        })
        .await
    }

    fn log_figures(&self) -> LogFigures {
        self.shared.logs.figures()
    }

    async fn remove_logs(&self, executor: &ElementId) -> Result<(), RuntimeError> {
        self.shared.forwarders.end(executor).await;
        let (shared, executor) = (Arc::clone(&self.shared), executor.clone());
        blocking(move || {
            shared
                .logs
                .remove(&executor)
                .map_err(failed("remove logs of", executor.to_string()))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<FoundContainer>, RuntimeError> {
        let mut found = Vec::new();
        let processes = process::list(&self.shared.client).await?;
        for container in container::list(&self.shared.client).await? {
            let Some(executor) = container.labels.get(container::EXECUTOR) else {
                continue;
            };
            let id = ContainerId::from_engine(container.id);
            let place = self.shared.place(&id);
            let record = blocking(move || {
                place
                    .read()
                    .map_err(failed("read the record of", "container"))
            })
            .await?;
            let process = processes
                .iter()
                .find(|process| process.id == id.as_str())
                .cloned();
            let tracked = match record {
                Some(record) => {
                    self.tracked(&ProcessId {
                        container: id.clone(),
                        name: record.primary,
                    })
                    .await?
                }
                None => None,
            };
            let primary = match (tracked, process) {
                (Some(tracked), process) => Some(self.state_of(&tracked, process).await),
                (None, Some(_)) => Some(ProcessState::Unknown),
                (None, None) => None,
            };
            found.push(FoundContainer {
                id,
                executor: executor.parse().ok(),
                primary,
            });
        }
        let half_made = self.half_made(&found).await?;
        found.extend(half_made.into_iter().map(FoundContainer::half_made));
        Ok(found)
    }

    async fn purge(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        lifecycle::purge(&self.shared, id).await
    }

    async fn audit(&self) -> Result<Vec<Finding>, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        let mut found = audit::audit(&shared.client, &shared.places, &shared.layout).await?;
        let networks = blocking(move || {
            let networks = shared.networks.audit();
            networks.map_err(|error| error.of("list", "networks"))
        })
        .await?;
        found.extend(networks);
        found.sort();
        Ok(found)
    }

    async fn sweep(&self, leak: &Finding) -> Result<(), RuntimeError> {
        lifecycle::sweep(&self.shared, leak).await
    }

    fn state_dir(&self) -> PathBuf {
        self.shared.places.directory.clone()
    }
}
