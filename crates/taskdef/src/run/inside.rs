//! The file system of a container from outside: every path is resolved inside it by the kernel, and what is done for a
//! user is done as that user.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, setfsgid, setfsuid};
use portlayer::archive::Root;
use portlayer::runtime::Inside;

use super::container::ContainerError;
use super::users::{self, User, UserError};

/// A container's file system.
pub(crate) struct View {
    inside: Inside,
}

impl View {
    pub(crate) fn new(inside: Inside) -> Self {
        Self { inside }
    }

    /// Its root, for paths of its own.
    pub(crate) fn root(&self) -> Result<Root, ContainerError> {
        let root = self.inside.root.as_fd().try_clone_to_owned();
        root.map(Root::from_fd).map_err(ContainerError::Thread)
    }

    /// How often the kernel had killed one of its processes for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.inside.oom_kills
    }

    /// Looks a user up in the container.
    pub(crate) async fn user(self: &Arc<Self>, text: &str) -> Result<User, ContainerError> {
        let (view, text) = (Arc::clone(self), text.to_owned());
        blocking(move || Ok(users::look_up(&view.root()?, &text)?)).await
    }

    /// Who a user of the container is on the host.
    pub(crate) fn owner(&self, user: &User) -> Result<Owner, ContainerError> {
        let unmapped = || UserError::User(user.name.clone());
        let groups = user
            .groups
            .iter()
            .filter_map(|gid| self.inside.gids.outside(*gid));
        Ok(Owner {
            uid: self.inside.uids.outside(user.uid).ok_or_else(unmapped)?,
            gid: self.inside.gids.outside(user.gid).ok_or_else(unmapped)?,
            groups: groups.collect(),
            is_root: user.uid == 0,
        })
    }

    /// Opens a directory; what is missing of it is made, 0755 and the user's.
    pub(crate) async fn ensure_directory(
        self: &Arc<Self>,
        path: PathBuf,
        user: &User,
    ) -> Result<OwnedFd, ContainerError> {
        let (view, owner) = (Arc::clone(self), self.owner(user)?);
        blocking(move || {
            let root = view.root()?;
            let failed = |errno| ContainerError::Path {
                path: path.display().to_string(),
                errno,
            };
            match root.directory(&path) {
                Err(Errno::ENOENT) => {}
                other => return other.map_err(failed),
            }
            let mut reached = PathBuf::from("/");
            for part in path.components() {
                match part {
                    Component::RootDir | Component::CurDir => continue,
                    Component::Normal(_) | Component::ParentDir | Component::Prefix(_) => {}
                }
                let parent = reached.clone();
                reached.push(part);
                if root.directory(&reached).err() == Some(Errno::ENOENT) {
                    make(&root, &parent, Path::new(part.as_os_str()), &owner).map_err(failed)?;
                }
            }
            root.directory(&reached).map_err(failed)
        })
        .await
    }
}

fn make(root: &Root, parent: &Path, name: &Path, owner: &Owner) -> Result<(), Errno> {
    let parent = root.directory(parent)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        // Someone else made it: theirs.
        Err(Errno::EEXIST) => return Ok(()),
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    fchownat(
        &parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, ContainerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ContainerError::Thread(io::Error::other(error))),
    }
}

/// A user of the container with the host's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id on the host.
    pub(crate) uid: u32,
    /// Group id on the host.
    pub(crate) gid: u32,
    groups: Vec<u32>,
    /// Root of the container may do everything in it, and so may we for it.
    is_root: bool,
}

impl Owner {
    /// Does file system work with no more rights than the user has, on a thread of its own that ends with it.
    pub(crate) async fn act<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ContainerError> {
        let owner = self.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("as-user".to_owned());
        let spawned = thread.spawn(move || {
            let result = owner.become_it().map(|()| work());
            // A caller that went away does not need the answer.
            let _ = answer.send(result);
        });
        spawned.map_err(ContainerError::Thread)?;
        match answered.await {
            Ok(result) => result.map_err(ContainerError::Thread),
            Err(_) => Err(ContainerError::Thread(io::Error::other(
                "the thread panicked",
            ))),
        }
    }

    /// Gives up this thread's rights over files. Changing the file system ids from 0 also drops the capabilities that
    /// override permissions; group ids first, while that is still allowed.
    fn become_it(&self) -> io::Result<()> {
        if self.is_root {
            return Ok(());
        }
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|gid| rustix::process::Gid::from_raw(*gid))
            .collect();
        rustix::thread::set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(gid);
        setfsuid(uid);
        // The calls answer the former id and never fail: asked again, they say what holds now.
        match setfsgid(gid) == gid && setfsuid(uid) == uid {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}
