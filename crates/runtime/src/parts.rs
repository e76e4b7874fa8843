//! Volumes of which only a part is mounted, and volumes that start with what the image has at their place.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use portlayer::{
    archive::{self, ExtractOptions, Root},
    runtime::{IdRange, MountPlan, RuntimeError, RuntimeErrorKind},
    store::MountSource,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::{error::failed, root::error_text, tree::Tree};

/// The mount of a volume, or of a part of it, and whether that is a directory. A part is resolved inside the volume, and the mount is
/// made from the descriptor that was found, so that a task that changes the volume meanwhile gains nothing. With `users` its files
/// belong to what their ids are in that name space. Blocks.
pub(crate) fn tree(
    source: &Path,
    part: Option<&str>,
    users: Option<BorrowedFd<'_>>,
) -> io::Result<(Tree, bool)> {
    let found: OwnedFd = match part {
        None => rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
        Some(part) => {
            let root = crate::users::open_root(source)?;
            let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(
                &root,
                part,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                flags,
            )?
        }
    };
    let is_directory = fs::metadata(crate::host::descriptor_path(&found))?.is_dir();
    let tree = Tree::of_descriptor(found.as_fd())?;
    if let Some(users) = users {
        tree.map_ids(users)?;
    }
    Ok((tree, is_directory))
}

/// Mounts a volume, or a part of it, at `target`. Idempotent. Blocks.
pub(crate) fn mount_part(
    source: &Path,
    part: Option<&str>,
    users: Option<BorrowedFd<'_>>,
    target: &Path,
) -> io::Result<()> {
    if !crate::host::mounts_below(target)?.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    let (tree, is_directory) = tree(source, part, users)?;
    if is_directory {
        fs::create_dir_all(target)?;
    } else {
        fs::write(target, b"")?;
    }
    Ok(tree.attach(target)?)
}

/// Copies what the root has at the mount's target into the volume, if the volume is empty. A root that has nothing there is fine. In
/// the root we see the host's `ids`; the volume gets the container's. Blocks.
pub(crate) fn copy_up(
    root: &Path,
    mount: &MountPlan,
    ids: Option<IdRange>,
) -> Result<(), RuntimeError> {
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
    let (options, first) = (ExtractOptions::default(), ids.map_or(0, |ids| ids.first));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| archive::write_tree(&from, writer).map(drop));
        let read = archive::extract_from_ids(reader, &to, &options, first).map(drop);
        let written = writing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When reading failed, writing failed for want of a reader; the cause is the interesting one.
        read.and(written).map_err(fault)
    })
}
