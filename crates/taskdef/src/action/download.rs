//! Download: an archive is fetched on the host and extracted in the container as its user.

use portlayer::archive::{ArchiveError, Root, extract};
use portlayer::archive::{ExtractOptions, Limits, extract_owned};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage};
use crate::fetch::{FetchError, Packing, packing, size, tar_of_zip};
use crate::log::Streamer;
use crate::plan::{Download, Format};
use crate::run::Owner;

pub(super) async fn perform(
    stage: &Stage,
    download: &Download,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let archive = &download.archive;
    let log = stage.log.source(&archive.source);
    let label = archive.label.as_deref();
    let say = |text: String| {
        if label.is_some() {
            log.stdout(&text);
        }
    };
    let named = label.map(|label| format!("{label} ")).unwrap_or_default();
    let name = label.unwrap_or_default();
    say(format!("Downloading {name}..."));
    let fetched = match stage.fetcher.fetch(archive, cancel).await {
        Ok(fetched) => fetched,
        Err(FetchError::Cancelled) => return Err(ActionError::Cancelled),
        Err(error) => {
            return Err(not_fetched(&log, &named, &error));
        }
    };
    let copied = copy_in(stage, download, fetched.file, archive.format).await;
    if cancel.is_cancelled() {
        return Err(ActionError::Cancelled);
    }
    match copied {
        Ok(()) => {}
        Err(CopyError::Format(error)) => {
            return Err(not_fetched(&log, &named, &error));
        }
        Err(error) => {
            let reason = format!("Copying {named}into the container failed: {error}");
            log.stderr(&reason);
            return Err(ActionError::Failed(reason));
        }
    }
    match fetched.downloaded_bytes {
        Some(bytes) => say(format!("Downloaded {name} ({})", size::shown(bytes))),
        None => say(format!("Downloaded {name}")),
    }
    Ok(())
}

/// Diego hides the cause everywhere; its text is matched by clients, in reasons and in the log, so the cause is a line
/// of its own.
fn not_fetched(log: &Streamer, named: &str, error: &FetchError) -> ActionError {
    let reason = format!("Downloading {named}failed");
    log.stderr(&reason);
    log.stderr(&format!("cause: {error}"));
    ActionError::Failed(reason)
}

/// Why an archive could not be put into the container.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Format(FetchError),
    #[error(transparent)]
    Container(#[from] crate::run::ContainerError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the directory cannot be opened")]
    Directory(#[source] nix::errno::Errno),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

async fn copy_in(
    stage: &Stage,
    download: &Download,
    mut file: File,
    promised: Option<Format>,
) -> Result<(), CopyError> {
    let spool = stage.fetcher.directory().to_owned();
    let tar = tokio::task::spawn_blocking(move || match packing(&mut file, promised)? {
        Packing::Tar => Ok(file),
        Packing::Zip => {
            let mut tar = tempfile::tempfile_in(spool)?;
            tar_of_zip(file, &mut tar, &Limits::default())?;
            tar.seek(SeekFrom::Start(0))?;
            Ok(tar)
        }
    });
    let tar = tar
        .await
        .map_err(std::io::Error::other)?
        .map_err(CopyError::Format)?;
    let view = stage.container.look_inside().await?;
    let user = view.user(&download.user).await?;
    let directory = view
        .ensure_directory(user.place(&download.to), &user)
        .await?;
    let owner = view.owner(&user)?;
    // As the user: what it may not write into, a download for it may not either.
    owner
        .act(move || {
            let root = Root::from_fd(reopen(directory)?);
            let options = ExtractOptions::default();
            match owner {
                // Root keeps the owners an archive names, as tar does; without a mapping of ids there is nothing to map.
                Owner { uid: 0, .. } => extract(tar, &root, &options),
                Owner { uid, gid, .. } => extract_owned(tar, &root, &options, (uid, gid)),
            }?;
            Ok(())
        })
        .await?
}

/// The extractor needs a directory it can read from.
fn reopen(directory: std::os::fd::OwnedFd) -> Result<std::os::fd::OwnedFd, CopyError> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(&directory, ".", flags, Mode::empty()).map_err(CopyError::Directory)
}
