//! Images from a registry (OCI distribution specification), as one verified OCI archive in an unnamed file: what
//! `PortLayer::create` takes as the data of an image.
//!
//! A manifest is asked for by digest or tag, of the mirrors first and then of the registry itself. Blobs are written
//! straight to their place in the archive, summed on the way; one that breaks off goes on where it ended. What does not
//! have the digest its descriptor says is an error. There is no limit of time but for progress: a transfer that stands
//! still is given up.
//!
//! Credentials belong to one call. They go to the registry the image is named after (or the token server it names) and
//! to nobody else: not to mirrors, not to where a blob is redirected. Tokens live as long as the call. Neither is in any
//! error, log or file.

mod archive;
mod auth;
mod error;
mod fetch;
mod manifest;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

pub use error::PullError;
pub use reference::{Reference, ReferenceError};

use archive::Archive;
use fetch::Session;
use manifest::{Descriptor, Kind, Manifest};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// Hosts that are asked first, by the registry they are mirrors of.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (with their port, as in references) that are spoken to without TLS. Nobody else ever is.
    pub insecure: BTreeSet<String>,
    /// How long nothing may come before a transfer is broken off.
    pub stall: Duration,
    /// How often a transfer that made no progress at all is tried again.
    pub retries: u32,
    /// The most bytes of all blobs together.
    pub max_bytes: u64,
}

impl Default for Config {
    /// No mirrors, TLS everywhere, half a minute, three times, 16 GiB.
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            stall: Duration::from_secs(30),
            retries: 3,
            max_bytes: 16 << 30,
        }
    }
}

/// A user and a password or access token, for one call.
#[derive(Clone)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of blobs that are there.
    pub done: u64,
    /// Bytes of all blobs.
    pub total: u64,
}

/// A pulled image.
#[derive(Debug)]
pub struct Pulled {
    /// The OCI archive, at its beginning. It has no name and is gone when it is dropped.
    pub archive: tokio::fs::File,
    /// Digest of what the reference names: an index or a manifest.
    pub digest: String,
    /// Digest of this platform's manifest.
    pub manifest: String,
    /// Bytes of the blobs.
    pub bytes: u64,
}

/// The platform images are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
}

/// Pulls an image into an unnamed file in `staging`. `progress` hears of every piece and must be quick. Errors name the
/// host and what was asked for; nothing is left behind.
pub async fn pull(
    config: &Config,
    reference: &Reference,
    credentials: Option<&Credentials>,
    platform: &Platform,
    staging: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Pulled, PullError> {
    let mirrors = config.mirrors.get(reference.host());
    let mut last = None;
    for host in mirrors.into_iter().flatten() {
        let mut session = Session::new(config, host, reference, None)?;
        match pull_from(&mut session, reference, platform, staging, progress).await {
            Ok(pulled) => return Ok(pulled),
            // The registry itself may have what a mirror has not.
            Err(error) => last = Some(error),
        }
    }
    let mut session = Session::new(config, reference.host(), reference, credentials)?;
    let pulled = pull_from(&mut session, reference, platform, staging, progress).await;
    pulled.map_err(|error| match (error, last) {
        (PullError::NotFound { host, what }, Some(mirror)) if mirror.is_refusal() => {
            PullError::NotFound { host, what }
        }
        (error, _) => error,
    })
}

async fn pull_from(
    session: &mut Session<'_>,
    reference: &Reference,
    platform: &Platform,
    staging: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Pulled, PullError> {
    let (named, bytes) = session
        .manifest(reference.wanted(), reference.digest())
        .await?;
    let (descriptor, bytes) = match manifest::read(&named.digest, &bytes)? {
        Kind::Manifest(_) => (named.clone(), bytes),
        Kind::Index(index) => {
            let chosen = manifest::choose(&named.digest, &index, platform)?;
            session
                .manifest(&chosen.digest, Some(&chosen.digest))
                .await?
        }
    };
    let Kind::Manifest(Manifest { config, layers }) = manifest::read(&descriptor.digest, &bytes)?
    else {
        return Err(PullError::Document {
            what: descriptor.digest,
            rule: "an index in an index",
        });
    };
    let mut blobs: Vec<Descriptor> = vec![config];
    for layer in layers {
        // The same layer may be there more than once; an archive has it once.
        if blobs.iter().all(|blob| blob.digest != layer.digest) {
            blobs.push(layer);
        }
    }
    let total = session.bounded(&blobs)?;
    let mut archive = Archive::create(staging).await?;
    let mut done = 0;
    for blob in &blobs {
        let before = done;
        let report = |bytes: u64| {
            progress(Progress {
                done: before + bytes,
                total,
            })
        };
        archive.begin(&blob.path()?, blob.size).await?;
        session.blob(blob, &mut archive, &report).await?;
        archive.end(blob.size).await?;
        done += blob.size;
    }
    archive.add(&descriptor.path()?, &bytes).await?;
    archive
        .add("index.json", &manifest::index_of(&descriptor, platform))
        .await?;
    archive
        .add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .await?;
    Ok(Pulled {
        archive: archive.finish().await?,
        digest: named.digest,
        manifest: descriptor.digest,
        bytes: total,
    })
}
