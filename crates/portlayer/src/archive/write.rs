//! Writes a directory tree as a tar stream.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::{ArchiveError, Root, shown};

/// Writes everything below `root` as a GNU tar, names sorted, `.` first: owners, modes, times (whole seconds),
/// symlinks as they are, hard links as links. Sockets are left out, FIFOs and devices too: [`super::extract`] would
/// refuse them. Nothing outside the root is opened. Returns the bytes of all files together.
///
/// A file that changes size while it is read is written with the size it had at first (cut, or filled with zeros), so
/// the archive stays readable.
///
/// # Errors
/// [`ArchiveError::Tree`] when the tree cannot be read, [`ArchiveError::Read`] when the output cannot be written.
pub fn write_tree<W: Write>(root: &Root, out: W) -> Result<u64, ArchiveError> {
    let mut builder = tar::Builder::new(out);
    let top = root
        .open_at(
            std::path::Path::new("."),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Mode::empty(),
        )
        .map_err(|e| failed("open", ".", e))?;
    let stat = fstat(&top).map_err(|e| failed("look at", ".", e))?;
    append(
        &mut builder,
        "./",
        &stat,
        tar::EntryType::Directory,
        0,
        io::empty(),
    )?;
    let mut links = HashMap::new();
    // An explicit stack: depth is bounded by the tree, not by this thread's stack.
    let mut pending = vec![PathBuf::new()];
    let mut bytes = 0;
    while let Some(relative) = pending.pop() {
        let directory = open_directory(root, &relative)?;
        let mut names = list(&directory, &relative)?;
        names.sort();
        let mut below = Vec::new();
        for name in names {
            let path = relative.join(std::ffi::OsString::from_vec(name.clone()));
            let leaf = std::ffi::OsStr::from_bytes(&name);
            let label = shown(path.as_os_str().as_bytes());
            let stat = match fstatat(&directory, leaf, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                other => other.map_err(|e| failed("look at", &label, e))?,
            };
            match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
                SFlag::S_IFDIR => {
                    append(
                        &mut builder,
                        &path,
                        &stat,
                        tar::EntryType::Directory,
                        0,
                        io::empty(),
                    )?;
                    below.push(path);
                }
                SFlag::S_IFLNK => {
                    let target = readlinkat(&directory, leaf)
                        .map_err(|e| failed("read the link", &label, e))?;
                    let mut header = header_of(&stat, tar::EntryType::Symlink, 0);
                    builder
                        .append_link(&mut header, &path, target)
                        .map_err(ArchiveError::Read)?;
                }
                SFlag::S_IFREG => {
                    if stat.st_nlink > 1 {
                        if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                            let mut header = header_of(&stat, tar::EntryType::Link, 0);
                            builder
                                .append_link(&mut header, &path, first)
                                .map_err(ArchiveError::Read)?;
                            continue;
                        }
                        links.insert((stat.st_dev, stat.st_ino), path.clone());
                    }
                    bytes += append_file(&mut builder, &directory, leaf, &path, &label)?;
                }
                _ => {}
            }
        }
        below.reverse();
        pending.append(&mut below);
    }
    builder
        .into_inner()
        .and_then(|mut out| out.flush())
        .map_err(ArchiveError::Read)?;
    Ok(bytes)
}

fn append_file<W: Write>(
    builder: &mut tar::Builder<W>,
    directory: &OwnedFd,
    leaf: &std::ffi::OsStr,
    path: &std::path::Path,
    label: &str,
) -> Result<u64, ArchiveError> {
    // O_NONBLOCK: the name may have become a FIFO since it was looked at.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file =
        openat(directory, leaf, flags, Mode::empty()).map_err(|e| failed("open", label, e))?;
    let stat = fstat(&file).map_err(|e| failed("look at", label, e))?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(failed("open", label, Errno::ELOOP));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let data = File::from(file).chain(io::repeat(0)).take(size);
    append(builder, path, &stat, tar::EntryType::Regular, size, data)?;
    Ok(size)
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    path: impl AsRef<std::path::Path>,
    stat: &FileStat,
    kind: tar::EntryType,
    size: u64,
    data: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = header_of(stat, kind, size);
    builder
        .append_data(&mut header, path, data)
        .map_err(ArchiveError::Read)
}

fn header_of(stat: &FileStat, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

fn open_directory(root: &Root, relative: &std::path::Path) -> Result<OwnedFd, ArchiveError> {
    let path = if relative.as_os_str().is_empty() {
        std::path::Path::new(".")
    } else {
        relative
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    root.open_at(path, flags, Mode::empty())
        .map_err(|e| failed("open", &shown(path.as_os_str().as_bytes()), e))
}

fn list(directory: &OwnedFd, relative: &std::path::Path) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let label = shown(relative.as_os_str().as_bytes());
    let fd = directory.try_clone().map_err(|source| ArchiveError::Tree {
        act: "list",
        entry: label.clone(),
        source,
    })?;
    let mut dir = Dir::from_fd(fd).map_err(|e| failed("list", &label, e))?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(|e| failed("list", &label, e))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn failed(act: &'static str, label: &str, errno: Errno) -> ArchiveError {
    ArchiveError::Tree {
        act,
        entry: label.to_owned(),
        source: errno.into(),
    }
}
