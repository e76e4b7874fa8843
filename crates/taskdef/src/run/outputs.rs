//! Outputs: read out of the still living container, never through a link.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use portlayer::archive::Root;
use thiserror::Error;

use super::container::{Container, ContainerError};
use super::inside::blocking;
use crate::plan::{Output, Overflow};

/// Why an output could not be read.
#[derive(Debug, Error)]
pub(super) enum OutputError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It is larger than allowed.
    #[error("{path} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        path: String,
        bytes: u64,
        limit: u64,
    },
}

/// The content of the outputs, one after the other.
pub(super) async fn read(container: &Container, outputs: &[Output]) -> Result<String, OutputError> {
    let mut all = Vec::new();
    for output in outputs {
        let Output::File {
            path,
            limit_bytes,
            overflow,
        } = output;
        let view = container.look_inside().await?;
        let root = view.user("root").await?;
        let (place, tree, limit) = (root.place(path), view.root()?, *limit_bytes);
        let (bytes, size) = blocking(move || content(&tree, &place, limit)).await?;
        if size > limit && *overflow == Overflow::Fail {
            return Err(OutputError::TooLarge {
                path: path.clone(),
                bytes: size,
                limit,
            });
        }
        all.extend(bytes);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// At most `limit` bytes of a file, and its size; nothing of a directory, a link or anything else that is no file.
fn content(root: &Root, path: &Path, limit: u64) -> Result<(Vec<u8>, u64), ContainerError> {
    let failed = |errno| ContainerError::Path {
        path: path.display().to_string(),
        errno,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = match root.open_at(path, flags, Mode::empty()) {
        Err(Errno::ELOOP) => return Ok((Vec::new(), 0)),
        other => other.map_err(failed)?,
    };
    let stat = fstat(&opened).map_err(failed)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Ok((Vec::new(), 0));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut bytes = Vec::new();
    // A file can grow while it is read, and those of /proc have no size: what is read counts.
    let read = File::from(opened)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes);
    let read =
        read.map_err(|error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(0))))? as u64;
    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((bytes, size.max(read)))
}
