//! Puts what an archive holds into a tree that others use: extracted into a private directory beside its place, then
//! moved there by name.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::io::{self, Cursor, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::write::list;
use super::{
    ArchiveError, ExtractOptions, Extracted, Limits, Packing, Root, Rule, extract_mapped, shown,
    tar_of_zip,
};

/// Directory in the private one that becomes the place; the private one's own mode stays ours.
const INNER: &str = "t";

/// Extracts an archive (tar, compressed or not, or zip) at `path` inside `root`.
///
/// Is `path` a directory, the entries go into it: files replace files, directories are joined, and a directory that is
/// there keeps owner and mode. Is it none, its parent must be one; then the archive is either a tree with an entry for its
/// root (`.`), which becomes `path`, or has one entry at its top, which does. `owners` makes the owner and group on disk of
/// those in the archive.
///
/// Everything is extracted into a directory `.portlayer-<random>` beside its place that only the calling user can enter,
/// and moved when the whole archive was read: an archive that is refused changes nothing. A crash can leave that directory.
///
/// # Errors
/// As [`super::extract`]; [`ArchiveError::Tree`] when `path` cannot be reached, [`Rule::InTheWay`] when a file stands where
/// a directory is to be or the reverse, [`ArchiveError::NotOne`] when `path` is to be one thing and the archive has several.
pub fn place<R: Read>(
    archive: R,
    root: &Root,
    path: &Path,
    options: &ExtractOptions,
    owners: &dyn Fn(u32, u32) -> (u32, u32),
) -> Result<Extracted, ArchiveError> {
    let tar = Source::open(archive, &options.limits)?;
    let (directory, new_name) = destination(root, path)?;
    let stage = Stage::make(directory)?;
    let extracted = extract_mapped(tar, &stage.inner, options, owners)?;
    match new_name {
        None => merge(&stage.inner, stage.beside.as_fd(), Path::new(""))?,
        Some(name) => stage.become_(&name, extracted.has_root)?,
    }
    Ok(extracted)
}

/// The directory things go into, and the name they get when `path` is not there or is no directory.
fn destination(root: &Root, path: &Path) -> Result<(OwnedFd, Option<Vec<u8>>), ArchiveError> {
    let label = path.as_os_str().as_bytes();
    let failed = |errno: Errno| tree("open", label, errno.into());
    match root.directory(path) {
        Ok(directory) => return Ok((directory, None)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        Err(errno) => return Err(failed(errno)),
    }
    // `x/` asks for a directory.
    let name = path
        .file_name()
        .filter(|_| !label.ends_with(b"/") && !label.ends_with(b"/."))
        .ok_or_else(|| failed(Errno::ENOTDIR))?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = root
        .directory(parent.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    Ok((parent, Some(name.as_bytes().to_vec())))
}

/// An archive as a tar: the stream itself, or a zip made one.
enum Source<R> {
    Stream(io::Chain<Cursor<Vec<u8>>, R>),
    Spooled(std::fs::File),
}

impl<R: Read> Source<R> {
    fn open(mut archive: R, limits: &Limits) -> Result<Source<R>, ArchiveError> {
        let mut head = Vec::new();
        archive
            .by_ref()
            .take(512)
            .read_to_end(&mut head)
            .map_err(ArchiveError::Read)?;
        let packing = Packing::detect(&head);
        let mut stream = Cursor::new(head).chain(archive);
        if packing != Some(Packing::Zip) {
            return Ok(Source::Stream(stream));
        }
        // The directory of a zip is at its end.
        let mut zip = tempfile::tempfile().map_err(ArchiveError::Read)?;
        let limit = limits.bytes;
        let copied = io::copy(&mut stream.by_ref().take(limit.saturating_add(1)), &mut zip)
            .map_err(ArchiveError::Read)?;
        if copied > limit {
            return Err(ArchiveError::TooManyBytes { limit });
        }
        let mut tar = tempfile::tempfile().map_err(ArchiveError::Read)?;
        tar_of_zip(zip, &mut tar, limits)?;
        tar.rewind().map_err(ArchiveError::Read)?;
        Ok(Source::Spooled(tar))
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Stream(stream) => stream.read(buffer),
            Source::Spooled(file) => file.read(buffer),
        }
    }
}

/// The private directory; dropped, it and what is still in it are removed.
struct Stage {
    beside: OwnedFd,
    name: PathBuf,
    private: OwnedFd,
    inner: Root,
}

impl Stage {
    fn make(beside: OwnedFd) -> Result<Stage, ArchiveError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // A name nobody can guess and take first; taken all the same it is an error.
        let name = PathBuf::from(format!(
            ".portlayer-{:016x}",
            RandomState::new().hash_one(0)
        ));
        let failed = |errno: Errno| tree("make", name.as_os_str().as_bytes(), errno.into());
        mkdirat(&beside, &name, Mode::S_IRWXU).map_err(failed)?;
        let made = || -> Result<(OwnedFd, Root), Errno> {
            let private = openat(&beside, &name, flags, Mode::empty())?;
            mkdirat(&private, INNER, Mode::from_bits_truncate(0o755))?;
            let inner = openat(&private, INNER, flags, Mode::empty())?;
            Ok((private, Root::from_fd(inner)))
        };
        match made() {
            Ok((private, inner)) => Ok(Stage {
                beside,
                name,
                private,
                inner,
            }),
            Err(errno) => {
                // Only tidying up: the error is what counts.
                let _ = remove(beside.as_fd(), name.as_os_str());
                Err(failed(errno))
            }
        }
    }

    /// Moves the tree, or the one entry at its top, to `name` beside it.
    fn become_(&self, name: &[u8], whole: bool) -> Result<(), ArchiveError> {
        let leaf = OsStr::from_bytes(name);
        if whole {
            return move_one(
                self.private.as_fd(),
                OsStr::new(INNER),
                self.beside.as_fd(),
                leaf,
            );
        }
        let entries = names(self.inner.as_fd())?;
        let [one] = entries.as_slice() else {
            return Err(ArchiveError::NotOne {
                path: shown(name),
                entries: entries.len() as u64,
            });
        };
        move_one(
            self.inner.as_fd(),
            OsStr::from_bytes(one),
            self.beside.as_fd(),
            leaf,
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What cannot be removed stays for whoever looks: the files are in their place or the error is told already.
        let _ = remove(self.beside.as_fd(), self.name.as_os_str());
    }
}

/// Moves every entry of a directory into another; directories that are there already are joined.
fn merge(from: &Root, into: std::os::fd::BorrowedFd<'_>, at: &Path) -> Result<(), ArchiveError> {
    for name in names(from.as_fd())? {
        let leaf = OsStr::from_bytes(&name);
        let path = at.join(std::ffi::OsString::from_vec(name.clone()));
        let (new, old) = (is_directory(from.as_fd(), leaf), is_directory(into, leaf));
        if let (Ok(true), Ok(true)) = (new, old) {
            let open = |fd| {
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(fd, leaf, flags, Mode::empty())
                    .map_err(|errno| tree("open", path.as_os_str().as_bytes(), errno.into()))
            };
            merge(
                &Root::from_fd(open(from.as_fd())?),
                open(into)?.as_fd(),
                &path,
            )?;
        } else {
            move_one(from.as_fd(), leaf, into, leaf)?;
        }
    }
    Ok(())
}

/// Moves one entry; a file takes the place of a file, and nothing takes the place of a directory that is not empty.
fn move_one(
    from: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    into: std::os::fd::BorrowedFd<'_>,
    new_name: &OsStr,
) -> Result<(), ArchiveError> {
    let moved = match renameat2(from, name, into, new_name, RenameFlags::RENAME_NOREPLACE) {
        // Something is there, or the file system knows no such flag.
        Err(Errno::EEXIST | Errno::EINVAL | Errno::ENOSYS) => renameat(from, name, into, new_name),
        other => other,
    };
    match moved {
        Err(Errno::EISDIR | Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
            Err(ArchiveError::Entry {
                entry: shown(new_name.as_bytes()),
                rule: Rule::InTheWay,
            })
        }
        other => other.map_err(|errno| tree("move", new_name.as_bytes(), errno.into())),
    }
}

fn is_directory(at: std::os::fd::BorrowedFd<'_>, leaf: &OsStr) -> Result<bool, Errno> {
    let stat = fstatat(at, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn names(of: std::os::fd::BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let fd = of
        .try_clone_to_owned()
        .map_err(|source| tree("list", b".", source))?;
    list(&fd, Path::new("."))
}

/// Removes an entry with all below it, following no link.
fn remove(at: std::os::fd::BorrowedFd<'_>, leaf: &OsStr) -> Result<(), Errno> {
    match unlinkat(at, leaf, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        other => return other,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(at, leaf, flags, Mode::empty())?;
    for name in names(directory.as_fd()).map_err(|_| Errno::EIO)? {
        remove(directory.as_fd(), OsStr::from_bytes(&name))?;
    }
    unlinkat(at, leaf, UnlinkatFlags::RemoveDir)
}

fn tree(act: &'static str, name: &[u8], source: io::Error) -> ArchiveError {
    ArchiveError::Tree {
        act,
        entry: shown(name),
        source,
    }
}

#[cfg(test)]
mod tests;
