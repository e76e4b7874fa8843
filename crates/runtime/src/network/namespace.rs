//! Network namespaces: work in one, and keep one.
//!
//! A thread of the async runtime must never change its namespace, so work in another one has a thread of its own, with
//! a small runtime for netlink.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rtnetlink::Handle;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;

/// The network namespace in which bridges and rules are.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// Of this process.
    Own,
    /// Of this file.
    Named(PathBuf),
}

impl Home {
    fn open(&self) -> io::Result<Option<File>> {
        match self {
            Home::Own => Ok(None),
            Home::Named(path) => File::open(path).map(Some),
        }
    }

    /// Runs work in it. Blocks.
    pub(crate) fn run<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        inside(self.open()?.as_ref(), work)
    }
}

/// Runs work in a thread that has entered the namespace; `None` = that of the caller. Blocks.
pub(crate) fn inside<T: Send, E: Send + From<io::Error>>(
    namespace: Option<&File>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(namespace) = namespace {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).map_err(io::Error::from)?;
            }
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A connection to the kernel's routing in the namespace of the calling thread, and the runtime to wait on it with.
pub(crate) fn netlink() -> io::Result<(Runtime, Handle)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let entered = runtime.enter();
    let (connection, handle, _) = rtnetlink::new_connection()?;
    drop(entered);
    runtime.spawn(connection);
    Ok((runtime, handle))
}

/// Sets a value below `/proc/sys/net`, in the namespace of the calling thread.
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Whether there is such a value.
pub(crate) fn has(name: &str) -> bool {
    Path::new("/proc/sys/net").join(name).exists()
}

/// Keeps a namespace alive by a mount. Idempotent.
pub(crate) fn keep(namespace: &Path, at: &Path) -> io::Result<()> {
    if crate::host::is_mount_point(at)? {
        return Ok(());
    }
    File::create(at)?;
    let flags = MountFlags::BIND;
    rustix::mount::mount(namespace, at, "", flags, None).map_err(io::Error::from)
}

/// Lets it go. Idempotent.
pub(crate) fn let_go(at: &Path) -> io::Result<()> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
