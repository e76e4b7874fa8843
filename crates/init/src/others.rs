//! Finds the further tasks: processes that containerd put into this process namespace from outside.

use std::{fs, io, os::fd::OwnedFd};

use crate::sys;

/// One pidfd per process whose parent is outside the namespace (parent 0), init excepted.
///
/// A pidfd becomes readable when the process ends, which is how init learns of the end of a process that is not its child.
pub(crate) fn tasks() -> io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if pid == 1 || !is_foreign(pid) {
            continue;
        }
        match sys::pidfd_open(pid) {
            Ok(pidfd) => found.push(pidfd),
            // It ended between the two looks.
            Err(error) if error.raw_os_error() == Some(sys::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_foreign(pid: i32) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    parent_and_state(&stat)
        .is_some_and(|(parent, state)| parent == 0 && state != b'Z' && state != b'X')
}

/// State and parent of a `/proc/PID/stat` line. The name in brackets may itself contain brackets and spaces: the last `)` ends it.
fn parent_and_state(stat: &[u8]) -> Option<(i32, u8)> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat
        .get(end + 1..)?
        .split(|&byte| byte == b' ')
        .filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    Some((parent, state))
}

#[cfg(test)]
mod tests {
    use super::parent_and_state;

    #[test]
    fn reads_a_line_whose_name_is_hostile() {
        assert_eq!(parent_and_state(b"12 (a) S 1) R 0 12 12"), Some((0, b'R')));
        assert_eq!(parent_and_state(b"12 (sh) Z 7 12 12"), Some((7, b'Z')));
        assert_eq!(parent_and_state(b"12 (sh"), None);
    }
}
