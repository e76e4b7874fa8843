//! A working directory that is missing: made before the OCI runtime would make it root's, or refuse to start.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use portlayer::{
    runtime::{ContainerPlan, IdRange},
    store::{Access, MountSource},
};
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, openat2},
    io::Errno,
};

/// Who gets what is made: user and group as the file system is to show them to us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// A user of the container in its root, where we see the host's ids.
    pub(crate) fn seen(self, ids: Option<IdRange>) -> Owner {
        let host = |id| ids.and_then(|ids| ids.host(id)).unwrap_or(id);
        Owner {
            uid: host(self.uid),
            gid: host(self.gid),
        }
    }
}

/// Makes the working directory of a container's first process where it will be: in its root, or in the volume that is mounted
/// over that place. Where it cannot be made (a read-only volume, a fresh tmpfs, a volume that is yet to be filled) it is left to the OCI runtime. Blocks.
pub(crate) fn prepare(
    plan: &ContainerPlan,
    root: &Path,
    cwd: &Path,
    owner: Owner,
) -> Result<(), Errno> {
    let covering = plan
        .mounts
        .iter()
        .rev()
        .find_map(|mount| Some((mount, cwd.strip_prefix(&mount.target).ok()?)));
    let (place, below, owner) = match covering {
        None if plan.root.access == Access::ReadWrite => (root, cwd, owner.seen(plan.root.ids)),
        // On disk a volume has the container's own ids.
        Some((mount, below))
            if mount.access == Access::ReadWrite && mount.sub_path.is_none() && !mount.copy_up =>
        {
            match &mount.source {
                MountSource::Path(source) => (source.as_path(), below, owner),
                MountSource::Tmpfs { .. } => return Ok(()),
            }
        }
        _ => return Ok(()),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let place = rustix::fs::open(place, flags, Mode::empty())?;
    make(place.as_fd(), below, owner).map(drop)
}

/// Makes a directory and what is missing on the way to it, one step at a time and each inside `root`; what is made belongs to
/// `owner`. Returns the directory.
pub(crate) fn make(root: BorrowedFd<'_>, path: &Path, owner: Owner) -> Result<OwnedFd, Errno> {
    let mut so_far = std::path::PathBuf::new();
    let mut parent = resolve(root, Path::new("."))?;
    for step in path.components() {
        let std::path::Component::Normal(name) = step else {
            continue;
        };
        so_far.push(name);
        let found = match resolve(root, &so_far) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    // It may have come into being meanwhile, or be a link to nothing, which the next line tells.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let made = resolve(root, &so_far)?;
                let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
                made
            }
            other => other?,
        };
        parent = found;
    }
    Ok(parent)
}

fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn open(path: &Path) -> OwnedFd {
        crate::users::open_root(path).unwrap()
    }

    #[test]
    fn it_is_made_inside_and_belongs_to_the_user() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test changes owners and needs root"
        );
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("there")).unwrap();
        symlink("/there", root.path().join("link")).unwrap();
        let owner = Owner {
            uid: 1000,
            gid: 2000,
        };
        make(open(root.path()).as_fd(), Path::new("/link/a/../b"), owner).unwrap();
        // Dot segments never get here; should one, it is passed over and not followed.
        let stat = std::fs::metadata(root.path().join("there/a/b")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1000, 2000));
        assert_eq!(
            std::fs::metadata(root.path().join("there")).unwrap().uid(),
            0
        );
    }

    #[test]
    fn a_link_out_of_the_root_leads_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        let owner = Owner { uid: 0, gid: 0 };
        let made = make(open(root.path()).as_fd(), Path::new("/out/escaped"), owner);
        assert!(made.is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
