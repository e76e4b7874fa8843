//! User name spaces as tables of ids: with one, a mount shows files of one range of ids as files of another.
//!
//! The lower layers of a root and the volumes are mounted that way, so nothing is copied and nothing changes on disk: what an
//! executor's root writes into a volume is root's for every other executor too. The upper layer, which only this executor sees,
//! holds the host's ids: an overlay whose upper layer is mapped can be written only by who is in the map, which we are not.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use containerd_client::types::Mount;
use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        wait::waitpid,
    },
    unistd::Pid,
};
use portlayer::runtime::{IdMapping, IdRange};
use portlayer::store::StoreError;
use rustix::fd::AsFd;

use crate::{image::io_failed, mount, tree::Tree};

/// How many name spaces are kept for the next use; each is a descriptor.
const KEPT: usize = 64;

/// User name spaces by their range.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<HashMap<u32, Arc<OwnedFd>>>);

impl Users {
    /// The name space of a range, made when needed. Blocks.
    pub(crate) fn of(&self, range: IdRange) -> io::Result<Arc<OwnedFd>> {
        if let Some(found) = self.lock().get(&range.first) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(make(range)?);
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        Ok(Arc::clone(kept.entry(range.first).or_insert(made)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<OwnedFd>>> {
        // Every change of the map is one step that cannot panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the process does in whose name space nobody else is.
#[allow(
    unsafe_code,
    reason = "the first function of a process is called by the C library"
)]
extern "C" fn wait_to_be_killed(parent: *mut libc::c_void) -> libc::c_int {
    // SAFETY: all are plain system calls on no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Whoever died before that has sent nothing. What stays would hold every descriptor of ours, the ledger's lock too.
        while libc::getppid() as usize == parent.addr() {
            libc::pause();
        }
        libc::_exit(0)
    }
}

/// A user name space is made with a process in it; the descriptor keeps it when that process is gone. It shares our memory:
/// a copy of the page tables alone would take a millisecond of every start.
#[allow(unsafe_code, reason = "a name space is made by clone")]
fn make(range: IdRange) -> io::Result<OwnedFd> {
    let mut stack = vec![0u128; 1 << 10];
    // It must not run a handler of ours for a signal that its whole group gets.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the child has a stack of its own, which outlives it: it is waited for below. It makes system calls that do
    // not fail, so it writes to no memory but that stack, and no signal but the one that ends it interrupts them. The end of
    // the stack is aligned, as its parts are.
    let cloned = unsafe {
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::SIGCHLD;
        let parent = std::ptr::without_provenance_mut(std::process::id() as usize);
        libc::clone(wait_to_be_killed, top.cast(), flags, parent)
    };
    let cloned = Errno::result(cloned).map(Pid::from_raw);
    let restored = before.thread_set_mask();
    let pid = cloned?;
    let map = format!("0 {} {}\n", range.first, range.count);
    let made = fs::write(format!("/proc/{pid}/uid_map"), &map)
        .and_then(|()| fs::write(format!("/proc/{pid}/gid_map"), &map))
        .and_then(|()| fs::File::open(format!("/proc/{pid}/ns/user")));
    let ended = nix::sys::signal::kill(pid, Signal::SIGKILL).and_then(|()| waitpid(pid, None));
    ended?;
    restored?;
    made.map(OwnedFd::from)
}

/// Mounts a root file system whose files belong to `range`. `layers` is a directory that is used on the way. On an error nothing
/// stays mounted. Blocks.
pub(crate) fn mount_root(
    mounts: &[Mount],
    range: IdRange,
    users: &OwnedFd,
    layers: &Path,
    target: &Path,
) -> Result<(), StoreError> {
    for mount in mounts {
        let done = match mount.r#type.as_str() {
            "overlay" => overlay(mount, range, users, layers, target),
            _ => single(mount, range, users, target),
        };
        if let Err(error) = done {
            mount::unmount(target)?;
            return Err(error);
        }
    }
    Ok(())
}

/// A root of one directory: a layer that is only looked at, or the upper layer of an empty image.
fn single(mount: &Mount, range: IdRange, users: &OwnedFd, target: &Path) -> Result<(), StoreError> {
    let source = Path::new(&mount.source);
    let read_only = mount.options.iter().any(|option| option == "ro");
    if read_only {
        let tree = mapped(source, users)?;
        tree.make_read_only()
            .and_then(|()| tree.attach(target))
            .map_err(|errno| io_failed("mount", target, errno.into()))
    } else {
        give_to(source, range)?;
        let tree = Tree::of(source);
        tree.and_then(|tree| tree.attach(target))
            .map_err(|errno| io_failed("mount", target, errno.into()))
    }
}

fn mapped(source: &Path, users: &OwnedFd) -> Result<Tree, StoreError> {
    let tree =
        Tree::of(source).map_err(|errno| io_failed("copy mount of", source, errno.into()))?;
    tree.map_ids(users.as_fd())
        .map_err(|errno| io_failed("map the ids of", source, errno.into()))?;
    Ok(tree)
}

/// The lower layers are seen through one mapped mount of the directory they share, so the number of layers does not matter.
fn overlay(
    mount: &Mount,
    range: IdRange,
    users: &OwnedFd,
    layers: &Path,
    target: &Path,
) -> Result<(), StoreError> {
    let lowers = mount
        .options
        .iter()
        .find_map(|o| o.strip_prefix("lowerdir="));
    let paths: Vec<&Path> = lowers
        .unwrap_or_default()
        .split(':')
        .map(Path::new)
        .collect();
    let outside = || io_failed("find the layers of", target, Errno::EINVAL.into());
    let mut shared = paths
        .first()
        .and_then(|path| path.parent())
        .ok_or_else(outside)?;
    while !paths.iter().all(|path| path.starts_with(shared)) {
        shared = shared.parent().ok_or_else(outside)?;
    }
    let below: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            Some(
                layers
                    .join(path.strip_prefix(shared).ok()?)
                    .display()
                    .to_string(),
            )
        })
        .collect();
    let mut changed = mount.clone();
    for option in &mut changed.options {
        if option.starts_with("lowerdir=") {
            *option = format!("lowerdir={}", below.join(":"));
        } else if let Some(upper) = option.strip_prefix("upperdir=") {
            give_to(Path::new(upper), range)?;
        }
    }
    fs::create_dir_all(layers).map_err(|error| io_failed("make", layers, error))?;
    let attached = mapped(shared, users)?.attach(layers);
    attached.map_err(|errno| io_failed("mount", layers, errno.into()))?;
    let mounted = mount::mount_all(std::slice::from_ref(&changed), target);
    // The overlay has copies of its own.
    let detached = rustix::mount::unmount(layers, rustix::mount::UnmountFlags::DETACH);
    detached.map_err(|errno| io_failed("unmount", layers, errno.into()))?;
    fs::remove_dir(layers).map_err(|error| io_failed("remove", layers, error))?;
    mounted
}

/// Lets a directory of an upper layer belong to the range, as the one it covers does. Idempotent.
fn give_to(directory: &Path, range: IdRange) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt;
    let stat = fs::metadata(directory).map_err(|error| io_failed("look at", directory, error))?;
    let (Some(uid), Some(gid)) = (range.host(stat.uid()), range.host(stat.gid())) else {
        return Ok(());
    };
    std::os::unix::fs::chown(directory, Some(uid), Some(gid))
        .map_err(|error| io_failed("change the owner of", directory, error))
}

/// What this host can do, found by doing it in a directory on the file system that holds the layers. Blocks.
pub(crate) fn probe(directory: &Path) -> (IdMapping, Option<String>) {
    let Some(range) = IdRange::of_slot(0) else {
        return (IdMapping::None, None);
    };
    let users = match make(range) {
        Ok(users) => users,
        Err(error) => {
            let text = format!(
                "no user name space can be made ({error}): executors must ask for host_users"
            );
            return (IdMapping::None, Some(text));
        }
    };
    match try_overlay(directory, range, &users) {
        Ok(()) => (IdMapping::Mapped, None),
        Err(error) => {
            let text = format!(
                "the ids of layers cannot be mapped ({}): root file systems are copied for each executor, and executors with volumes \
                 must ask for host_users",
                crate::root::error_text(&error)
            );
            (IdMapping::Copied, Some(text))
        }
    }
}

fn try_overlay(directory: &Path, range: IdRange, users: &OwnedFd) -> Result<(), StoreError> {
    let failed = |error| io_failed("try to map ids in", directory, error);
    let trial = tempfile::Builder::new()
        .prefix("idmap-")
        .tempdir_in(directory)
        .map_err(failed)?;
    let place = |name: &str| trial.path().join(name);
    for name in ["layers/lower", "layers/upper", "layers/work", "target"] {
        fs::create_dir_all(place(name)).map_err(failed)?;
    }
    let option = |name: &str, path: &str| format!("{name}dir={}", place(path).display());
    let overlay = Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![
            option("lower", "layers/lower"),
            option("upper", "layers/upper"),
            option("work", "layers/work"),
        ],
        ..Mount::default()
    };
    mount_root(&[overlay], range, users, &place("seen"), &place("target"))?;
    mount::unmount(&place("target"))
}
