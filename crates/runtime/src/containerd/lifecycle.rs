//! The verbs that make and remove containers and processes.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use containerd_client::types::v1::Status as EngineState;
use oci_spec::runtime::Process;
use portlayer::{
    element::ElementId,
    runtime::{
        ContainerId, ContainerPlan, Finding, FindingClass, IdRange, OutputPlan, ProcessExit,
        ProcessId, ProcessPlan, RuntimeError, RuntimeErrorKind, Scope,
    },
    store::Access,
    task::ExitReason,
    time::Timestamp,
};

use super::{
    Shared, output,
    tracked::{Tracked, lock},
};
use crate::{
    container,
    cwd::{self, Owner},
    engine::end_shim_of,
    error::failed,
    exits, lease, live, network,
    network::files::NameFile,
    options,
    place::{ContainerPlace, ContainerRecord, Hidden, ProcessPlace, ProcessRecord},
    process::{self, Name},
    rlimits,
    root::{self, blocking, error_text},
    status::Word,
    users::{self, UserError},
};

/// How long the processes of a container may take to leave its cgroup after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long init may take to end after it said that it does.
const INIT_LIMIT: Duration = Duration::from_secs(1);

/// How long init may take to say that the program runs. It is an execve away.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The OCI process with the user filled in from the root's own files. Blocks.
fn with_user(
    plan: &ProcessPlan,
    place: &ContainerPlace,
    ids: Option<IdRange>,
) -> Result<(Process, Owner), RuntimeError> {
    let object = plan.task.to_string();
    let directory =
        users::open_root(&place.root()).map_err(failed("open root for", object.clone()))?;
    let user = users::look_up(directory.as_fd(), &plan.user_text).map_err(|error| {
        let kind = match error {
            UserError::Unknown { .. } => RuntimeErrorKind::UnknownUser,
            UserError::File(..) => RuntimeErrorKind::Internal,
        };
        RuntimeError::new(kind, "look up the user of", object, error_text(&error))
    })?;
    let outside = |id: &u32| ids.is_some_and(|ids| ids.host(*id).is_none());
    if let Some(id) = [user.uid, user.gid]
        .iter()
        .chain(&user.groups)
        .find(|id| outside(id))
    {
        let text = format!("id {id} is above what an executor has");
        return Err(RuntimeError::new(
            RuntimeErrorKind::UnknownUser,
            "look up the user of",
            plan.task.to_string(),
            text,
        ));
    }
    let mut process = plan.process.clone();
    let mut oci = process.user().clone();
    // Groups the caller asked for come on top of those of the image.
    let mut groups = user.groups;
    groups.extend(oci.additional_gids().clone().unwrap_or_default());
    groups.sort_unstable();
    groups.dedup();
    oci.set_uid(user.uid);
    oci.set_gid(user.gid);
    oci.set_additional_gids((!groups.is_empty()).then_some(groups));
    process.set_user(oci);
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        let without_entry = if user.uid == 0 { "/root" } else { "/" };
        let home = user.home.as_deref().unwrap_or(without_entry);
        environment.push(format!("HOME={home}"));
        process.set_env(Some(environment));
    }
    rlimits::fit(&mut process);
    let owner = Owner {
        uid: user.uid,
        gid: user.gid,
    };
    Ok((process, owner))
}

/// The container's files about names, but for those its read-only root has no place for. Blocks.
fn name_files(plan: &ContainerPlan, place: &ContainerPlace) -> Result<Vec<NameFile>, RuntimeError> {
    let object = || plan.executor.to_string();
    let mut files = network::files::make(place.directory(), &plan.network)
        .map_err(failed("make the name files of", object()))?;
    if plan.root.access == Access::ReadOnly && !files.is_empty() {
        let root = users::open_root(&place.root()).map_err(failed("open root of", object()))?;
        files.retain(|file| root::stat(root.as_fd(), file.target).is_ok());
    }
    Ok(files)
}

fn token() -> Result<String, RuntimeError> {
    let mut bytes = [0u8; 16];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").map_err(failed("open", "/dev/urandom"))?,
        &mut bytes,
    )
    .map_err(failed("read", "/dev/urandom"))?;
    Ok(hex::encode(bytes))
}

pub(super) async fn create_container(
    shared: &Arc<Shared>,
    plan: &ContainerPlan,
    primary: &ProcessPlan,
) -> Result<(), RuntimeError> {
    let place = shared.place(&plan.id);
    let (all, whole, first) = (Arc::clone(shared), plan.clone(), primary.clone());
    let spec = blocking(move || {
        let object = || whole.executor.to_string();
        let (process, owner) = with_user(&first, &place, whole.root.ids)?;
        if let Err(errno) = cwd::prepare(&whole, &place.root(), process.cwd(), owner) {
            tracing::debug!(%errno, task = %first.task, "the working directory cannot be made");
        }
        let existing = place
            .read()
            .map_err(failed("read the record of", object()))?;
        // The secret of a container that is there already must stay what its init was given.
        let record = match existing {
            Some(record) => record,
            None => place_of_new(&all, &whole.id, &whole.executor, whole.root.ids, &first)?,
        };
        let cgroup = all.cgroup(&whole.id);
        let files = name_files(&whole, &place)?;
        let (init, cgroup) = (&all.init, &cgroup);
        container::complete(&whole, process, &place, &files, &record, init, cgroup)
    })
    .await?;
    portlayer::crash::point("engine.before-container");
    let shim = shared.shim(plan.root.ids);
    let created = container::create(&shared.client, plan, &spec, shim).await;
    portlayer::crash::point("engine.after-container");
    created
}

/// The private directory of a container that has none yet. Blocks.
fn place_of_new(
    shared: &Shared,
    id: &ContainerId,
    executor: &ElementId,
    ids: Option<IdRange>,
    primary: &ProcessPlan,
) -> Result<ContainerRecord, RuntimeError> {
    let (place, object) = (shared.place(id), executor.to_string());
    let record = ContainerRecord {
        executor: executor.clone(),
        primary: primary.id.name.clone(),
        token: token()?,
        ids,
    };
    place
        .prepare()
        .map_err(failed("make the directory of", object.clone()))?;
    // Before the record, which says that all is there.
    crate::io::make_fifo(&place.status(), 0o622)
        .map_err(failed("make the status of", object.clone()))?;
    place
        .write(&record)
        .map_err(failed("write the record of", object))?;
    Ok(record)
}

/// The container's directory and its primary's streams, where there is none yet.
pub(super) async fn furnish(
    shared: &Arc<Shared>,
    id: &ContainerId,
    executor: &ElementId,
    ids: Option<IdRange>,
    primary: &ProcessPlan,
) {
    let (all, id, executor, plan) = (
        Arc::clone(shared),
        id.clone(),
        executor.clone(),
        primary.clone(),
    );
    let made = blocking(move || {
        let found = all.place(&id).read();
        // Of a container that is there already the streams may be in use.
        if found
            .map_err(failed("read the record of", executor.to_string()))?
            .is_some()
        {
            return Ok(None);
        }
        place_of_new(&all, &id, &executor, ids, &plan)?;
        open_streams(&all, &plan).map(Some)
    })
    .await;
    match made {
        Ok(Some(tracked)) => {
            lock(&shared.tracked).insert(primary.id.clone(), tracked);
        }
        Ok(None) => {}
        // What is missing is made again, and its fault told, when container and process are created.
        Err(error) => tracing::debug!(%error, text = error.text, "not made ahead"),
    }
}

/// Takes a container from its network. Idempotent. Blocks.
pub(super) fn disconnect(shared: &Shared, id: &ContainerId) -> Result<(), RuntimeError> {
    let disconnected = shared.networks.disconnect(id, &shared.place(id).network());
    disconnected.map_err(|error| error.of("disconnect", id.as_str()))
}

pub(super) async fn delete_container(
    shared: &Arc<Shared>,
    id: &ContainerId,
) -> Result<(), RuntimeError> {
    container::delete(&shared.client, id.as_str()).await?;
    portlayer::crash::point("engine.after-delete-container");
    lock(&shared.tracked).retain(|process, _| process.container != *id);
    let (all, id) = (Arc::clone(shared), id.clone());
    blocking(move || {
        all.layout
            .remove(&all.cgroup(&id), KILL_LIMIT)
            .map_err(failed("remove cgroup of", id.as_str()))?;
        let place = all.place(&id);
        // The root has a verb of its own, which comes later and needs the directory still.
        disconnect(&all, &id)?;
        for entry in ["p", "parts", "etc"] {
            let directory = place.directory().join(entry);
            crate::host::unmount_below(&directory).map_err(failed("unmount below", id.as_str()))?;
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove", id.as_str())(error));
                }
                _ => {}
            }
        }
        for entry in ["status", "word", "container.json"] {
            match std::fs::remove_file(place.directory().join(entry)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove", id.as_str())(error));
                }
                _ => {}
            }
        }
        // Empty now unless the root is still mounted; then remove_root takes it.
        let _ = std::fs::remove_dir(place.directory());
        Ok(())
    })
    .await
}

/// Makes the streams of a new process, before containerd hears of it. Blocks.
fn open_streams(shared: &Shared, plan: &ProcessPlan) -> Result<Arc<Tracked>, RuntimeError> {
    let place = shared.place(&plan.id.container);
    let Some(owner) = place
        .read()
        .map_err(failed("read the record of", plan.id.container.as_str()))?
    else {
        return Err(RuntimeError::new(
            RuntimeErrorKind::NotFound,
            "create process in",
            plan.id.container.as_str(),
            "no such container",
        ));
    };
    let usage = shared.layout.usage(&shared.cgroup(&plan.id.container));
    let record = ProcessRecord {
        executor: owner.executor,
        task: plan.task.clone(),
        primary: plan.primary,
        terminal: plan.process.terminal().unwrap_or(false),
        stdin: plan.stdin,
        log_stdout: plan.stdout != OutputPlan::Discard,
        log_stderr: plan.stderr != OutputPlan::Discard,
        sinks: output::usable(shared, plan)?,
        redact: Hidden(
            plan.redact
                .iter()
                .map(|secret| secret.value.clone())
                .collect(),
        ),
        oom_kills_before: usage.oom_kills,
    };
    let required = plan.stdout == OutputPlan::Required || plan.stderr == OutputPlan::Required;
    match Tracked::create(shared, &plan.id, record.clone()) {
        Err(error) if !required => {
            tracing::warn!(%error, text = error.text, "output is not stored");
            let silent = ProcessRecord {
                log_stdout: false,
                log_stderr: false,
                sinks: Vec::new(),
                ..record
            };
            Tracked::create(shared, &plan.id, silent)
        }
        other => other,
    }
}

pub(super) async fn create_process(
    shared: &Arc<Shared>,
    plan: &ProcessPlan,
) -> Result<(), RuntimeError> {
    // The primary's streams were made with its container.
    let early = lock(&shared.tracked).get(&plan.id).cloned();
    let (all, whole) = (Arc::clone(shared), plan.clone());
    let (tracked, process, ids) = blocking(move || {
        let tracked = match early {
            Some(tracked) => tracked,
            None => open_streams(&all, &whole)?,
        };
        let place = all.place(&whole.id.container);
        let owner = place
            .read()
            .map_err(failed("read the record of", whole.id.container.as_str()))?;
        let ids = owner.and_then(|owner| owner.ids);
        // The primary's is part of the container's record already.
        let process = match whole.primary {
            true => None,
            false => Some(with_user(&whole, &place, ids)?),
        };
        Ok((tracked, process, ids))
    })
    .await?;
    portlayer::crash::point("engine.before-process");
    let made = match process {
        None => {
            process::create(
                &shared.client,
                plan.id.container.as_str(),
                tracked.streams(),
                shared.options(ids),
            )
            .await
        }
        Some((process, owner)) => {
            make_cwd(shared, plan, &process, owner.seen(ids)).await?;
            let any = options::process_any(&process).map_err(|error| {
                RuntimeError::new(
                    RuntimeErrorKind::Internal,
                    "encode",
                    plan.task.to_string(),
                    error.to_string(),
                )
            })?;
            process::exec(&shared.client, &tracked.name(), tracked.streams(), any).await
        }
    };
    portlayer::crash::point("engine.after-process");
    if let Err(error) = made {
        if error.kind != RuntimeErrorKind::AlreadyExists {
            let place = tracked.place.clone();
            lock(&shared.tracked).remove(&plan.id);
            drop(tracked);
            blocking(move || {
                place
                    .remove()
                    .map_err(failed("remove", "process directory"))
            })
            .await?;
        }
        return Err(error);
    }
    lock(&shared.tracked).insert(plan.id.clone(), tracked);
    Ok(())
}

/// Makes the working directory of a further process, in the running container. Where that is not possible the OCI runtime says why.
async fn make_cwd(
    shared: &Arc<Shared>,
    plan: &ProcessPlan,
    process: &Process,
    owner: Owner,
) -> Result<(), RuntimeError> {
    // The root is there; to ask who runs in it takes longer than all else that is done before a start.
    if process.cwd().as_os_str() == "/" {
        return Ok(());
    }
    let name = Name {
        container: plan.id.container.as_str().to_owned(),
        exec: String::new(),
    };
    let Some(first) = process::get(&shared.client, &name).await? else {
        return Ok(());
    };
    let path = process.cwd().clone();
    let made = tokio::task::spawn_blocking(move || live::make_directory(first.pid, &path, owner));
    if let Ok(Err(error)) = made.await {
        tracing::debug!(%error, task = %plan.task, "the working directory cannot be made");
    }
    Ok(())
}

pub(super) async fn start_process(
    shared: &Arc<Shared>,
    tracked: &Arc<Tracked>,
) -> Result<(), RuntimeError> {
    let name = tracked.name();
    let Some(status) = &tracked.status else {
        process::start(&shared.client, &name).await?;
        tracked.wait_in_background(shared);
        tracked.release_stdin();
        return Ok(());
    };
    let mut word = status.subscribe();
    // Waited for before it is started: the answer is under way when it ends.
    tracked.wait_in_background(shared);
    process::start(&shared.client, &name).await?;
    tracked.release_stdin();
    let said = async {
        tokio::select! {
            word = word.wait_for(|word| *word != Word::Nothing) => word.map_or(Word::Nothing, |word| *word),
            // It can end before its word is read.
            _ = tracked.ended() => status.now(),
        }
    };
    let object = tracked.record.task.to_string();
    match tokio::time::timeout(START_LIMIT, said).await {
        Ok(Word::Failed(errno)) => {
            let kind = if matches!(errno, 2 | 20) {
                RuntimeErrorKind::ExecutableNotFound
            } else {
                RuntimeErrorKind::NotExecutable
            };
            let text = std::io::Error::from_raw_os_error(errno).to_string();
            Err(RuntimeError::new(kind, "start", object, text))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError::new(
            RuntimeErrorKind::Timeout,
            "start",
            object,
            "init did not say that it runs",
        )),
    }
}

pub(super) async fn delete_process(
    shared: &Arc<Shared>,
    id: &ProcessId,
    primary: bool,
    force: bool,
) -> Result<(), RuntimeError> {
    let name = Name::new(id, primary);
    let tracked = lock(&shared.tracked).get(id).cloned();
    portlayer::crash::point("engine.before-kill");
    let ended = tracked
        .as_ref()
        .is_some_and(|tracked| tracked.exit().is_some());
    if primary {
        let ends = tracked
            .as_ref()
            .and_then(|tracked| tracked.status.as_ref())
            .is_some_and(|status| status.init_ends());
        // It is about to end by itself, which is cheaper than being killed.
        let wait = process::wait(&shared.client, &name);
        if !ends || !matches!(tokio::time::timeout(INIT_LIMIT, wait).await, Ok(Ok(_))) {
            let found = process::get(&shared.client, &name).await?;
            let created = found
                .as_ref()
                .is_some_and(|process| process.status() == EngineState::Created);
            // Further tasks may go on in its container; the container ends with the primary's deletion.
            if let (Some(found), true) = (found, force || ended || created) {
                process::end(&shared.client, &name, &found).await?;
            }
        }
    } else if force && !ended && !is_only_created(shared, &name).await? {
        process::kill(&shared.client, &name, 9, false).await?;
        let ended = tokio::time::timeout(KILL_LIMIT, exits::wait(&shared.client, &name)).await;
        if ended.is_err() {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Timeout,
                "kill",
                id.name.clone(),
                "it does not end",
            ));
        }
    }
    portlayer::crash::point("engine.before-delete");
    process::delete(&shared.client, &name).await?;
    portlayer::crash::point("engine.after-delete");
    lock(&shared.tracked).remove(id);
    let (all, id) = (Arc::clone(shared), id.clone());
    blocking(move || {
        if primary {
            let container = id.container.as_str();
            all.places
                .remove_shim_socket(container)
                .map_err(failed("remove the socket of", container))?;
        }
        ProcessPlace::of(&all.places, &id)
            .remove()
            .map_err(failed("remove the directory of", id.name))
    })
    .await
}

/// Whether a process was made and never started: it has no end to wait for.
async fn is_only_created(shared: &Shared, name: &Name) -> Result<bool, RuntimeError> {
    let found = process::get(&shared.client, name).await?;
    Ok(found.is_some_and(|process| process.status() == EngineState::Created))
}

/// Removes everything a name stands for, whatever is there.
pub(super) async fn purge(shared: &Arc<Shared>, id: &ContainerId) -> Result<(), RuntimeError> {
    let client = &shared.client;
    let name = Name {
        container: id.as_str().to_owned(),
        exec: String::new(),
    };
    let is_listed = process::list(client)
        .await?
        .iter()
        .any(|process| process.id == id.as_str() || process.container_id == id.as_str());
    if is_listed {
        container::create_stand_in(client, id.as_str(), shared.shim(None)).await?;
        process::end_container(client, id.as_str()).await?;
        process::delete(client, &name).await?;
    }
    let (all, of) = (Arc::clone(shared), id.clone());
    blocking(move || {
        end_shim_of(&all.places, of.as_str()).map_err(failed("end the shim of", of.as_str()))
    })
    .await?;
    delete_container(shared, id).await?;
    root::remove(client, id.as_str(), &shared.place(id)).await?;
    for scope in lease::list(client).await? {
        if Scope::container_of(&scope).as_ref() == Some(id) {
            lease::delete(client, &scope, true).await?;
        }
    }
    let (all, id) = (Arc::clone(shared), id.clone());
    blocking(move || {
        all.places
            .remove_shim_socket(id.as_str())
            .map_err(failed("remove the socket of", id.as_str()))?;
        all.place(&id)
            .remove()
            .map_err(failed("remove the directory of", "container"))
    })
    .await
}

/// Removes what was found of a container, a commit or an executor that is no more.
pub(super) async fn sweep(shared: &Arc<Shared>, leak: &Finding) -> Result<(), RuntimeError> {
    match (leak.class, leak.container()) {
        // Without it the layers of a half-made image are collected, now and not some time.
        (FindingClass::Lease, of) => lease::delete(&shared.client, &leak.name, of.is_none()).await,
        (FindingClass::Log, _) => {
            let (all, name) = (Arc::clone(shared), leak.name.clone());
            blocking(move || {
                all.logs
                    .remove_named(&name)
                    .map_err(failed("remove the log", name))
            })
            .await
        }
        // Its mount and its snapshot: nothing of it runs.
        (FindingClass::Snapshot | FindingClass::Mount, Some(id)) => {
            root::remove(&shared.client, id.as_str(), &shared.place(&id)).await
        }
        (_, Some(id)) => purge(shared, &id).await,
        // Layers, content and ingests are collected by containerd when no lease keeps them.
        (_, None) => Ok(()),
    }
}

/// The end of a process nobody knows.
pub(super) fn lost() -> ProcessExit {
    ProcessExit {
        reason: ExitReason::Lost,
        code: None,
        signal: None,
        exited: Timestamp::now(),
        cpu_ns: None,
        memory_peak_bytes: None,
    }
}
