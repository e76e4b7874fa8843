//! Mounts of volumes: checked and made before a container starts, attached while it runs.

use std::{os::fd::AsFd, sync::Arc};

use portlayer::{
    runtime::{ContainerId, ContainerPlan, MountPlan, RuntimeError, RuntimeErrorKind},
    store::{Access, MountSource},
};

use super::Shared;
use crate::{
    cwd::Owner,
    error::failed,
    live::{self, LiveError},
    parts,
    root::{self, blocking, error_text},
    users,
};

/// Looks at the root, then fills copy-up volumes and mounts parts of volumes. Blocks.
pub(super) fn check(shared: &Shared, plan: &ContainerPlan) -> Result<(), RuntimeError> {
    let (place, ids) = (shared.place(&plan.id), plan.root.ids);
    let users = ids.map(|ids| shared.users.of(ids)).transpose();
    let users = users.map_err(failed(
        "make user name space for",
        plan.executor.to_string(),
    ))?;
    let directory = users::open_root(&place.root())
        .map_err(failed("open root of", plan.executor.to_string()))?;
    root::check(plan, directory.as_fd())?;
    for mount in plan.mounts.iter().filter(|mount| mount.copy_up) {
        parts::copy_up(&place.root(), mount, ids)?;
    }
    for (number, mount) in plan.mounts.iter().enumerate() {
        let part = mount.sub_path.as_deref();
        if let (MountSource::Path(source), true) = (&mount.source, part.is_some() || ids.is_some())
        {
            let users = users.as_ref().map(|users| users.as_fd());
            parts::mount_part(source, part, users, &place.part(number)).map_err(|error| {
                let kind = RuntimeErrorKind::MountTarget {
                    target: mount.target.clone(),
                    rule: "the volume or its sub path cannot be mounted for the executor's user ids",
                };
                RuntimeError::new(
                    kind,
                    "mount a part of",
                    mount.volume.to_string(),
                    error.to_string(),
                )
            })?;
        }
    }
    Ok(())
}

/// Mounts a volume into the container whose init is `pid` on the host.
pub(super) async fn attach(
    shared: &Arc<Shared>,
    id: &ContainerId,
    pid: u32,
    mount: &MountPlan,
) -> Result<(), RuntimeError> {
    let mount = mount.clone();
    let MountSource::Path(source) = mount.source.clone() else {
        let text = "a fresh tmpfs cannot be attached to a running container";
        return Err(RuntimeError::new(
            RuntimeErrorKind::Unsupported,
            "attach mount",
            mount.volume.to_string(),
            text,
        ));
    };
    let (shared, place) = (Arc::clone(shared), shared.place(id));
    blocking(move || {
        let object = || mount.volume.to_string();
        let record = place
            .read()
            .map_err(failed("read the record of", object()))?;
        let ids = record.and_then(|record| record.ids);
        let users = ids.map(|ids| shared.users.of(ids)).transpose();
        let users = users.map_err(failed("make user name space for", object()))?;
        let users = users.as_ref().map(|users| users.as_fd());
        let (tree, directory) = crate::parts::tree(&source, mount.sub_path.as_deref(), users)
            .map_err(failed("copy the mount of", object()))?;
        // Before anybody sees it, so that a volume that is to be read-only is never writable.
        tree.restrict(mount.access == Access::ReadOnly)
            .map_err(|errno| live_error("attach mount", &mount.target)(errno.into()))?;
        let owner = Owner { uid: 0, gid: 0 }.seen(ids);
        live::attach(pid, &tree, directory, &mount.target, owner)
            .map_err(live_error("attach mount", &mount.target))
    })
    .await
}

pub(super) fn live_error(
    verb: &'static str,
    object: &str,
) -> impl FnOnce(LiveError) -> RuntimeError {
    let object = object.to_owned();
    move |error| {
        let kind = match &error {
            LiveError::Unsupported => RuntimeErrorKind::Unsupported,
            LiveError::Busy => RuntimeErrorKind::Busy,
            LiveError::Target(_) => RuntimeErrorKind::MountTarget {
                target: object.clone(),
                rule: "is missing and cannot be made",
            },
            LiveError::Io(_) => RuntimeErrorKind::Internal,
        };
        RuntimeError::new(kind, verb, object, error_text(&error))
    }
}
