//! Writes an archive into a directory, never outside it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::name::path_of;
use super::scan::check_entry;
use super::{ArchiveError, Entry, EntryKind, EntryName, Limits, Root, Rule, TarReader, shown};

/// The kernel's overflow id.
const NOBODY: u32 = 65_534;
/// So many zeros are worth a hole.
const HOLE: usize = 64 << 10;

/// How to extract.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// What it may cost.
    pub limits: Limits,
    /// Keep setuid and setgid bits; they are dropped otherwise.
    pub keep_setid: bool,
    /// Which extended attributes to set.
    pub attributes: Attributes,
}

/// Which extended attributes go along with files and directories. Never `trusted.overlay.*`, which steer the overlay
/// file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Attributes {
    /// None.
    #[default]
    None,
    /// `user.*`: they mean nothing to the kernel.
    User,
    /// All, `security.*` and access control lists among them.
    All,
}

impl Attributes {
    /// Whether the attribute of this name goes along.
    pub(super) fn take(self, name: &[u8]) -> bool {
        match self {
            Attributes::None => false,
            Attributes::User => name.starts_with(b"user."),
            Attributes::All => !name.starts_with(b"trusted.overlay."),
        }
    }
}

/// What was extracted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub file_bytes: u64,
    /// There is an entry for the root itself (`.`).
    pub has_root: bool,
}

/// Extracts a tar (plain or compressed) into `root`. Owners, modes and times are taken over, extended attributes as the
/// options say; long runs of zeros become holes. Later entries replace earlier ones, as every tar does, but never a directory that is not empty.
///
/// On an error what was written so far stays: extract into a private staging directory and throw it away.
/// A process that swaps what was extracted so far gains nothing outside the root: every step is made by descriptor.
///
/// # Errors
/// The first fault, with the entry's name.
pub fn extract<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
) -> Result<Extracted, ArchiveError> {
    place_all(reader, root, options, Owners::AsWritten)
}

/// The same, with one owner and group for everything, whatever the archive says. A thread that may not change owners
/// names itself.
///
/// # Errors
/// As [`extract`].
pub fn extract_owned<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
    owner: (u32, u32),
) -> Result<Extracted, ArchiveError> {
    place_all(reader, root, options, Owners::All(owner.0, owner.1))
}

/// The same, for the archive of a tree whose owners are counted from `first`: that one becomes 0. Owners below it are
/// nobody's (65534).
///
/// # Errors
/// As [`extract`].
pub fn extract_from_ids<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
    first: u32,
) -> Result<Extracted, ArchiveError> {
    place_all(reader, root, options, Owners::From(first))
}

/// The same, with owner and group of each entry as `owners` makes them.
///
/// # Errors
/// As [`extract`].
pub fn extract_mapped<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
    owners: &dyn Fn(u32, u32) -> (u32, u32),
) -> Result<Extracted, ArchiveError> {
    place_all(reader, root, options, Owners::By(owners))
}

/// Who gets what is extracted.
#[derive(Clone, Copy)]
enum Owners<'a> {
    AsWritten,
    All(u32, u32),
    From(u32),
    By(&'a dyn Fn(u32, u32) -> (u32, u32)),
}

fn place_all<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
    owners: Owners<'_>,
) -> Result<Extracted, ArchiveError> {
    let mut tar = TarReader::new(reader, options.limits)?;
    let mut tree = Tree {
        root,
        options,
        directories: Vec::new(),
    };
    let mut extracted = Extracted::default();
    while let Some(mut entry) = tar.next_entry()? {
        let name = check_entry(&entry, &options.limits)?;
        let below = |id: u32, first| id.checked_sub(first).unwrap_or(NOBODY);
        (entry.uid, entry.gid) = match owners {
            Owners::AsWritten => (entry.uid, entry.gid),
            Owners::All(uid, gid) => (uid, gid),
            Owners::By(owners) => owners(entry.uid, entry.gid),
            Owners::From(first) => (below(entry.uid, first), below(entry.gid, first)),
        };
        tree.place(&mut tar, &entry, &name)?;
        extracted.has_root |= name.is_root();
        extracted.entries += 1;
        extracted.file_bytes += entry.size;
    }
    tree.finish_directories()?;
    Ok(extracted)
}

struct Tree<'a> {
    root: &'a Root,
    options: &'a ExtractOptions,
    /// Directory entries whose mode and time are set last, when nothing is put into them any more.
    directories: Vec<Later>,
}

/// What a directory gets when nothing is put into it any more.
struct Later {
    name: EntryName,
    mode: u32,
    mtime: i64,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Tree<'_> {
    fn place<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        entry: &Entry,
        name: &EntryName,
    ) -> Result<(), ArchiveError> {
        let Some((parent, leaf)) = name.split_last() else {
            fchown(
                self.root,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )
            .map_err(|e| failed("own", entry, e))?;
            self.later(name, entry);
            return Ok(());
        };
        let parent = self.parent(parent, entry)?;
        let leaf = Path::new(as_os(leaf));
        match entry.kind {
            EntryKind::Directory => {
                if !make_directory(&parent, leaf, entry)? {
                    clear(&parent, leaf, entry)?;
                    make_directory(&parent, leaf, entry)?;
                }
                own(&parent, leaf, entry)?;
                self.later(name, entry);
            }
            EntryKind::File => {
                clear(&parent, leaf, entry)?;
                self.write_file(tar, &parent, leaf, entry)?;
            }
            EntryKind::Symlink => {
                clear(&parent, leaf, entry)?;
                let target = Path::new(as_os(&entry.target));
                symlinkat(target, &parent, leaf).map_err(|e| failed("link", entry, e))?;
                own(&parent, leaf, entry)?;
                touch(&parent, leaf, entry)?;
            }
            EntryKind::Hardlink => self.hard_link(&parent, leaf, entry)?,
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                clear(&parent, leaf, entry)?;
                let kind = match entry.kind {
                    EntryKind::CharDevice => SFlag::S_IFCHR,
                    EntryKind::BlockDevice => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let device = makedev(u64::from(entry.device.0), u64::from(entry.device.1));
                mknodat(&parent, leaf, kind, Mode::S_IRUSR, device)
                    .map_err(|e| failed("make", entry, e))?;
                self.finish_node(&parent, leaf, kind, entry)?;
            }
        }
        Ok(())
    }

    /// Owner, mode and time of a device or FIFO, by a descriptor of itself: a name could be a link by now.
    fn finish_node(
        &self,
        parent: &OwnedFd,
        leaf: &Path,
        kind: SFlag,
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node =
            openat(parent, leaf, flags, Mode::empty()).map_err(|e| failed("look at", entry, e))?;
        let stat = fstat(&node).map_err(|e| failed("look at", entry, e))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != kind {
            return Err(refuse(entry, Rule::InTheWay));
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(&node, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
            .map_err(|e| failed("own", entry, e))?;
        // A descriptor of O_PATH takes no fchmod; its place in /proc is the node itself.
        let place = format!("/proc/self/fd/{}", node.as_raw_fd());
        let permissions = std::fs::Permissions::from_mode(self.mode(entry));
        std::fs::set_permissions(place, permissions)
            .map_err(|source| tree_error("set the mode of", entry, source))?;
        touch(parent, leaf, entry)
    }

    fn later(&mut self, name: &EntryName, entry: &Entry) {
        self.directories.push(Later {
            name: name.clone(),
            mode: self.mode(entry),
            mtime: entry.mtime,
            attributes: self.attributes(entry),
        });
    }

    /// The attributes of an entry that go along.
    fn attributes(&self, entry: &Entry) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = entry.extra.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.".as_slice())?;
            let take = self.options.attributes.take(name);
            take.then(|| (name.to_vec(), value.clone()))
        });
        named.collect()
    }

    /// The directory an entry goes into, made when missing. Symlinks on the way are followed inside the root.
    fn parent(&self, parts: &[Vec<u8>], entry: &Entry) -> Result<OwnedFd, ArchiveError> {
        let resolved = |e| match e {
            Errno::ENOTDIR | Errno::ELOOP => refuse(entry, Rule::InTheWay),
            e => failed("reach", entry, e),
        };
        match self.root.directory(&path_of(parts)) {
            Err(Errno::ENOENT) => {}
            other => return other.map_err(resolved),
        }
        let mut directory = self.root.directory(Path::new(".")).map_err(resolved)?;
        for depth in 1..=parts.len() {
            let path = path_of(&parts[..depth]);
            directory = match self.root.directory(&path) {
                Err(Errno::ENOENT) => {
                    let leaf = Path::new(as_os(&parts[depth - 1]));
                    match mkdirat(&directory, leaf, Mode::from_bits_truncate(0o755)) {
                        // A symlink to nowhere is there: it cannot be used as a directory.
                        Err(Errno::EEXIST) => return Err(refuse(entry, Rule::InTheWay)),
                        other => other.map_err(|e| failed("make the parent of", entry, e))?,
                    }
                    self.root.directory(&path).map_err(resolved)?
                }
                other => other.map_err(resolved)?,
            };
        }
        Ok(directory)
    }

    fn write_file<R: Read>(
        &self,
        tar: &mut TarReader<R>,
        parent: &OwnedFd,
        leaf: &Path,
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(parent, leaf, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| failed("make", entry, e))?;
        let mut file = File::from(file);
        self.fill(tar, &mut file, entry)?;
        // The owner first: a change of owner clears setuid.
        fchown(
            &file,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .map_err(|e| failed("own", entry, e))?;
        fchmod(&file, Mode::from_bits_truncate(self.mode(entry)))
            .map_err(|e| failed("set the mode of", entry, e))?;
        set_attributes(&file, &self.attributes(entry))
            .map_err(|source| tree_error("set the attributes of", entry, source))?;
        let time = TimeSpec::new(entry.mtime, 0);
        futimens(&file, &time, &time).map_err(|e| failed("set the time of", entry, e))
    }

    /// The content of a file; blocks of zeros are passed over and become holes.
    fn fill<R: Read>(
        &self,
        tar: &mut TarReader<R>,
        file: &mut File,
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        let write = |source| tree_error("write", entry, source);
        let mut buf = vec![0u8; 128 << 10];
        let mut hole = false;
        loop {
            // Whole blocks, whatever pieces the stream comes in: a piece of zeros is a hole only then.
            let mut filled = 0;
            while filled < buf.len() {
                match tar.read(&mut buf[filled..])? {
                    0 => break,
                    n => filled += n,
                }
            }
            if filled == 0 {
                break;
            }
            let piece = &buf[..filled];
            hole = filled >= HOLE && piece.iter().all(|byte| *byte == 0);
            match hole {
                true => file
                    .seek_relative(i64::try_from(filled).unwrap_or(0))
                    .map_err(write)?,
                false => file.write_all(piece).map_err(write)?,
            }
        }
        match hole {
            true => file.set_len(entry.size).map_err(write),
            false => Ok(()),
        }
    }

    fn hard_link(&self, parent: &OwnedFd, leaf: &Path, entry: &Entry) -> Result<(), ArchiveError> {
        let target = EntryName::parse(&entry.target, &self.options.limits)
            .map_err(|rule| refuse(entry, rule))?;
        let Some((target_parent, target_leaf)) = target.split_last() else {
            return Err(refuse(entry, Rule::LinkTarget));
        };
        let missing = |_| refuse(entry, Rule::LinkTarget);
        let from = self
            .root
            .directory(&path_of(target_parent))
            .map_err(missing)?;
        let target_leaf = Path::new(as_os(target_leaf));
        let stat = fstatat(&from, target_leaf, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(missing)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            return Err(refuse(entry, Rule::LinkTarget));
        }
        // A link to itself: removing it first would lose the file.
        if let Ok(there) = fstatat(parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        clear(parent, leaf, entry)?;
        // Without AT_SYMLINK_FOLLOW a link to a symlink is another name of that symlink.
        linkat(&from, target_leaf, parent, leaf, AtFlags::empty())
            .map_err(|e| failed("link", entry, e))
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let set_id = if self.options.keep_setid {
            0o7777
        } else {
            0o1777
        };
        entry.mode & set_id
    }

    /// Innermost first, so that a parent's time is set after its children's.
    fn finish_directories(&mut self) -> Result<(), ArchiveError> {
        let mut directories = std::mem::take(&mut self.directories);
        directories.reverse();
        for later in directories {
            let Later {
                name, mode, mtime, ..
            } = &later;
            let path = name.path();
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let fd = match self.root.open_at(&path, flags, Mode::empty()) {
                Ok(fd) => fd,
                // A later entry replaced it; what is there now has its own mode.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(e) => return Err(shown_error("open", &path, e)),
            };
            // The root of a volume stays usable by its owner, whatever an entry for `.` says.
            let mode = if name.is_root() { mode | 0o700 } else { *mode };
            fchmod(&fd, Mode::from_bits_truncate(mode))
                .map_err(|e| shown_error("set the mode of", &path, e))?;
            set_attributes(&fd, &later.attributes).map_err(|source| ArchiveError::Tree {
                act: "set the attributes of",
                entry: shown(path.as_os_str().as_encoded_bytes()),
                source,
            })?;
            let time = TimeSpec::new(*mtime, 0);
            futimens(&fd, &time, &time).map_err(|e| shown_error("set the time of", &path, e))?;
        }
        Ok(())
    }
}

fn set_attributes(
    file: impl std::os::fd::AsFd,
    attributes: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    for (name, value) in attributes {
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&file, name.as_slice(), value, none)?;
    }
    Ok(())
}

fn as_os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Whether the directory is there now; `false` when something else is.
fn make_directory(parent: &OwnedFd, leaf: &Path, entry: &Entry) -> Result<bool, ArchiveError> {
    match mkdirat(parent, leaf, Mode::S_IRWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => {
            let stat = fstatat(parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|e| failed("look at", entry, e))?;
            Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
        }
        Err(e) => Err(failed("make", entry, e)),
    }
}

/// Removes what an entry replaces: the name only, so nothing is written through a link.
fn clear(parent: &OwnedFd, leaf: &Path, entry: &Entry) -> Result<(), ArchiveError> {
    match unlinkat(parent, leaf, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => match unlinkat(parent, leaf, UnlinkatFlags::RemoveDir)
        {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(refuse(entry, Rule::InTheWay)),
            other => other.map_err(|e| failed("replace", entry, e)),
        },
        Err(e) => Err(failed("replace", entry, e)),
    }
}

fn own(parent: &OwnedFd, leaf: &Path, entry: &Entry) -> Result<(), ArchiveError> {
    let (uid, gid) = (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    );
    fchownat(parent, leaf, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|e| failed("own", entry, e))
}

fn touch(parent: &OwnedFd, leaf: &Path, entry: &Entry) -> Result<(), ArchiveError> {
    let time = TimeSpec::new(entry.mtime, 0);
    utimensat(parent, leaf, &time, &time, UtimensatFlags::NoFollowSymlink)
        .map_err(|e| failed("set the time of", entry, e))
}

fn refuse(entry: &Entry, rule: Rule) -> ArchiveError {
    ArchiveError::Entry {
        entry: shown(&entry.path),
        rule,
    }
}

fn failed(act: &'static str, entry: &Entry, errno: Errno) -> ArchiveError {
    tree_error(act, entry, errno.into())
}

fn tree_error(act: &'static str, entry: &Entry, source: io::Error) -> ArchiveError {
    ArchiveError::Tree {
        act,
        entry: shown(&entry.path),
        source,
    }
}

fn shown_error(act: &'static str, path: &Path, errno: Errno) -> ArchiveError {
    ArchiveError::Tree {
        act,
        entry: shown(path.as_os_str().as_encoded_bytes()),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
