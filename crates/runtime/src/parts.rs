//! Volumes of which only a part is mounted, and volumes that start with what the image has at their place.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use portlayer::{
    archive::{self, ExtractOptions, Root},
    runtime::{MountPlan, RuntimeError, RuntimeErrorKind},
    store::MountSource,
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{error::failed, root::error_text};

/// Mounts the part of a volume at `target`. The part is resolved inside the volume, and the mount is made from the descriptor that was
/// found, so that a task that changes the volume meanwhile gains nothing. Idempotent. Blocks.
pub(crate) fn mount_part(source: &Path, part: &str, target: &Path) -> io::Result<()> {
    if !crate::host::mounts_below(target)?.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    let root = crate::users::open_root(source)?;
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found: OwnedFd = openat2(
        &root,
        part,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        flags,
    )?;
    let is_directory = fs::metadata(crate::host::descriptor_path(&found))?.is_dir();
    if is_directory {
        fs::create_dir_all(target)?;
    } else {
        fs::write(target, b"")?;
    }
    let tree = open_tree(
        &found,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    Ok(move_mount(
        tree.as_fd(),
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Copies what the root has at the mount's target into the volume, if the volume is empty. A root that has nothing there is fine. Blocks.
pub(crate) fn copy_up(root: &Path, mount: &MountPlan) -> Result<(), RuntimeError> {
    let object = mount.volume.to_string();
    let MountSource::Path(source) = &mount.source else {
        return Ok(());
    };
    let is_empty = fs::read_dir(source)
        .map_err(failed("look into", object.clone()))?
        .next()
        .is_none();
    if !is_empty {
        return Ok(());
    }
    let directory =
        crate::users::open_root(root).map_err(failed("open root for", object.clone()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let from = match openat2(
        &directory,
        mount.target.as_str(),
        flags,
        Mode::empty(),
        resolve,
    ) {
        Ok(from) => Root::from_fd(from),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(failed("open the image's content for", object)(errno.into())),
    };
    let to = Root::open(source).map_err(|errno| failed("open", object.clone())(errno.into()))?;
    let (reader, writer) = io::pipe().map_err(failed("copy into", object.clone()))?;
    let fault = |error: archive::ArchiveError| {
        RuntimeError::new(
            RuntimeErrorKind::Internal,
            "copy the image's content into",
            object.clone(),
            error_text(&error),
        )
    };
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| archive::write_tree(&from, writer).map(drop));
        let read = archive::extract(reader, &to, &ExtractOptions::default()).map(drop);
        let written = writing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When reading failed, writing failed for want of a reader; the cause is the interesting one.
        read.and(written).map_err(fault)
    })
}
