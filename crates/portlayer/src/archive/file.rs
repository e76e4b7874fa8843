//! Single files out of a tree: results and artifacts of tasks that may have put anything in their place.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};

use super::{Root, shown};

/// Why a file cannot be read. Paths in it are escaped, safe to print.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none, or the way to it ends.
    #[error("{path} cannot be opened")]
    Open {
        /// The path.
        path: String,
        /// The kernel's answer: `ENOENT`, `ELOOP` for a link where none is allowed, ...
        #[source]
        errno: Errno,
    },
    /// It is a directory, FIFO, device or socket.
    #[error("{path} is no regular file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// Reading it failed.
    #[error("{path} cannot be read")]
    Read {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens a regular file inside the root for reading. A link is followed inside the root when `follow` says so, and is
/// `ELOOP` otherwise. What is no regular file is never read and never waited for.
///
/// # Errors
/// `Open`, `NotAFile`.
pub fn open_file(root: &Root, path: &Path, follow: bool) -> Result<File, FileError> {
    let label = || shown(path.as_os_str().as_encoded_bytes());
    let failed = |errno| FileError::Open {
        path: label(),
        errno,
    };
    let link = match follow {
        true => OFlag::empty(),
        false => OFlag::O_NOFOLLOW,
    };
    // First without opening it: to open a FIFO or a device can do something. O_NOFOLLOW with O_PATH opens the link itself.
    let place = root
        .open_at(path, OFlag::O_PATH | link, Mode::empty())
        .map_err(failed)?;
    let kind = |fd: &std::os::fd::OwnedFd| -> Result<SFlag, FileError> {
        let stat = fstat(fd).map_err(failed)?;
        Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
    };
    match kind(&place)? {
        SFlag::S_IFREG => {}
        SFlag::S_IFLNK => return Err(failed(Errno::ELOOP)),
        _ => return Err(FileError::NotAFile { path: label() }),
    }
    // It may have been swapped since: O_NONBLOCK and a second look.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | link;
    let file = root.open_at(path, flags, Mode::empty()).map_err(failed)?;
    match kind(&file)? {
        SFlag::S_IFREG => Ok(File::from(file)),
        _ => Err(FileError::NotAFile { path: label() }),
    }
}

/// At most `limit` bytes of a regular file, and how many it has (more than `limit` when it was cut: at least `limit` + 1).
/// A file that grows while it is read, or has no size of its own as those of /proc, is bounded all the same.
///
/// # Errors
/// As [`open_file`], and `Read`.
pub fn read_file(
    root: &Root,
    path: &Path,
    limit: u64,
    follow: bool,
) -> Result<(Vec<u8>, u64), FileError> {
    let file = open_file(root, path, follow)?;
    let failed = |source| FileError::Read {
        path: shown(path.as_os_str().as_encoded_bytes()),
        source,
    };
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    let read = file
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)? as u64;
    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((bytes, size.max(read)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_inside_are_read() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("root");
        std::fs::create_dir_all(inner.join("d")).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        std::fs::write(inner.join("f"), "inside").unwrap();
        symlink("../../secret", inner.join("out")).unwrap();
        symlink(outer.path().join("secret"), inner.join("absolute")).unwrap();
        symlink("/f", inner.join("in")).unwrap();
        symlink("/proc/self/root", inner.join("magic")).unwrap();
        nix::unistd::mkfifo(&inner.join("fifo"), Mode::S_IRUSR).unwrap();
        let root = Root::open(&inner).unwrap();
        let read = |path: &str, follow| read_file(&root, Path::new(path), 3, follow);
        assert_eq!(read("f", false).unwrap(), (b"ins".to_vec(), 6));
        assert_eq!(read("/in", true).unwrap().1, 6);
        assert!(matches!(
            read("in", false),
            Err(FileError::Open {
                errno: Errno::ELOOP,
                ..
            })
        ));
        for path in ["out", "absolute", "../secret", "magic/etc/passwd"] {
            assert!(
                matches!(read(path, true), Err(FileError::Open { .. })),
                "{path}"
            );
        }
        for path in ["fifo", "d", "/"] {
            assert!(
                matches!(read(path, true), Err(FileError::NotAFile { .. })),
                "{path}"
            );
        }
    }
}
