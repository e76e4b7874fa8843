//! Mounts on the host: idempotent, counted by user, with the counts on disk so that they survive us.
//! Everything here is blocking.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use portlayer::store::StoreError;

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

/// Whether something is mounted at exactly this path.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn is_mounted(target: &Path) -> Result<bool, StoreError> {
    let list = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| io_failed("read mounts", Path::new("/proc/self/mountinfo"), e))?;
    let want = target.as_os_str().as_bytes();
    Ok(list
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|path| unescaped(path) == want))
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| bytes.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
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

/// Who uses a mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum User {
    /// An executor, by its digest. Remembered on disk: it may outlive us.
    Executor(String),
    /// A job of ours (fill, copy, export). Remembered in memory: it ends with us.
    Job(String),
}

/// Mounts of volumes, one directory for each: `<base>/<volume>/fs` is the mount point, `<base>/<volume>/users/<executor>`
/// an empty file for each executor. The files are the count, so it survives a restart.
#[derive(Debug, Clone)]
pub struct Attachments {
    base: PathBuf,
    jobs: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Attachments {
    /// Below a directory of our state (made when needed).
    pub fn new(base: impl Into<PathBuf>) -> Attachments {
        Attachments {
            base: base.into(),
            jobs: Arc::default(),
        }
    }

    /// Where a volume is mounted.
    pub fn mount_point(&self, volume: &str) -> PathBuf {
        self.base.join(volume).join("fs")
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users_directory(&self, volume: &str) -> PathBuf {
        self.base.join(volume).join("users")
    }

    /// Adds a user; mounts for the first one, by `mount` on the directory it is given. Idempotent.
    ///
    /// # Errors
    /// What `mount` says; then the user is not added.
    pub fn attach(
        &self,
        volume: &str,
        user: &User,
        mount: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<PathBuf, StoreError> {
        let target = self.mount_point(volume);
        private_directory(&target)?;
        match user {
            User::Job(job) => {
                self.jobs().insert((volume.to_owned(), job.clone()));
            }
            User::Executor(executor) => {
                let users = self.users_directory(volume);
                private_directory(&users)?;
                let mark = users.join(executor);
                fs::write(&mark, b"").map_err(|e| io_failed("record a user in", &mark, e))?;
            }
        }
        let mounted =
            is_mounted(&target).and_then(|there| if there { Ok(()) } else { mount(&target) });
        if let Err(error) = mounted {
            self.detach(volume, user)?;
            return Err(error);
        }
        Ok(target)
    }

    /// Removes a user; unmounts after the last one. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while something has the mount open; the user is gone, call again.
    pub fn detach(&self, volume: &str, user: &User) -> Result<(), StoreError> {
        match user {
            User::Job(job) => {
                self.jobs().remove(&(volume.to_owned(), job.clone()));
            }
            User::Executor(executor) => {
                let mark = self.users_directory(volume).join(executor);
                ignore_missing(fs::remove_file(&mark))
                    .map_err(|e| io_failed("remove a user in", &mark, e))?;
            }
        }
        if self.users(volume)?.is_empty() {
            self.release(volume)
        } else {
            Ok(())
        }
    }

    /// Unmounts whoever uses it, and removes the directories. Idempotent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while something has the mount open.
    pub fn release(&self, volume: &str) -> Result<(), StoreError> {
        let target = self.mount_point(volume);
        unmount(&target)?;
        self.jobs().retain(|(of, _)| of != volume);
        let directory = self.base.join(volume);
        let failed = |e| io_failed("remove", &directory, e);
        // Never recursively through the mount point: were it still mounted, this would delete the volume's data.
        ignore_missing(fs::remove_dir(&target)).map_err(failed)?;
        ignore_missing(fs::remove_dir_all(directory.join("users"))).map_err(failed)?;
        ignore_missing(fs::remove_dir(&directory)).map_err(failed)
    }

    /// Who uses a volume.
    ///
    /// # Errors
    /// The kernel's.
    pub fn users(&self, volume: &str) -> Result<Vec<User>, StoreError> {
        let mut users: Vec<User> = self
            .jobs()
            .iter()
            .filter(|(of, _)| of == volume)
            .map(|(_, job)| User::Job(job.clone()))
            .collect();
        let directory = self.users_directory(volume);
        let failed = |e| io_failed("list users in", &directory, e);
        let entries = match fs::read_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(users),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            users.push(User::Executor(name.to_string_lossy().into_owned()));
        }
        Ok(users)
    }
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A loop device over a file, for as long as it is open or mounted: the kernel frees it after that.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: OwnedFd,
}

impl LoopDevice {
    /// Attaches a free device to a file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(file: &Path) -> Result<LoopDevice, StoreError> {
        let backing = open(file, OFlag::O_RDWR).map_err(|e| failed("open", file, e))?;
        let control_path = Path::new("/dev/loop-control");
        let control =
            open(control_path, OFlag::O_RDWR).map_err(|e| failed("open", control_path, e))?;
        for _ in 0..64 {
            let number = ioctl::get_free(&control)
                .map_err(|e| failed("find a loop device with", control_path, e))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            match open(&path, OFlag::O_RDWR) {
                // Without devtmpfs nobody makes the node of a new device.
                Err(Errno::ENOENT) => {
                    let device = nix::sys::stat::makedev(7, u64::from(number));
                    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                    match nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFBLK, mode, device)
                    {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(errno) => return Err(failed("make", &path, errno)),
                    }
                }
                Err(errno) => return Err(failed("open", &path, errno)),
                Ok(device) => match ioctl::configure(&device, backing.as_raw_fd()) {
                    Ok(()) => {
                        return Ok(LoopDevice {
                            path,
                            _device: device,
                        });
                    }
                    // Somebody else took it in between.
                    Err(Errno::EBUSY) => {}
                    Err(errno) => return Err(failed("attach", &path, errno)),
                },
            }
        }
        Err(failed("attach a loop device to", file, Errno::EBUSY))
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

pub(crate) fn failed(verb: &'static str, path: &Path, errno: Errno) -> StoreError {
    io_failed(verb, path, errno.into())
}

#[allow(
    unsafe_code,
    reason = "the loop driver speaks ioctl only, and nix has no wrapper for it"
)]
mod ioctl {
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};

    use nix::errno::Errno;

    /// struct loop_config of linux/loop.h: fd, block size, struct loop_info64 (232 bytes), eight reserved words.
    #[repr(C)]
    pub(super) struct LoopConfig {
        fd: u32,
        block_size: u32,
        device: u64,
        inode: u64,
        rdevice: u64,
        offset: u64,
        sizelimit: u64,
        number: u32,
        encrypt_type: u32,
        encrypt_key_size: u32,
        flags: u32,
        file_name: [u8; 64],
        crypt_name: [u8; 64],
        encrypt_key: [u8; 32],
        init: [u64; 2],
        reserved: [u64; 8],
    }

    const LO_FLAGS_AUTOCLEAR: u32 = 4;

    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, LoopConfig);

    pub(super) fn get_free(control: &OwnedFd) -> Result<u32, Errno> {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }?;
        u32::try_from(number).map_err(|_| Errno::EINVAL)
    }

    pub(super) fn configure(device: &OwnedFd, file: RawFd) -> Result<(), Errno> {
        let config = LoopConfig {
            fd: u32::try_from(file).map_err(|_| Errno::EBADF)?,
            block_size: 0,
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads one struct loop_config, which LoopConfig mirrors field by field (asserted below).
        unsafe { loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
    }

    const _: () = assert!(size_of::<LoopConfig>() == 304);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescaped(r"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescaped(r"/x\9"), br"/x\9");
    }

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(is_mounted(Path::new("/")).unwrap());
        assert!(!is_mounted(tempfile::tempdir().unwrap().path()).unwrap());
    }

    fn executor(name: &str) -> User {
        User::Executor(name.to_owned())
    }

    #[test]
    fn executors_are_counted_across_a_restart_and_jobs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(dir.path());
        let mut mounted = 0;
        for user in [
            executor("a"),
            executor("b"),
            executor("a"),
            User::Job("put".to_owned()),
        ] {
            // Nothing is really mounted here, so every call asks for it.
            let mount = |_: &Path| {
                mounted += 1;
                Ok(())
            };
            attachments.attach("v", &user, mount).unwrap();
        }
        assert_eq!(mounted, 4);
        assert_eq!(attachments.users("v").unwrap().len(), 3);
        let again = Attachments::new(dir.path());
        assert_eq!(again.users("v").unwrap().len(), 2);
        again.detach("v", &executor("a")).unwrap();
        again.detach("v", &executor("a")).unwrap();
        assert!(again.mount_point("v").exists());
        again.detach("v", &executor("b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        again.detach("v", &executor("b")).unwrap();
    }

    #[test]
    fn a_failed_mount_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(dir.path());
        for user in [executor("a"), User::Job("put".to_owned())] {
            let result = attachments.attach("v", &user, |_| Err(StoreError::Unsupported("a test")));
            assert!(matches!(result, Err(StoreError::Unsupported(_))));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
