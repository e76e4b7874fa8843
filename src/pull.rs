//! Images from registries: what a registry has under a reference becomes an image element, through the same verified
//! import as an archive a caller brings.

use std::path::PathBuf;
use std::time::Duration;

use portlayer::PortLayer;
use portlayer::element::{Descriptor, ElementId, Kind, NewElement};
use portlayer::error::{CreateError, ErrorKind};
use portlayer::store::{Progress, ProgressSink};
use portlayer_client::wire::Fault;
use portlayer_registry::{Config as Registries, Credentials, Platform, PullError, Reference};
use portlayer_runtime::image::native_architecture;
use thiserror::Error;

use crate::config::Config;

/// What a node knows of registries. Nothing of a call stays in it: no credentials, no tokens, no answers.
#[derive(Debug, Clone)]
pub struct Pulls {
    registries: Registries,
    staging: PathBuf,
}

/// A pulled image.
#[derive(Debug)]
pub struct PulledImage {
    /// The element.
    pub image: Descriptor,
    /// Digest of what the reference names: an index or a manifest.
    pub digest: String,
    /// Digest of this platform's manifest.
    pub manifest: String,
}

/// Why there is no image. Nothing is left then.
#[derive(Debug, Error)]
pub enum PullImageError {
    /// The element has data or a parent: then there is nothing to pull.
    #[error("{id}: a pulled image has neither data nor parent")]
    Given {
        /// The element.
        id: ElementId,
    },
    /// The registry.
    #[error("pulling {id} failed")]
    Registry {
        /// The element.
        id: ElementId,
        /// What the registry client says.
        #[source]
        source: PullError,
    },
    /// What came is no element.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl Pulls {
    /// As a node is configured.
    pub fn of(config: &Config) -> Self {
        let settings = &config.pull;
        Self {
            registries: Registries {
                mirrors: settings.mirrors.clone(),
                insecure: settings.insecure.clone(),
                stall: Duration::from_secs(settings.stall_seconds),
                retries: settings.retries,
                max_bytes: settings.max_bytes,
            },
            staging: config.data_dir.join("staging").join("pull"),
        }
    }

    /// Pulls an image and makes it an element. Not idempotent: an id that is taken is `AlreadyExists`, before anything is
    /// asked of a registry. `credentials` are for the registry of the reference and for this call. Dropping the future
    /// ends it; nothing is left.
    pub async fn pull(
        &self,
        layer: &PortLayer,
        new: NewElement,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: Option<ProgressSink>,
    ) -> Result<PulledImage, PullImageError> {
        let id = new.id.clone();
        if new.data.is_some() || new.parent.is_some() {
            return Err(PullImageError::Given { id });
        }
        if (id.kind(), new.spec.kind()) != (Kind::Image, Kind::Image) {
            let spec = Kind::Image;
            return Err(CreateError::SpecKind { id, spec }.into());
        }
        layer.can_create(&id)?;
        let registry = |source: PullError| PullImageError::Registry {
            id: id.clone(),
            source,
        };
        self.make_staging()
            .await
            .map_err(|error| registry(error.into()))?;
        let told = progress.clone();
        let tell = move |so_far: portlayer_registry::Progress| {
            if let Some(told) = &told {
                told(Progress::Pulled {
                    bytes: so_far.done,
                    of: so_far.total,
                });
            }
        };
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: native_architecture().to_owned(),
        };
        let pulled = portlayer_registry::pull(
            &self.registries,
            reference,
            credentials,
            &platform,
            &self.staging,
            &tell,
        );
        let pulled = pulled.await.map_err(registry)?;
        let new = new.data(pulled.archive);
        let image = layer.create_with_progress(new, progress).await?;
        Ok(PulledImage {
            image,
            digest: pulled.digest,
            manifest: pulled.manifest,
        })
    }

    async fn make_staging(&self) -> std::io::Result<()> {
        let staging = self.staging.clone();
        let made = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(staging)
        });
        made.await.map_err(std::io::Error::other)?
    }
}

impl PullImageError {
    /// The error in the terms of the wire and of commands.
    pub fn into_fault(self) -> Fault {
        let message = portlayer_client::wire::message(&self);
        let (id, source) = match self {
            PullImageError::Create(error) => return Fault::of(error),
            PullImageError::Given { id } => {
                let mut fault = Fault::new(ErrorKind::InvalidArgument, "pull_given", message);
                (fault.element, fault.field) = (Some(id), Some("data".to_owned()));
                return fault;
            }
            PullImageError::Registry { id, source } => (id, source),
        };
        let (kind, reason) = class(&source);
        let mut fault = Fault::new(kind, reason, message);
        fault.element = Some(id);
        fault.details.extend(place(&source));
        fault
    }
}

/// How to go on, and the name for programs.
fn class(error: &PullError) -> (ErrorKind, &'static str) {
    match error {
        PullError::Unreachable { .. } => (ErrorKind::Unavailable, "pull_unreachable"),
        PullError::Stalled { .. } => (ErrorKind::Unavailable, "pull_stalled"),
        PullError::NotFound { .. } => (ErrorKind::NotFound, "pull_not_found"),
        PullError::Unauthorized { .. } => (ErrorKind::PermissionDenied, "pull_unauthorized"),
        PullError::Status { .. } => (ErrorKind::Unavailable, "pull_status"),
        PullError::Digest { .. } => (ErrorKind::DataLoss, "pull_digest"),
        PullError::Size { .. } => (ErrorKind::DataLoss, "pull_size"),
        PullError::TooLarge { .. } => (ErrorKind::ResourceExhausted, "pull_too_large"),
        PullError::Document { .. } => (ErrorKind::InvalidArgument, "pull_document"),
        PullError::Platform { .. } => (ErrorKind::FailedPrecondition, "pull_platform"),
        PullError::Redirect { .. } => (ErrorKind::PermissionDenied, "pull_redirect"),
        PullError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            (ErrorKind::ResourceExhausted, "pull_no_space")
        }
        PullError::Io(_) => (ErrorKind::Internal, "pull_io"),
    }
}

/// Whom and what it was about.
fn place(error: &PullError) -> Vec<(String, String)> {
    let (host, what) = match error {
        PullError::Unreachable { host, what, .. }
        | PullError::Stalled { host, what, .. }
        | PullError::NotFound { host, what }
        | PullError::Unauthorized { host, what }
        | PullError::Status { host, what, .. } => (Some(host), Some(what)),
        PullError::Redirect { host, .. } => (Some(host), None),
        PullError::Digest { what, .. }
        | PullError::Size { what, .. }
        | PullError::Document { what, .. }
        | PullError::Platform { what, .. } => (None, Some(what)),
        PullError::TooLarge { .. } | PullError::Io(_) => (None, None),
    };
    let named = [("host", host), ("what", what)].into_iter();
    named
        .filter_map(|(name, value)| Some((name.to_owned(), value?.clone())))
        .collect()
}
