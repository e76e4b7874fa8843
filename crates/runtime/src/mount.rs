//! Mounts on the host: idempotent, counted by user, with the counts on disk so that they survive us.
//! Everything here is blocking.

mod attachments;
mod loop_device;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use portlayer::store::StoreError;

pub use attachments::{Attachments, User};
pub use loop_device::LoopDevice;

use crate::host;
use crate::image::io_failed;

/// The kernel takes one page of mount options.
const OPTIONS_LIMIT: usize = 4000;

/// Mounts what the engine says at a directory. All of them, in order; on an error none stays.
///
/// # Errors
/// The kernel's.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), StoreError> {
    for mount in mounts {
        if let Err(errno) = mount_one(mount, target) {
            unmount(target)?;
            return Err(failed("mount", target, errno));
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, target: &Path) -> Result<(), Errno> {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            other => data.push(other),
        }
    }
    let text = data.join(",");
    if text.len() > OPTIONS_LIMIT {
        return mount_with_relative_lowers(mount, target, flags, &data);
    }
    let data = (!text.is_empty()).then_some(text.as_str());
    let bind = flags.contains(MsFlags::MS_BIND);
    // The kernel ignores every other flag of a bind mount: they need a remount.
    let first = if bind {
        flags & (MsFlags::MS_BIND | MsFlags::MS_REC)
    } else {
        flags
    };
    nix::mount::mount(
        Some(mount.source.as_str()),
        target,
        Some(mount.r#type.as_str()),
        first,
        data,
    )?;
    if bind && flags != first {
        let flags = flags | MsFlags::MS_REMOUNT;
        nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// An overlay of many layers: their directories are named relative to the one they share, from a thread with a
/// working directory of its own.
fn mount_with_relative_lowers(
    mount: &Mount,
    target: &Path,
    flags: MsFlags,
    options: &[&str],
) -> Result<(), Errno> {
    let lowers = options
        .iter()
        .find_map(|o| o.strip_prefix("lowerdir="))
        .ok_or(Errno::E2BIG)?;
    let paths: Vec<&Path> = lowers.split(':').map(Path::new).collect();
    let mut shared = paths.first().and_then(|p| p.parent()).ok_or(Errno::E2BIG)?;
    while !paths.iter().all(|p| p.starts_with(shared)) {
        shared = shared.parent().ok_or(Errno::E2BIG)?;
    }
    let relative: Vec<String> = paths
        .iter()
        .filter_map(|p| p.strip_prefix(shared).ok())
        .map(|p| p.display().to_string())
        .collect();
    let rest = options
        .iter()
        .filter(|o| !o.starts_with("lowerdir="))
        .copied();
    let text = rest
        .chain([format!("lowerdir={}", relative.join(":")).as_str()])
        .collect::<Vec<_>>()
        .join(",");
    if text.len() > OPTIONS_LIMIT {
        return Err(Errno::E2BIG);
    }
    let work = || {
        unshare(CloneFlags::CLONE_FS)?;
        nix::unistd::chdir(shared)?;
        nix::mount::mount(
            Some(mount.source.as_str()),
            target,
            Some(mount.r#type.as_str()),
            flags,
            Some(text.as_str()),
        )
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or(Err(Errno::EIO)))
}

/// Unmounts everything that is mounted at a directory. Idempotent; the directory may be missing.
///
/// # Errors
/// [`StoreError::InUse`] while something has it open.
pub fn unmount(target: &Path) -> Result<(), StoreError> {
    let mut patience = 40;
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // A process that was just forked holds our descriptors until it calls exec.
            Err(Errno::EBUSY) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(25));
            }
            Err(Errno::EBUSY) => return Err(StoreError::InUse("its mount is busy")),
            Err(errno) => return Err(failed("unmount", target, errno)),
        }
    }
}

/// Whether something is mounted at exactly this path, by the mount table: a file server that does not answer is not asked.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn is_mounted(target: &Path) -> Result<bool, StoreError> {
    host::is_in_mount_table(target)
        .map_err(|e| io_failed("read mounts", Path::new("/proc/self/mountinfo"), e))
}

/// Free bytes of the file system that holds a path, as an unprivileged process would see them.
///
/// # Errors
/// The kernel's.
pub fn available_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|e| failed("look at free space of", path, e))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// There is room for so many bytes where `file` is or is to be: what a sparse file promises must at least be there now.
///
/// # Errors
/// `InsufficientSpace`, or the kernel's.
pub(crate) fn ensure_room(file: &Path, need_bytes: u64) -> Result<(), StoreError> {
    let have_bytes = available_bytes(file.parent().unwrap_or(Path::new("/")))?;
    if have_bytes < need_bytes {
        return Err(StoreError::InsufficientSpace {
            need_bytes,
            have_bytes,
        });
    }
    Ok(())
}

/// Mounts the file system in `file` at `target` over a loop device that goes with the mount.
///
/// # Errors
/// The kernel's.
pub(crate) fn mount_file(
    file: &Path,
    file_system: &str,
    target: &Path,
    flags: MsFlags,
) -> Result<(), StoreError> {
    let device = LoopDevice::attach(file)?;
    let (source, data) = (Some(device.path()), None::<&str>);
    nix::mount::mount(source, target, Some(file_system), flags, data)
        .map_err(|errno| failed("mount", target, errno))
}

/// A directory that is there afterwards, ours alone.
///
/// # Errors
/// The kernel's.
pub fn private_directory(path: &Path) -> Result<(), StoreError> {
    let result = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    result.map_err(|e| io_failed("make directory", path, e))
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn failed(verb: &'static str, path: &Path, errno: Errno) -> StoreError {
    io_failed(verb, path, errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(is_mounted(Path::new("/")).unwrap());
        assert!(!is_mounted(tempfile::tempdir().unwrap().path()).unwrap());
    }
}
