//! Files copied out of and into running executors and volumes, as archives.
//!
//! Every path is resolved inside the executor or volume, what is written is staged beside its place, and both are bounded:
//! [`crate::archive`] has the rules. A copy is no use of a volume in the ledger: it only keeps the volume from being deleted
//! meanwhile.

mod owner;
mod tree;

use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio_util::io::SyncIoBridge;

use crate::PortLayer;
use crate::archive::{
    ArchiveError, Attributes, Encoder, ExtractOptions, Extracted, Limits, Packing, Root,
    WriteOptions, place, write_at, zip_of_tar,
};
use crate::compose::TaskError;
use crate::element::{DataStream, ElementId, stream};
use crate::error::{LocationError, ReadError};
use crate::store::StoreError;
use tree::Tree;

/// What goes along, and how much of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// FIFOs and devices too; they are left out of what is read and refused in what is written otherwise.
    pub special_nodes: bool,
    /// Set-id bits too.
    pub keep_setid: bool,
    /// Which extended attributes.
    pub attributes: Attributes,
    /// At most so many bytes; the bound of archives ([`Limits::default`]) otherwise.
    pub bytes: Option<u64>,
}

impl CopyOptions {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            bytes: self.bytes.unwrap_or(default.bytes),
            special_nodes: self.special_nodes,
            ..default
        }
    }
}

/// A copy that was refused or failed.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The element cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its location cannot be used for that.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The executor is not there or does not run.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// It has no files that could be reached from outside: no executor and no volume, or one that lives in memory.
    #[error("{id} has no files to copy")]
    NoFiles {
        /// The element.
        id: ElementId,
    },
    /// The store cannot show the volume.
    #[error("the files of {id} cannot be reached")]
    Store {
        /// The volume.
        id: ElementId,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The path is not there, or is none.
    #[error("{path} of {id} cannot be reached")]
    Path {
        /// The element.
        id: ElementId,
        /// The path, escaped.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The archive is refused, or cannot be written there.
    #[error("copying to {path} of {id} failed")]
    Archive {
        /// The element.
        id: ElementId,
        /// The path, escaped.
        path: String,
        /// Cause.
        #[source]
        source: ArchiveError,
    },
    /// No thread could be started for it, or it fell over.
    #[error("copying from or to {id} could not be done")]
    Thread {
        /// The element.
        id: ElementId,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl PortLayer {
    /// What is at `path` of a running executor (as its tasks see it, volumes included) or of a volume, as an archive. Its
    /// entries are named by the last part of the path; of a path that ends in `/.`, and of the root, they are the directory's.
    /// Owners are those inside. A link at the end of the path is archived as a link.
    ///
    /// # Errors
    /// `Read`, `Location`, `Task` (`Idle`: the executor does not run), `NoFiles`, `Store`, `Path`, `Thread`. What fails later is
    /// the stream's error.
    pub async fn copy_out(
        &self,
        from: &ElementId,
        path: &str,
        packing: Packing,
        options: &CopyOptions,
    ) -> Result<DataStream, CopyError> {
        let (place, name) = named(path);
        let options = WriteOptions {
            limits: options.limits(),
            keep_setid: options.keep_setid,
            hard_links: packing != Packing::Zip,
            attributes: options.attributes,
        };
        let tree = self.tree(from, false).await?;
        // Now, while there is someone to tell it to.
        let found = tree.find(&place);
        if let Err(errno) = found {
            let failed = CopyError::Path {
                id: from.clone(),
                path: crate::archive::shown(path.as_bytes()),
                source: errno.into(),
            };
            tree.release().await;
            return Err(failed);
        }
        let handle = tokio::runtime::Handle::current();
        Ok(stream::produce_blocking(move |out| {
            let written = archive_of(&tree, &place, &name, out, packing, &options);
            // Before the reader sees the end: whoever has all of it may delete the volume.
            handle.block_on(tree.release());
            written.map_err(io::Error::other)
        }))
    }

    /// Extracts an archive (tar, compressed or not, or zip) at `path` of a running executor or of a volume; see
    /// [`crate::archive::place`] for what becomes of it when there is a directory, a file or nothing. Owners are those inside.
    ///
    /// # Errors
    /// As [`PortLayer::copy_out`], and `Archive`; then nothing was changed, unless moving what was extracted failed half-way.
    pub async fn copy_in(
        &self,
        to: &ElementId,
        path: &str,
        data: DataStream,
        options: &CopyOptions,
    ) -> Result<Extracted, CopyError> {
        let options = ExtractOptions {
            limits: options.limits(),
            keep_setid: options.keep_setid,
            attributes: options.attributes,
        };
        let tree = self.tree(to, true).await?;
        let (id, label) = (to.clone(), crate::archive::shown(path.as_bytes()));
        let path = PathBuf::from(path);
        // A task of its own: a caller that goes away breaks the stream, and the volume is let go all the same.
        let copied = tokio::spawn(async move {
            let bridge = SyncIoBridge::new(data);
            let (tree, placed) = owner::on_thread(move || {
                let placed =
                    tree.as_owner(|root, owners| place(bridge, root, &path, &options, owners));
                (tree, placed)
            })
            .await?;
            tree.release().await;
            Ok(placed)
        });
        let failed = |source| CopyError::Thread {
            id: id.clone(),
            source,
        };
        let placed = copied
            .await
            .map_err(|error| failed(io::Error::other(error)))
            .and_then(|placed| placed.map_err(failed))?;
        placed.map_err(failed)?.map_err(|source| match source {
            ArchiveError::Tree {
                act: "open",
                source,
                ..
            } => CopyError::Path {
                id: id.clone(),
                path: label.clone(),
                source,
            },
            source => CopyError::Archive {
                id: id.clone(),
                path: label.clone(),
                source,
            },
        })
    }
}

/// The path to archive, and the name its entries begin with (empty: those of a directory).
fn named(path: &str) -> (PathBuf, Vec<u8>) {
    let of_directory = path.ends_with("/.") || path == ".";
    let place = PathBuf::from(path.trim_end_matches('/'));
    match place.file_name() {
        Some(name) if !of_directory => {
            let name = name.as_encoded_bytes().to_vec();
            (place, name)
        }
        _ if place.as_os_str().is_empty() => (PathBuf::from("/"), Vec::new()),
        _ => (place, Vec::new()),
    }
}

fn archive_of(
    tree: &Tree,
    path: &Path,
    name: &[u8],
    out: impl io::Write,
    packing: Packing,
    options: &WriteOptions,
) -> Result<(), ArchiveError> {
    let owners = |uid, gid| tree.inside(uid, gid);
    match packing {
        Packing::Tar(compression) => {
            let mut out = Encoder::new(out, compression).map_err(ArchiveError::Read)?;
            write_at(tree.root(), path, name, &mut out, options, &owners)?;
            out.finish().map(drop).map_err(ArchiveError::Read)
        }
        Packing::Zip => {
            let mut tar = tempfile::tempfile().map_err(ArchiveError::Read)?;
            write_at(tree.root(), path, name, &mut tar, options, &owners)?;
            tar.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
            // Headers are not counted when a tree is written, and are when it is read.
            let roomy = Limits {
                bytes: u64::MAX,
                ..options.limits
            };
            zip_of_tar(tar, out, &roomy).map(drop)
        }
    }
}

impl Tree {
    fn find(&self, path: &Path) -> Result<(), nix::errno::Errno> {
        use nix::fcntl::OFlag;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        self.root()
            .open_at(path, flags, nix::sys::stat::Mode::empty())
            .map(drop)
    }

    /// Does work on the root as whoever is root inside, with the owners of what is made.
    fn as_owner<T>(
        &self,
        work: impl FnOnce(&Root, &dyn Fn(u32, u32) -> (u32, u32)) -> T,
    ) -> io::Result<T> {
        let (uid, gid) = self.outside(0, 0);
        owner::become_owner(uid, gid)?;
        Ok(work(self.root(), &|uid, gid| self.outside(uid, gid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_by_the_last_part_of_the_path() {
        let of = |path: &str| {
            let (place, name) = named(path);
            (
                place.display().to_string(),
                String::from_utf8(name).unwrap(),
            )
        };
        assert_eq!(of("/a/b"), ("/a/b".into(), "b".into()));
        assert_eq!(of("/a/b/"), ("/a/b".into(), "b".into()));
        assert_eq!(of("/a/b/."), ("/a/b/.".into(), String::new()));
        assert_eq!(of("/"), ("/".into(), String::new()));
        assert_eq!(of("/a/.."), ("/a/..".into(), String::new()));
        assert_eq!(of(""), ("/".into(), String::new()));
    }
}
