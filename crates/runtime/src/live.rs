//! Attaches and detaches mounts of a running container.
//!
//! A detached copy of the source (`open_tree`) is moved into the container's mount namespace (`move_mount`) by a thread of its own that
//! has entered it: entering a mount namespace changes the root of the calling thread, which no thread of the async runtime may keep.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::libc;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
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

/// Binds `source` at `target` in the mount namespace of process `pid`. The target is resolved inside the container's root and made
/// when it is missing (directory or file, like the source). Blocks.
pub(crate) fn attach(
    pid: u32,
    source: &Path,
    target: &str,
    read_only: bool,
) -> Result<(), LiveError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(rustix::fs::CWD, source, flags)?;
    // Before anybody sees it, so that a volume that is to be read-only is never writable.
    restrict(&tree, read_only)?;
    let is_directory = fs::metadata(source).map_err(LiveError::Io)?.is_dir();
    inside(pid, move |root| {
        let place = open_target(root, target, is_directory)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(tree.as_fd(), "", place.as_fd(), "", flags)?)
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

/// Takes set-id bits, devices and, if asked, writing away from a detached tree, and cuts it off from mounts made later elsewhere.
#[allow(unsafe_code, reason = "neither rustix nor nix wraps mount_setattr")]
fn restrict(tree: &OwnedFd, read_only: bool) -> Result<(), LiveError> {
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a C string, the attributes are live and their size is given; the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    nix::errno::Errno::result(result)
        .map(drop)
        .map_err(|errno| match errno {
            nix::errno::Errno::ENOSYS => LiveError::Unsupported,
            other => LiveError::Io(other.into()),
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
fn open_target(root: BorrowedFd<'_>, target: &str, directory: bool) -> Result<OwnedFd, LiveError> {
    match resolve(root, target) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(LiveError::Target(errno.into())),
    }
    let steps: Vec<&str> = target
        .split('/')
        .filter(|step| !step.is_empty() && *step != "." && *step != "..")
        .collect();
    let mut so_far = String::new();
    for (index, step) in steps.iter().enumerate() {
        let parent = resolve(root, if so_far.is_empty() { "." } else { &so_far })
            .map_err(|errno| LiveError::Target(errno.into()))?;
        so_far = if so_far.is_empty() {
            (*step).to_owned()
        } else {
            format!("{so_far}/{step}")
        };
        let made = if directory || index + 1 < steps.len() {
            rustix::fs::mkdirat(&parent, *step, Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, *step, flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(LiveError::Target(errno.into())),
        }
    }
    resolve(root, target).map_err(|errno| LiveError::Target(errno.into()))
}
