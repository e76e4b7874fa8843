//! Writes a directory tree, or one thing of it, as a tar stream.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use nix::sys::statfs::fstatfs;

use super::{ArchiveError, Attributes, Limits, Root, Rule, TarBuilder, shown};

/// Most bytes of one file's extended attributes; more would be a header that readers refuse.
const ATTRIBUTE_BYTES: usize = 512 << 10;

/// How to write a tree.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// What it may cost; FIFOs and devices are left out unless [`Limits::special_nodes`]. Ratio and path length mean nothing here.
    pub limits: Limits,
    /// Keep setuid and setgid bits.
    pub keep_setid: bool,
    /// Write a file's second name as a link to the first. Otherwise it is written once more.
    pub hard_links: bool,
    /// Which extended attributes to write.
    pub attributes: Attributes,
}

impl WriteOptions {
    /// All of a tree that is our own to keep: no bounds, set-id bits kept, no special nodes, no attributes.
    pub fn whole() -> WriteOptions {
        WriteOptions {
            limits: Limits {
                bytes: u64::MAX,
                entries: u64::MAX,
                depth: usize::MAX,
                time: Duration::MAX,
                ..Limits::default()
            },
            keep_setid: true,
            hard_links: true,
            attributes: Attributes::None,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub file_bytes: u64,
}

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
    let options = WriteOptions::whole();
    let as_is = |uid, gid| (uid, gid);
    write_at(root, Path::new("."), b"", out, &options, &as_is).map(|written| written.file_bytes)
}

/// Writes what is at `path` inside `root`, a directory with all below it, under the name `name` (empty: the entries of a
/// directory as [`write_tree`] writes them). A link at the end of `path` is written as a link. `owners` makes the owner and
/// group that are written of those on disk. Below `path` no link is followed, and file systems of the kernel (proc, sysfs,
/// cgroups) are not entered.
///
/// # Errors
/// As [`write_tree`], and the limits.
pub fn write_at<W: Write>(
    root: &Root,
    path: &Path,
    name: &[u8],
    out: W,
    options: &WriteOptions,
    owners: &dyn Fn(u32, u32) -> (u32, u32),
) -> Result<Written, ArchiveError> {
    let label = shown(path.as_os_str().as_bytes());
    let place = root
        .open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
        .map_err(|e| failed("open", &label, e))?;
    let stat = fstat(&place).map_err(|e| failed("look at", &label, e))?;
    let mut writer = Writer {
        out,
        options,
        owners,
        begun: Instant::now(),
        links: HashMap::new(),
        done: Written::default(),
    };
    if kind(&stat) == SFlag::S_IFDIR {
        writer.tree(&Root::from_fd(place), name, &stat)?;
    } else {
        // Through its directory, as everything below a directory is.
        let leaf = path
            .file_name()
            .ok_or_else(|| failed("open", &label, Errno::EINVAL))?;
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = root
            .directory(parent.unwrap_or(Path::new(".")))
            .map_err(|e| failed("open", &label, e))?;
        let name = match name {
            b"" => leaf.as_bytes(),
            name => name,
        };
        writer.one(&parent, leaf, name, &stat)?;
    }
    writer.finish()
}

struct Writer<'a, W> {
    out: W,
    options: &'a WriteOptions,
    owners: &'a dyn Fn(u32, u32) -> (u32, u32),
    begun: Instant,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    done: Written,
}

impl<W: Write> Writer<'_, W> {
    fn tree(&mut self, base: &Root, name: &[u8], top: &FileStat) -> Result<(), ArchiveError> {
        let own = match name {
            b"" => b"./".as_slice(),
            name => name,
        };
        self.entry(b'5', own, b"", top, 0, &[])?;
        // An explicit stack: depth is bounded by the tree, not by this thread's stack.
        let mut pending = vec![PathBuf::new()];
        while let Some(relative) = pending.pop() {
            let directory = open_directory(base, &relative)?;
            if relative.components().count() > self.options.limits.depth {
                return Err(refuse(relative.as_os_str().as_bytes(), Rule::TooDeep));
            }
            let mut names = list(&directory, &relative)?;
            names.sort();
            let mut below = Vec::new();
            for leaf in names {
                let path = relative.join(std::ffi::OsString::from_vec(leaf.clone()));
                let leaf = OsStr::from_bytes(&leaf);
                let stat = match fstatat(&directory, leaf, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => continue,
                    other => other
                        .map_err(|e| failed("look at", &shown(path.as_os_str().as_bytes()), e))?,
                };
                let full = match name {
                    b"" => path.as_os_str().as_bytes().to_vec(),
                    name => [name, b"/", path.as_os_str().as_bytes()].concat(),
                };
                if kind(&stat) != SFlag::S_IFDIR {
                    self.one(&directory, leaf, &full, &stat)?;
                } else if stat.st_dev == top.st_dev || !is_of_kernel(base, &path) {
                    let attributes = self.attributes_of(&directory, leaf, &full)?;
                    self.entry(b'5', &full, b"", &stat, 0, &attributes)?;
                    below.push(path);
                }
            }
            below.reverse();
            pending.append(&mut below);
        }
        Ok(())
    }

    /// Anything but a directory.
    fn one(
        &mut self,
        directory: &OwnedFd,
        leaf: &OsStr,
        name: &[u8],
        stat: &FileStat,
    ) -> Result<(), ArchiveError> {
        let device = |kind| match self.options.limits.special_nodes {
            true => Some(kind),
            false => None,
        };
        match kind(stat) {
            SFlag::S_IFLNK => {
                let target = readlinkat(directory, leaf)
                    .map_err(|e| failed("read the link", &shown(name), e))?;
                self.entry(b'2', name, target.as_bytes(), stat, 0, &[])
            }
            SFlag::S_IFREG => {
                if stat.st_nlink > 1 && self.options.hard_links {
                    let inode = (stat.st_dev, stat.st_ino);
                    if let Some(first) = self.links.get(&inode).cloned() {
                        return self.entry(b'1', name, &first, stat, 0, &[]);
                    }
                    self.links.insert(inode, name.to_vec());
                }
                self.file(directory, leaf, name)
            }
            SFlag::S_IFIFO if device(()).is_some() => self.entry(b'6', name, b"", stat, 0, &[]),
            SFlag::S_IFCHR if device(()).is_some() => self.entry(b'3', name, b"", stat, 0, &[]),
            SFlag::S_IFBLK if device(()).is_some() => self.entry(b'4', name, b"", stat, 0, &[]),
            _ => Ok(()),
        }
    }

    fn file(&mut self, directory: &OwnedFd, leaf: &OsStr, name: &[u8]) -> Result<(), ArchiveError> {
        // O_NONBLOCK: the name may have become a FIFO since it was looked at.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(directory, leaf, flags, Mode::empty())
            .map_err(|e| failed("open", &shown(name), e))?;
        let stat = fstat(&file).map_err(|e| failed("look at", &shown(name), e))?;
        if kind(&stat) != SFlag::S_IFREG {
            return Err(failed("open", &shown(name), Errno::ELOOP));
        }
        let attributes = attributes_of(&file, self.options.attributes, name)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let limit = self.options.limits.bytes;
        self.done.file_bytes = self.done.file_bytes.saturating_add(size);
        // Before a byte is read: a file of holes may be larger than all disks.
        if self.done.file_bytes > limit {
            return Err(ArchiveError::TooManyBytes { limit });
        }
        self.entry(b'0', name, b"", &stat, size, &attributes)?;
        let mut data = File::from(file).chain(io::repeat(0)).take(size);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = data
                .read(&mut buffer)
                .map_err(|source| ArchiveError::Tree {
                    act: "read",
                    entry: shown(name),
                    source,
                })?;
            if n == 0 {
                break;
            }
            self.put(&buffer[..n])?;
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.put(&[0; 512][..padding])
    }

    fn entry(
        &mut self,
        flag: u8,
        name: &[u8],
        target: &[u8],
        stat: &FileStat,
        size: u64,
        attributes: &[(String, Vec<u8>)],
    ) -> Result<(), ArchiveError> {
        self.done.entries += 1;
        if self.done.entries > self.options.limits.entries {
            return Err(ArchiveError::TooManyEntries {
                limit: self.options.limits.entries,
            });
        }
        let (uid, gid) = (self.owners)(stat.st_uid, stat.st_gid);
        let set_id = if self.options.keep_setid {
            0o7777
        } else {
            0o1777
        };
        let mode = stat.st_mode & set_id;
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        let builder = TarBuilder::new()
            .owner(uid, gid)
            .mtime(u64::try_from(stat.st_mtime).unwrap_or(0))
            .device(number(major(stat.st_rdev)), number(minor(stat.st_rdev)));
        let header = if attributes.is_empty() {
            builder.header(flag, name, target, mode, size)
        } else {
            // One kind of extension only: readers disagree on what wins when GNU's and PAX meet.
            let mut records: Vec<(&str, &[u8])> = attributes
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice()))
                .collect();
            let long = [("path", name), ("linkpath", target)];
            records.extend(long.into_iter().filter(|(_, text)| text.len() > 100));
            builder
                .pax(&records)
                .raw_sized(flag, name, target, mode, size, b"")
                .unfinished()
        };
        self.put(&header)
    }

    fn attributes_of(
        &self,
        directory: &OwnedFd,
        leaf: &OsStr,
        name: &[u8],
    ) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        if self.options.attributes == Attributes::None {
            return Ok(Vec::new());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(directory, leaf, flags, Mode::empty())
            .map_err(|e| failed("open", &shown(name), e))?;
        attributes_of(&opened, self.options.attributes, name)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let limit = self.options.limits.time;
        if self.begun.elapsed() > limit {
            return Err(ArchiveError::TooSlow { limit });
        }
        self.out.write_all(bytes).map_err(ArchiveError::Read)
    }

    fn finish(mut self) -> Result<Written, ArchiveError> {
        self.put(&[0; 1024])?;
        self.out.flush().map_err(ArchiveError::Read)?;
        Ok(self.done)
    }
}

/// The attributes that go along, as PAX records.
fn attributes_of(
    file: &OwnedFd,
    which: Attributes,
    name: &[u8],
) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let mut found = Vec::new();
    if which == Attributes::None {
        return Ok(found);
    }
    let fault = |error: rustix::io::Errno| ArchiveError::Tree {
        act: "read the attributes of",
        entry: shown(name),
        source: error.into(),
    };
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(file, names.as_mut_slice()) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(found),
        other => other.map_err(fault)?,
    };
    let (mut value, mut total) = (vec![0; 64 << 10], 0);
    for key in names[..length].split(|byte| *byte == 0) {
        // A key of a PAX record ends at its equals sign.
        let Ok(text) = std::str::from_utf8(key) else {
            continue;
        };
        if key.is_empty() || !which.take(key) || text.contains('=') {
            continue;
        }
        let n = match rustix::fs::fgetxattr(file, text, value.as_mut_slice()) {
            Err(rustix::io::Errno::NODATA) => continue,
            other => other.map_err(fault)?,
        };
        total += n + key.len();
        if total > ATTRIBUTE_BYTES {
            return Err(fault(rustix::io::Errno::TOOBIG));
        }
        found.push((format!("SCHILY.xattr.{text}"), value[..n].to_vec()));
    }
    Ok(found)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Whether a mount point below belongs to a file system whose files are the kernel's answers.
fn is_of_kernel(base: &Root, path: &Path) -> bool {
    // proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf, configfs (statfs(2)).
    const KERNEL: [i64; 11] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x1980_0202,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
        0x6265_6570,
    ];
    let Ok(directory) = base.open_below(path, OFlag::O_PATH | OFlag::O_DIRECTORY) else {
        return true;
    };
    fstatfs(&directory).is_ok_and(|stat| KERNEL.contains(&stat.filesystem_type().0))
}

fn open_directory(base: &Root, relative: &Path) -> Result<OwnedFd, ArchiveError> {
    let path = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    base.open_below(path, flags)
        .map_err(|e| failed("open", &shown(path.as_os_str().as_bytes()), e))
}

/// The names in a directory, without `.` and `..`.
pub(super) fn list(directory: &OwnedFd, relative: &Path) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let label = shown(relative.as_os_str().as_bytes());
    // A descriptor of its own: reading moves the position.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir =
        Dir::openat(directory, ".", flags, Mode::empty()).map_err(|e| failed("list", &label, e))?;
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

fn refuse(name: &[u8], rule: Rule) -> ArchiveError {
    ArchiveError::Entry {
        entry: shown(name),
        rule,
    }
}

fn failed(act: &'static str, label: &str, errno: Errno) -> ArchiveError {
    ArchiveError::Tree {
        act,
        entry: label.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
