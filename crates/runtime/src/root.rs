//! The root file system of a container: its snapshot, where it is mounted, and what must be true of it.
//!
//! We mount it ourselves, once, and the shim only enters it: so that mount targets and users can be looked at before anything runs.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use containerd_client::{
    services::v1::snapshots::{
        MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
    },
    tonic::Code,
    types::Mount,
};
use portlayer::{
    runtime::{ContainerPlan, IdMapping, MountPlan, RootPlan, RuntimeError, RuntimeErrorKind},
    store::{Access, MountSource, StoreError},
};
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use crate::{
    client::Client,
    error::{failed, is_missing, refused},
    idmap::Users,
    image::KEY_SNAPSHOT,
    mount,
    place::ContainerPlace,
    pool::Pool,
    probe::SNAPSHOTTER,
};

/// Directories the container's own mounts go to. The OCI runtime follows a link there and would write into the host
/// (reference/reliability.md finding 8).
const OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Makes the snapshot, in the scope of the client's lease, and mounts it at `target`. Idempotent.
pub(crate) async fn prepare(
    client: &Client,
    key: &str,
    plan: &RootPlan,
    place: &ContainerPlace,
    host: &Arc<Users>,
    mapping: IdMapping,
    disks: Option<&Arc<Pool>>,
) -> Result<(), RuntimeError> {
    let copied = plan.ids.is_some() && mapping != IdMapping::Mapped;
    let parent = match &plan.image {
        None => String::new(),
        Some(keys) => keys.get(KEY_SNAPSHOT).cloned().ok_or_else(|| {
            RuntimeError::new(
                RuntimeErrorKind::Internal,
                "prepare root",
                key,
                "the image's record names no snapshot",
            )
        })?,
    };
    let (snapshotter, key) = (SNAPSHOTTER.to_owned(), key.to_owned());
    portlayer::crash::point("engine.before-snapshot");
    let mut snapshots = client.snapshots();
    // The name space is made while containerd makes the snapshot.
    let (users, range) = (Arc::clone(host), plan.ids.filter(|_| !copied));
    let object = key.clone();
    let mapped = async {
        let make = move |range| {
            users
                .of(range)
                .map_err(failed("make user name space for", object))
        };
        match range {
            Some(range) => blocking(move || make(range)).await.map(Some),
            None => Ok(None),
        }
    };
    let taken = async {
        match () {
            // An empty root has no directory for the container's own mounts: it stays writable for the OCI runtime, which
            // makes them and then makes the root read-only.
            _ if copied || plan.access == Access::ReadWrite || plan.image.is_none() => {
                let request = PrepareSnapshotRequest {
                    snapshotter: snapshotter.clone(),
                    key: key.clone(),
                    parent,
                    ..Default::default()
                };
                snapshots
                    .prepare(request)
                    .await
                    .map(|answer| answer.into_inner().mounts)
            }
            _ => {
                let request = ViewSnapshotRequest {
                    snapshotter: snapshotter.clone(),
                    key: key.clone(),
                    parent,
                    ..Default::default()
                };
                snapshots
                    .view(request)
                    .await
                    .map(|answer| answer.into_inner().mounts)
            }
        }
    };
    let (answer, users) = tokio::join!(taken, mapped);
    let users = users?;
    let mounts = match answer {
        Ok(mounts) => mounts,
        Err(status) if status.code() == Code::AlreadyExists => {
            let request = MountsRequest {
                snapshotter,
                key: key.clone(),
            };
            snapshots
                .mounts(request)
                .await
                .map_err(refused("read mounts of snapshot", key.clone()))?
                .into_inner()
                .mounts
        }
        Err(status) => return Err(refused("prepare snapshot", key)(status)),
    };
    let (place, ids, disk) = (place.clone(), plan.ids, plan.disk);
    let pool = disks.cloned();
    let volatile = crate::probe::kernel_has(5, 10);
    blocking(move || {
        let target = place.root();
        place
            .make_root(ids)
            .map_err(failed("make", target.display().to_string()))?;
        if !crate::host::is_mount_point(&target)
            .map_err(failed("look for mounts at", key.clone()))?
        {
            portlayer::crash::point("engine.before-mount");
            let wrong = |error: StoreError| {
                let kind = match error {
                    StoreError::InsufficientSpace { .. } => RuntimeErrorKind::NoSpace,
                    _ => RuntimeErrorKind::Internal,
                };
                RuntimeError::new(kind, "mount root", key.clone(), error_text(&error))
            };
            let mounts = match &disk {
                None => mounts,
                Some(plan) => {
                    make_private(place.directory())?;
                    crate::disk::bound(&mounts, plan, &place, pool.as_deref()).map_err(wrong)?
                }
            };
            let mounts = match volatile {
                true => without_sync(mounts),
                false => mounts,
            };
            match (ids, users) {
                (None, _) => mount::mount_all(&mounts, &target).map_err(wrong)?,
                (Some(range), None) => {
                    mount::mount_all(&mounts, &target).map_err(wrong)?;
                    crate::reown::reown(&target, range)
                        .map_err(failed("change the owners in root", key.clone()))?;
                }
                (Some(range), Some(users)) => {
                    crate::idmap::mount_root(&mounts, range, &users, &place.layers(), &target)
                        .map_err(wrong)?;
                }
            }
            portlayer::crash::point("engine.after-mount");
        }
        Ok(())
    })
    .await
}

/// Roots that are not synced, neither when a task asks nor when they are unmounted: what is written to a root goes with its
/// container. Unmounting one would sync the whole file system its upper layer is in.
fn without_sync(mut mounts: Vec<Mount>) -> Vec<Mount> {
    for mount in &mut mounts {
        let mut options = mount.options.iter();
        if mount.r#type == "overlay" && options.any(|option| option.starts_with("upperdir=")) {
            mount.options.push("volatile".to_owned());
        }
    }
    mounts
}

fn make_private(directory: &std::path::Path) -> Result<(), RuntimeError> {
    mount::private_directory(directory).map_err(|error| {
        RuntimeError::new(
            RuntimeErrorKind::Internal,
            "make",
            directory.display().to_string(),
            error_text(&error),
        )
    })
}

/// Unmounts and removes the snapshot. Idempotent.
pub(crate) async fn remove(
    client: &Client,
    key: &str,
    place: &ContainerPlace,
) -> Result<(), RuntimeError> {
    let (place, object) = (place.clone(), key.to_owned());
    blocking(move || {
        let wrong = |error: StoreError| {
            let text = error_text(&error);
            RuntimeError::new(
                RuntimeErrorKind::Internal,
                "remove disk of",
                object.clone(),
                text,
            )
        };
        place
            .unmount_root()
            .map_err(failed("unmount root of", object.clone()))?;
        crate::disk::remove(&place).map_err(wrong)?;
        place
            .remove_root()
            .map_err(failed("remove root of", object.clone()))
    })
    .await?;
    portlayer::crash::point("engine.after-unmount");
    let request = RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
    };
    match client.snapshots().remove(request).await {
        Err(status) if is_missing(&status) => Ok(()),
        other => other.map(drop).map_err(refused("remove snapshot", key)),
    }
}

/// A chain of errors as one line.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Runs file system work where it may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Checks the root and every mount target of a plan. Blocks.
pub(crate) fn check(plan: &ContainerPlan, root: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let object = plan.executor.to_string();
    for path in OWN {
        let found = openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        );
        match found.and_then(rustix::fs::fstat) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Err(Errno::NOENT) if takes_new_directories(&plan.root) => {}
            Err(Errno::NOENT) => {
                let kind = RuntimeErrorKind::MountTarget {
                    target: path.to_owned(),
                    rule: "is missing in a read-only root",
                };
                return Err(RuntimeError::new(
                    kind,
                    "check root of",
                    object,
                    "the image has no such directory",
                ));
            }
            Ok(_) => {
                return Err(RuntimeError::new(
                    RuntimeErrorKind::UnsafeImage { path },
                    "check root of",
                    object,
                    "a link or file",
                ));
            }
            Err(errno) => return Err(failed("check root of", object)(errno.into())),
        }
    }
    for (number, mount) in plan.mounts.iter().enumerate() {
        check_target(plan, &plan.mounts[..number], mount, root).map_err(|rule| {
            let kind = RuntimeErrorKind::MountTarget {
                target: mount.target.clone(),
                rule,
            };
            RuntimeError::new(
                kind,
                "check mounts of",
                object.clone(),
                mount.volume.to_string(),
            )
        })?;
    }
    Ok(())
}

/// Whether what is missing can be made: in a writable root, and in the empty one.
fn takes_new_directories(root: &RootPlan) -> bool {
    root.access == Access::ReadWrite || root.image.is_none()
}

fn check_target(
    plan: &ContainerPlan,
    before: &[MountPlan],
    mount: &MountPlan,
    root: BorrowedFd<'_>,
) -> Result<(), &'static str> {
    let wants_directory = match &mount.source {
        MountSource::Tmpfs { .. } => true,
        MountSource::Path(path) => {
            std::fs::metadata(path)
                .map_err(|_| "its source cannot be reached")?
                .is_dir()
                || mount.sub_path.is_some()
        }
    };
    // The target may lie in a volume that is mounted before.
    let covering = before.iter().rev().find_map(|outer| {
        let rest = mount
            .target
            .strip_prefix(outer.target.as_str())?
            .strip_prefix('/')?;
        Some((outer, rest))
    });
    let (found, writable) = match covering {
        None => (stat(root, &mount.target), takes_new_directories(&plan.root)),
        Some((outer, rest)) => match (&outer.source, &outer.sub_path) {
            (MountSource::Path(path), None) => {
                let directory = crate::users::open_root(path)
                    .map_err(|_| "the volume it lies in cannot be reached")?;
                (
                    stat(directory.as_fd(), rest),
                    outer.access == Access::ReadWrite,
                )
            }
            // A fresh tmpfs is empty; what is below a sub path is seen by the OCI runtime.
            _ => (Err(Errno::NOENT), outer.access == Access::ReadWrite),
        },
    };
    match found {
        Ok(FileType::Directory) if wants_directory => Ok(()),
        Ok(FileType::Directory) => Err("is a directory and the source is a file"),
        Ok(FileType::RegularFile) if !wants_directory => Ok(()),
        Ok(FileType::RegularFile) => Err("is a file and the source is a directory"),
        Ok(_) => Err("is neither a directory nor a regular file"),
        Err(Errno::NOENT) if writable => Ok(()),
        Err(Errno::NOENT) => Err("is missing in a read-only root"),
        Err(Errno::NOTDIR) => Err("leads through something that is not a directory"),
        Err(Errno::LOOP) => Err("leads through a loop of links"),
        Err(_) => Err("cannot be looked at"),
    }
}

pub(crate) fn stat(root: BorrowedFd<'_>, path: &str) -> Result<FileType, Errno> {
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        flags,
    )?;
    Ok(FileType::from_raw_mode(rustix::fs::fstat(found)?.st_mode))
}
