//! Processes and mounts of the host, looked up in /proc.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// A host process and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// The value after a flag: `-address PATH`.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }
}

/// Every process whose arguments satisfy `wanted`.
pub(crate) fn processes(wanted: impl Fn(&Process) -> bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(process) = read(pid)
            && wanted(&process)
        {
            found.push(process);
        }
    }
    Ok(found)
}

fn read(pid: i32) -> Option<Process> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = line
        .split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    Some(Process { pid, arguments })
}

/// Names in a directory; none when it is not there.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Sends a signal to the process only if it still is the one that was found: the pidfd is taken first and the arguments are looked at
/// again, so that a reused process id is never hit. A process that is gone is no error.
pub(crate) fn signal(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if read(process.pid).is_some_and(|now| now.arguments == process.arguments) {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

/// Kills a process that was just read from a cgroup of ours.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The name by which this process reaches what a descriptor stands for.
pub(crate) fn descriptor_path(descriptor: &std::os::fd::OwnedFd) -> String {
    format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(descriptor)
    )
}

/// Whether something is mounted at `path`; of what is not there, nothing is. Asks for this one path: the mount table of a
/// node with a thousand containers is long. Not for mounts of file servers, which may not answer.
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found)
            if found
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT) =>
        {
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        // Linux 5.7 and older.
        Ok(_) => is_in_mount_table(path),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether something is mounted at exactly `path`, by the mount table.
pub(crate) fn is_in_mount_table(path: &Path) -> io::Result<bool> {
    Ok(mounts_below(path)?.iter().any(|target| target == path))
}

/// Mount points at and below `directory`, deepest and latest last.
pub(crate) fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in table.split(|&byte| byte == b'\n') {
        if let Some(target) = line.split(|&byte| byte == b' ').nth(4) {
            let target = PathBuf::from(unescape(target));
            if target.starts_with(directory) {
                found.push(target);
            }
        }
    }
    Ok(found)
}

/// Unmounts everything at and below `directory`. Idempotent.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    for target in mounts_below(directory)?.into_iter().rev() {
        match rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH) {
            // It went with its parent.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Undoes the `\040` escapes of the mount table.
fn unescape(text: &[u8]) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_of_the_mount_table() {
        assert_eq!(
            super::unescape(br"/a\040b\134c"),
            std::ffi::OsString::from(r"/a b\c")
        );
        assert_eq!(
            super::unescape(br"/a\04"),
            std::ffi::OsString::from(r"/a\04")
        );
        assert_eq!(super::unescape(br"/x\9"), std::ffi::OsString::from(r"/x\9"));
    }
}
