//! A directory as the root of a tree: every path is resolved by the kernel inside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// An open directory that is `/` to everything resolved through it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory the caller trusts (the path itself is resolved normally).
    ///
    /// # Errors
    /// The kernel's; `ENOTDIR` when it is not a directory.
    pub fn open(path: &Path) -> Result<Root, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root {
            fd: openat(AT_FDCWD, path, flags, Mode::empty())?,
        })
    }

    /// A root from a directory descriptor.
    pub fn from_fd(fd: OwnedFd) -> Root {
        Root { fd }
    }

    /// Opens a path below the root without following any link, not even on the way: for walking a tree whose entries were
    /// looked at before, so that what is swapped meanwhile is an error and not another place.
    ///
    /// # Errors
    /// The kernel's; `ELOOP` for a link on the way.
    pub fn open_below(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        self.resolve(path, flags, Mode::empty(), resolve)
    }

    /// Opens a path inside the root: `..` stops at the root, absolute links start at it, magic links are refused.
    /// FIFOs and devices do open; a caller that expects a file adds `O_NONBLOCK` and looks at the type.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_at(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        self.resolve(path, flags, mode, resolve)
    }

    fn resolve(
        &self,
        path: &Path,
        flags: OFlag,
        mode: Mode,
        resolve: ResolveFlag,
    ) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(resolve);
        loop {
            match openat2(&self.fd, path, how) {
                // EAGAIN: a rename elsewhere raced with resolution and the kernel could not prove containment.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Opens a directory inside the root for the `*at` calls.
    ///
    /// # Errors
    /// The kernel's.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
