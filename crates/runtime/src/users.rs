//! Users of the root file system of a container: [`portlayer::users`] over a directory of ours.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use portlayer::archive::Root;
pub(crate) use portlayer::users::{User, UserError};
use rustix::fs::{Mode, OFlags};

/// Finds a user of a root that is open already. See [`portlayer::users::look_up`].
pub(crate) fn look_up(root: BorrowedFd<'_>, text: &str) -> Result<User, UserError> {
    let root = root.try_clone_to_owned();
    let root = root.map_err(|error| UserError::File("/", error))?;
    portlayer::users::look_up(&Root::from_fd(root), text)
}

/// Opens a directory as a root for [`look_up`].
pub(crate) fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
