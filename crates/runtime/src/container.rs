//! Records of containers in containerd.

use std::collections::HashMap;

use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest,
    container::Runtime,
};
use oci_spec::runtime::{Mount, MountBuilder, Process, Root, Spec};
use portlayer::{
    runtime::{ContainerPlan, MountPlan, RuntimeError, RuntimeErrorKind},
    store::{Access, MountSource},
};
use prost_types::Any;

use crate::{
    client::Client,
    error::{is_missing, refused},
    init,
    network::files::NameFile,
    options,
    place::{ContainerPlace, ContainerRecord},
    probe::SNAPSHOTTER,
};

/// Label with the executor's id: by it audit and recovery find the owner.
pub(crate) const EXECUTOR: &str = "portlayer.executor";
/// Label with the executor's revision.
pub(crate) const REVISION: &str = "portlayer.revision";

/// Completes the specification of a container: root, process behind init, volumes, cgroup.
pub(crate) fn complete(
    plan: &ContainerPlan,
    process: Process,
    place: &ContainerPlace,
    files: &[NameFile],
    record: &ContainerRecord,
    init_binary: &std::path::Path,
    cgroup: &str,
) -> Result<Spec, RuntimeError> {
    let invalid = |error: oci_spec::OciSpecError| {
        RuntimeError::new(
            RuntimeErrorKind::Internal,
            "complete the specification of",
            plan.executor.to_string(),
            error.to_string(),
        )
    };
    let mut spec = plan.spec.clone();
    let mut root = Root::default();
    root.set_path(place.root());
    root.set_readonly(Some(plan.root.access == Access::ReadOnly));
    spec.set_root(Some(root));
    spec.set_process(Some(behind_init(process, &record.token, plan.several)));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    // Before the volumes: one that is mounted there wins.
    for file in files {
        let options = ["ro", "nosuid", "nodev", "noexec"];
        mounts.push(bind(&file.source, file.target, &options).map_err(invalid)?);
    }
    for (number, mount) in plan.mounts.iter().enumerate() {
        let apart = mount.sub_path.is_some() || plan.root.ids.is_some();
        mounts.push(volume(mount, number, place, apart).map_err(invalid)?);
    }
    mounts.push(bind(init_binary, init::TARGET, &["ro", "nosuid", "nodev"]).map_err(invalid)?);
    mounts.push(
        bind(
            &place.status(),
            init::STATUS_TARGET,
            &["nosuid", "noexec", "nodev"],
        )
        .map_err(invalid)?,
    );
    spec.set_mounts(Some(mounts));
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(cgroup.into()));
    } else {
        return Err(RuntimeError::new(
            RuntimeErrorKind::Internal,
            "complete the specification of",
            plan.executor.to_string(),
            "it has no linux part",
        ));
    }
    Ok(spec)
}

/// The same process as the child of init.
fn behind_init(mut process: Process, token: &str, keep: bool) -> Process {
    let mut arguments = vec![init::TARGET.to_owned()];
    arguments.extend(keep.then(|| "--keep".to_owned()));
    arguments.push("--".to_owned());
    arguments.extend(process.args().clone().unwrap_or_default());
    process.set_args(Some(arguments));
    let mut environment = process.env().clone().unwrap_or_default();
    environment.push(format!("PORTLAYER_STATUS={}", init::STATUS_TARGET));
    environment.push(format!("PORTLAYER_TOKEN={token}"));
    process.set_env(Some(environment));
    process
}

fn volume(
    plan: &MountPlan,
    number: usize,
    place: &ContainerPlace,
    apart: bool,
) -> Result<Mount, oci_spec::OciSpecError> {
    let access = match plan.access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
    };
    match &plan.source {
        MountSource::Path(_) if apart => bind(
            &place.part(number),
            &plan.target,
            &[access, "nosuid", "nodev"],
        ),
        MountSource::Path(path) => bind(path, &plan.target, &[access, "nosuid", "nodev"]),
        MountSource::Tmpfs { size_bytes, mode } => {
            let mut options = vec![
                access.to_owned(),
                "nosuid".to_owned(),
                "nodev".to_owned(),
                format!("mode={mode:o}"),
            ];
            if *size_bytes > 0 {
                options.push(format!("size={size_bytes}"));
            }
            MountBuilder::default()
                .destination(&plan.target)
                .typ("tmpfs")
                .source("tmpfs")
                .options(options)
                .build()
        }
    }
}

fn bind(
    source: &std::path::Path,
    target: &str,
    further: &[&str],
) -> Result<Mount, oci_spec::OciSpecError> {
    let options: Vec<String> = ["rbind", "rprivate"]
        .iter()
        .chain(further)
        .map(|&option| option.to_owned())
        .collect();
    MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(options)
        .build()
}

/// Creates the record; it keeps the snapshot from the garbage collector from then on.
pub(crate) async fn create(
    client: &Client,
    plan: &ContainerPlan,
    spec: &Spec,
    runtime: Runtime,
) -> Result<(), RuntimeError> {
    let object = plan.executor.to_string();
    let spec = options::spec_any(spec).map_err(|error| {
        RuntimeError::new(
            RuntimeErrorKind::Internal,
            "encode the specification of",
            object.clone(),
            error.to_string(),
        )
    })?;
    let labels = HashMap::from([
        (EXECUTOR.to_owned(), plan.executor.to_string()),
        (REVISION.to_owned(), plan.revision.to_string()),
    ]);
    let container = Container {
        id: plan.id.as_str().to_owned(),
        labels,
        runtime: Some(runtime),
        spec: Some(spec),
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: plan.id.as_str().to_owned(),
        ..Container::default()
    };
    client
        .containers()
        .create(CreateContainerRequest {
            container: Some(container),
        })
        .await
        .map(drop)
        .map_err(refused("create container of", object))
}

/// Creates a record without content. A process whose record was deleted cannot be reached in any way but through a new record of the
/// same name (reference/reliability.md finding 3).
pub(crate) async fn create_stand_in(
    client: &Client,
    id: &str,
    runtime: Runtime,
) -> Result<(), RuntimeError> {
    let container = Container {
        id: id.to_owned(),
        runtime: Some(runtime),
        spec: Some(Any {
            type_url: String::new(),
            value: b"{}".to_vec(),
        }),
        ..Container::default()
    };
    match client
        .containers()
        .create(CreateContainerRequest {
            container: Some(container),
        })
        .await
    {
        Err(status) if status.code() == containerd_client::tonic::Code::AlreadyExists => Ok(()),
        other => other.map(drop).map_err(refused("create container", id)),
    }
}

/// Deletes the record. Idempotent.
pub(crate) async fn delete(client: &Client, id: &str) -> Result<(), RuntimeError> {
    match client
        .containers()
        .delete(DeleteContainerRequest { id: id.to_owned() })
        .await
    {
        Err(status) if is_missing(&status) => Ok(()),
        other => other.map(drop).map_err(refused("delete container", id)),
    }
}

/// Every container of the namespace.
pub(crate) async fn list(client: &Client) -> Result<Vec<Container>, RuntimeError> {
    let answer = client
        .containers()
        .list(ListContainersRequest {
            filters: Vec::new(),
        })
        .await;
    Ok(answer
        .map_err(refused("list", "containers"))?
        .into_inner()
        .containers)
}
