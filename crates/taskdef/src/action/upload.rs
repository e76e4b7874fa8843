//! Upload: a file of the container, read as its user, is posted from the host.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use portlayer::archive::Root;
use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage};
use crate::fetch::{FetchError, Sums, size};
use crate::plan::Upload;

pub(super) async fn perform(
    stage: &Stage,
    upload: &Upload,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let log = stage.log.source(&upload.source);
    let label = upload.label.as_deref();
    let say = |text: String| {
        if label.is_some() {
            log.stdout(&text);
        }
    };
    // As in Diego: what is silent about its success is silent about its failure, the reason says it all the same.
    let failed = |what: &str| {
        let text = match label {
            Some(label) => format!("{what} for {label}"),
            None => what.to_owned(),
        };
        if label.is_some() {
            log.stderr(&text);
        }
        text
    };
    let name = label.unwrap_or_default();
    say(format!("Uploading {name}..."));
    if url::Url::parse(&upload.url).is_err() {
        // Not the URL: it may hold a secret.
        return Err(ActionError::NotStarted(failed("Failed to parse URL")));
    }
    let spooled = match spool(stage, upload).await {
        Ok(spooled) => spooled,
        Err(error) => {
            let reason = failed(match error {
                // Garden's stream is there and empty.
                SpoolError::NotAFile | SpoolError::Open(_) => {
                    "Failed to find first item in tar stream"
                }
                SpoolError::Spool(_) => "Failed to copy stream contents into temp file",
                SpoolError::Container(_) => "Failed to establish stream from container",
            });
            log.stderr(&format!("cause: {}: {error}", upload.from));
            return Err(ActionError::Failed(reason));
        }
    };
    let sent = stage
        .fetcher
        .send(
            &upload.url,
            spooled.file.path(),
            &spooled.sums,
            spooled.bytes,
            cancel,
        )
        .await;
    match sent {
        Ok(()) => {
            say(format!("Uploaded {name} ({})", size::shown(spooled.bytes)));
            Ok(())
        }
        Err(FetchError::Cancelled) => Err(ActionError::Cancelled),
        Err(error) => {
            failed("Failed to upload payload");
            Err(ActionError::NotStarted(match error {
                FetchError::Status { status, .. } => format!("Upload failed: Status code {status}"),
                error => format!("Upload failed: {error}"),
            }))
        }
    }
}

struct Spooled {
    file: tempfile::NamedTempFile,
    sums: Sums,
    bytes: u64,
}

/// Why a file of the container could not be read.
#[derive(Debug, thiserror::Error)]
enum SpoolError {
    #[error(transparent)]
    Container(#[from] crate::run::ContainerError),
    #[error("{}", .0.desc())]
    Open(Errno),
    #[error("it is no regular file")]
    NotAFile,
    #[error("it cannot be copied")]
    Spool(#[from] std::io::Error),
}

async fn spool(stage: &Stage, upload: &Upload) -> Result<Spooled, SpoolError> {
    let directory = stage.fetcher.directory().to_owned();
    let view = stage.container.look_inside().await?;
    let user = view.user(&upload.user).await?;
    let path = user.place(&upload.from);
    let owner = view.owner(&user)?;
    let root = view.root()?;
    let opened = owner.act(move || open(&root, path)).await??;
    let copied = tokio::task::spawn_blocking(move || copy(opened, &directory));
    Ok(copied.await.map_err(std::io::Error::other)??)
}

fn open(root: &Root, path: PathBuf) -> Result<File, SpoolError> {
    // Not to be held up by a FIFO; what is no file is not read.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened: OwnedFd = root
        .open_at(&path, flags, Mode::empty())
        .map_err(SpoolError::Open)?;
    let stat = fstat(&opened).map_err(SpoolError::Open)?;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
        true => Ok(File::from(opened)),
        false => Err(SpoolError::NotAFile),
    }
}

fn copy(mut from: File, directory: &std::path::Path) -> std::io::Result<Spooled> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let mut sums = Sums::new(None);
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        sums.update(&buffer[..read]);
        file.write_all(&buffer[..read])?;
    }
    file.flush()?;
    Ok(Spooled { file, sums, bytes })
}
