//! Opens the file system of a running container from outside.

use std::{fs, io};

use portlayer::runtime::{IdMap, Inside};
use rustix::fs::{Mode, OFlags};

/// Opens the root of process `pid`, the container's first. Through `/proc/PID/root` the kernel walks the container's
/// own mounts, so volumes are there too. Blocks.
///
/// The process is a child of the shim and its id could be used again only after the shim reaped it, with the container
/// gone; that the root is not our own is checked all the same.
pub(crate) fn open(pid: u32, oom_kills: u64) -> io::Result<Inside> {
    let process = format!("/proc/{pid}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("{process}/root"), flags, Mode::empty())?;
    let (theirs, ours) = (
        fs::read_link(format!("{process}/ns/mnt"))?,
        fs::read_link("/proc/self/ns/mnt")?,
    );
    if theirs == ours {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the process of the container is gone",
        ));
    }
    let map = |name: &str| {
        let text = fs::read_to_string(format!("{process}/{name}"))?;
        let unreadable =
            || io::Error::new(io::ErrorKind::InvalidData, "a map of ids cannot be read");
        IdMap::parse(&text).ok_or_else(unreadable)
    };
    Ok(Inside {
        uids: map("uid_map")?,
        gids: map("gid_map")?,
        root,
        oom_kills,
    })
}
