//! Writes an archive into a directory, never outside it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::name::path_of;
use super::scan::check_entry;
use super::{ArchiveError, Entry, EntryKind, EntryName, Limits, Root, Rule, TarReader, shown};

/// The kernel's overflow id.
const NOBODY: u32 = 65_534;

/// How to extract.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// What it may cost.
    pub limits: Limits,
    /// Keep setuid and setgid bits; they are dropped otherwise.
    pub keep_setid: bool,
}

/// What was extracted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub file_bytes: u64,
}

/// Extracts a tar (plain, gzip or zstd) into `root`. Owners, modes and times are taken over; extended attributes are
/// not. Later entries replace earlier ones, as every tar does, but never a directory that is not empty.
///
/// On an error what was written so far stays: extract into a private staging directory and throw it away.
/// No other process may write into the root meanwhile.
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

/// Who gets what is extracted.
#[derive(Clone, Copy)]
enum Owners {
    AsWritten,
    All(u32, u32),
    From(u32),
}

fn place_all<R: Read>(
    reader: R,
    root: &Root,
    options: &ExtractOptions,
    owners: Owners,
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
            Owners::From(first) => (below(entry.uid, first), below(entry.gid, first)),
        };
        tree.place(&mut tar, &entry, &name)?;
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
    directories: Vec<(EntryName, u32, i64)>,
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
            self.directories
                .push((name.clone(), self.mode(entry), entry.mtime));
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
                self.directories
                    .push((name.clone(), self.mode(entry), entry.mtime));
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
                own(&parent, leaf, entry)?;
                fchmodat(
                    &parent,
                    leaf,
                    Mode::from_bits_truncate(self.mode(entry)),
                    FchmodatFlags::FollowSymlink,
                )
                .map_err(|e| failed("set the mode of", entry, e))?;
                touch(&parent, leaf, entry)?;
            }
        }
        Ok(())
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
        let mut buf = vec![0u8; 128 << 10];
        loop {
            let n = tar.read(&mut buf)?;
            if n == 0 {
                break;
            }
            file.write_all(&buf[..n])
                .map_err(|source| tree_error("write", entry, source))?;
        }
        // The owner first: a change of owner clears setuid.
        fchown(
            &file,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .map_err(|e| failed("own", entry, e))?;
        fchmod(&file, Mode::from_bits_truncate(self.mode(entry)))
            .map_err(|e| failed("set the mode of", entry, e))?;
        let time = TimeSpec::new(entry.mtime, 0);
        futimens(&file, &time, &time).map_err(|e| failed("set the time of", entry, e))
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
        for (name, mode, mtime) in directories {
            let path = name.path();
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let fd = match self.root.open_at(&path, flags, Mode::empty()) {
                Ok(fd) => fd,
                // A later entry replaced it; what is there now has its own mode.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                Err(e) => return Err(shown_error("open", &path, e)),
            };
            // The root of a volume stays usable by its owner, whatever an entry for `.` says.
            let mode = if name.is_root() { mode | 0o700 } else { mode };
            fchmod(&fd, Mode::from_bits_truncate(mode))
                .map_err(|e| shown_error("set the mode of", &path, e))?;
            let time = TimeSpec::new(mtime, 0);
            futimens(&fd, &time, &time).map_err(|e| shown_error("set the time of", &path, e))?;
        }
        Ok(())
    }
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
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::archive::{TarBuilder, write_tree};

    fn unpack(archive: &[u8], keep_setid: bool) -> (tempfile::TempDir, Extracted) {
        let dir = tempfile::tempdir().unwrap();
        let options = ExtractOptions {
            keep_setid,
            ..ExtractOptions::default()
        };
        let got = extract(archive, &Root::open(dir.path()).unwrap(), &options).unwrap();
        (dir, got)
    }

    #[test]
    fn owners_modes_times_and_links_survive_a_round_trip() {
        let owner = nix::unistd::geteuid().as_raw();
        let group = nix::unistd::getegid().as_raw();
        let archive = TarBuilder::new()
            .owner(owner, group)
            .mtime(1_000_000)
            .dir("d", 0o2750)
            .file("d/f", 0o640, b"hello")
            .file("d/deep/made/parents", 0o600, &[1; 100_000])
            .hardlink("d/g", "d/f")
            .symlink("s", "/d/f")
            .entry(
                EntryKind::File,
                &[b"n".repeat(90), b"/".to_vec(), b"m".repeat(200)].concat(),
                b"",
                0o644,
                b"long",
            )
            .finish();
        let (first, got) = unpack(&archive, true);
        assert_eq!(got.file_bytes, 5 + 100_000 + 4);
        let mut out = Vec::new();
        write_tree(&Root::open(first.path()).unwrap(), &mut out).unwrap();
        let (second, _) = unpack(&out, true);
        let path = second.path();
        assert_eq!(std::fs::read(path.join("d/f")).unwrap(), b"hello");
        assert_eq!(
            path.join("d/f").metadata().unwrap().ino(),
            path.join("d/g").metadata().unwrap().ino()
        );
        assert_eq!(path.join("d/f").metadata().unwrap().mtime(), 1_000_000);
        assert_eq!(path.join("d").metadata().unwrap().mtime(), 1_000_000);
        assert_eq!(
            path.join("d").metadata().unwrap().permissions().mode() & 0o7777,
            0o2750
        );
        assert_eq!(
            std::fs::read_link(path.join("s")).unwrap(),
            Path::new("/d/f")
        );
        assert_eq!(
            std::fs::read_dir(path.join("n".repeat(90)))
                .unwrap()
                .count(),
            1
        );
        let mut again = Vec::new();
        write_tree(&Root::open(second.path()).unwrap(), &mut again).unwrap();
        // The parent made on the way has no time in the archive; everything else is byte for byte the same.
        assert_eq!(out.len(), again.len());
    }

    #[test]
    fn setuid_is_dropped_unless_asked_for() {
        let owner = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        let archive = TarBuilder::new()
            .owner(owner.0, owner.1)
            .file("su", 0o4755, b"x")
            .finish();
        let mode =
            |dir: &tempfile::TempDir| dir.path().join("su").metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&unpack(&archive, false).0), 0o755);
        assert_eq!(mode(&unpack(&archive, true).0), 0o4755);
    }

    #[test]
    fn a_replaced_original_does_not_change_its_hard_links() {
        let owner = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        let archive = TarBuilder::new()
            .owner(owner.0, owner.1)
            .file("a", 0o644, b"old")
            .hardlink("b", "a")
            .file("a", 0o644, b"new")
            .finish();
        let (dir, _) = unpack(&archive, false);
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"old");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
    }
}
