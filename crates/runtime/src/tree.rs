//! Detached mounts: copied from a place, changed while nobody can see them, then attached somewhere.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::libc;
use rustix::{
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

/// A detached mount. Dropped without being attached it is gone.
#[derive(Debug)]
pub(crate) struct Tree(OwnedFd);

impl Tree {
    /// A copy of the mount at a path, without what is mounted below.
    pub(crate) fn of(path: &Path) -> Result<Tree, Errno> {
        open_tree(rustix::fs::CWD, path, Self::flags()).map(Tree)
    }

    /// A copy of the mount at a descriptor's place, without what is mounted below.
    pub(crate) fn of_descriptor(place: BorrowedFd<'_>) -> Result<Tree, Errno> {
        open_tree(place, "", Self::flags() | OpenTreeFlags::AT_EMPTY_PATH).map(Tree)
    }

    fn flags() -> OpenTreeFlags {
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
    }

    /// Takes set-id bits, devices and, if asked, writing away, and cuts it off from mounts made later elsewhere.
    pub(crate) fn restrict(&self, read_only: bool) -> Result<(), Errno> {
        let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if read_only {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        self.change(attributes, libc::MS_PRIVATE, 0)
    }

    /// Takes writing away.
    pub(crate) fn make_read_only(&self) -> Result<(), Errno> {
        self.change(libc::MOUNT_ATTR_RDONLY, 0, 0)
    }

    /// Files of id n belong to what n is in the user name space. Errors: `EINVAL` from a file system that cannot.
    pub(crate) fn map_ids(&self, users: BorrowedFd<'_>) -> Result<(), Errno> {
        let descriptor = u64::try_from(users.as_raw_fd()).map_err(|_| Errno::BADF)?;
        self.change(libc::MOUNT_ATTR_IDMAP, 0, descriptor)
    }

    #[allow(unsafe_code, reason = "neither rustix nor nix wraps mount_setattr")]
    fn change(&self, set: u64, propagation: u64, users: u64) -> Result<(), Errno> {
        let attributes = libc::mount_attr {
            attr_set: set,
            attr_clr: 0,
            propagation,
            userns_fd: users,
        };
        // SAFETY: the path is a C string, the attributes are live and their size is given; the kernel only reads both.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        match nix::errno::Errno::result(result) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
        }
    }

    /// Mounts it at a path.
    pub(crate) fn attach(&self, target: &Path) -> Result<(), Errno> {
        move_mount(
            self.0.as_fd(),
            "",
            rustix::fs::CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    }

    /// Mounts it at a descriptor's place, in the mount name space of the calling thread.
    pub(crate) fn attach_at(&self, place: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(self.0.as_fd(), "", place, "", flags)
    }
}
