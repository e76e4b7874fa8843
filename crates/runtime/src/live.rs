//! Attaches and detaches mounts of a running container.
//!
//! A detached copy of the source (`open_tree`) is moved into the container's mount namespace (`move_mount`) by a thread of its own that
//! has entered it: entering a mount namespace changes the root of the calling thread, which no thread of the async runtime may keep.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Gid, Mode, OFlags, ResolveFlags, Uid, openat2},
    io::Errno,
    mount::{OpenTreeFlags, UnmountFlags, open_tree},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    cwd::{self, Owner},
    tree::Tree,
};

/// Why a mount could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    /// The kernel has no open_tree and move_mount (5.2) or mount_setattr (5.12).
    #[error("the kernel cannot move mounts between namespaces")]
    Unsupported,
    /// The target is missing and cannot be made.
    #[error("mount target cannot be made")]
    Target(#[source] io::Error),
    /// Someone in the container uses it.
    #[error("mount is in use")]
    Busy,
    /// Anything else.
    #[error("mounting failed")]
    Io(#[source] io::Error),
}

impl From<Errno> for LiveError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSYS => LiveError::Unsupported,
            Errno::BUSY => LiveError::Busy,
            other => LiveError::Io(other.into()),
        }
    }
}

/// Whether the kernel has what [`attach`] needs.
pub(crate) fn is_supported() -> bool {
    // Without CLONE it only opens a descriptor, for which nobody needs a privilege.
    open_tree(rustix::fs::CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).is_ok()
}

/// Mounts a tree at `target` in the mount namespace of process `pid`. The target is resolved inside the container's root and made
/// when it is missing (directory or file, like the tree); what is made belongs to `owner`. Blocks.
pub(crate) fn attach(
    pid: u32,
    tree: &Tree,
    directory: bool,
    target: &str,
    owner: Owner,
) -> Result<(), LiveError> {
    inside(pid, move |root| {
        let place = open_target(root, target, directory, owner)?;
        Ok(tree.attach_at(place.as_fd())?)
    })
}

/// Makes a working directory in the mount namespace of process `pid`. Blocks.
pub(crate) fn make_directory(pid: u32, path: &Path, owner: Owner) -> Result<(), LiveError> {
    inside(pid, |root| {
        cwd::make(root, path, owner)
            .map(drop)
            .map_err(|errno| LiveError::Target(errno.into()))
    })
}

/// Unmounts `target` in the mount namespace of process `pid`. A target that is not a mount is fine. Blocks.
pub(crate) fn detach(pid: u32, target: &str) -> Result<(), LiveError> {
    // The thread's root is the container's, so whatever links say, nothing outside of it is reached.
    inside(pid, |_| {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    })
}

/// Runs `work` in a thread that has entered the mount namespace of `pid` and has its root as root.
fn inside<T: Send>(
    pid: u32,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T, LiveError> + Send,
) -> Result<T, LiveError> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).map_err(LiveError::Io)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A thread shares its root and working directory with the others until it says otherwise.
            unshare_file_system_context()?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
            let root = rustix::fs::open(
                "/",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            work(root.as_fd())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[allow(
    unsafe_code,
    reason = "rustix marks unshare unsafe because of CLONE_FILES, which is not asked for"
)]
fn unshare_file_system_context() -> Result<(), Errno> {
    // SAFETY: only FS is unshared; descriptors stay shared, so no I/O safety assumption is touched.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

fn resolve(root: BorrowedFd<'_>, target: &str) -> Result<OwnedFd, Errno> {
    openat2(
        root,
        target,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens the target, making what is missing of it, one step at a time and each inside the root.
fn open_target(
    root: BorrowedFd<'_>,
    target: &str,
    directory: bool,
    owner: Owner,
) -> Result<OwnedFd, LiveError> {
    let failed = |errno: Errno| LiveError::Target(errno.into());
    match resolve(root, target) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let path = Path::new(target);
    if directory {
        return cwd::make(root, path, owner).map_err(failed);
    }
    let parent = cwd::make(root, path.parent().unwrap_or(path), owner).map_err(failed)?;
    let name = path.file_name().ok_or_else(|| failed(Errno::ISDIR))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed)?;
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    resolve(root, target).map_err(failed)
}
