//! Manifests and indexes.

use serde::{Deserialize, Serialize};

use crate::reference::is_digest;
use crate::{Platform, PullError};

/// The kinds of document that are asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Layers an image may have.
const MAX_LAYERS: usize = 1000;

/// Something by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing)]
    platform: Option<Of>,
}

#[derive(Debug, Clone, Deserialize)]
struct Of {
    architecture: String,
    os: String,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: String, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self {
            media_type,
            digest,
            size,
            platform: None,
        }
    }

    /// Its place in an archive. Also the check that it is a digest and nothing else.
    pub(crate) fn path(&self) -> Result<String, PullError> {
        match self.digest.strip_prefix("sha256:") {
            Some(hex) if is_digest(&self.digest) => Ok(format!("blobs/sha256/{hex}")),
            _ => Err(PullError::Document {
                what: self.digest.chars().take(100).collect(),
                rule: "not a sha256 digest",
            }),
        }
    }
}

/// A manifest: what an image is made of.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What a reference can name.
pub(crate) enum Kind {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Either {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a document; what it is shows in its fields, whatever the registry calls it.
pub(crate) fn read(digest: &str, bytes: &[u8]) -> Result<Kind, PullError> {
    let refuse = |rule| PullError::Document {
        what: digest.to_owned(),
        rule,
    };
    let read: Either =
        serde_json::from_slice(bytes).map_err(|_| refuse("neither manifest nor index"))?;
    match read {
        Either {
            config: Some(config),
            layers: Some(layers),
            manifests: None,
        } => {
            if layers.len() > MAX_LAYERS {
                return Err(refuse("more than 1000 layers"));
            }
            Ok(Kind::Manifest(Manifest { config, layers }))
        }
        Either {
            config: None,
            layers: None,
            manifests: Some(manifests),
        } => Ok(Kind::Index(manifests)),
        _ => Err(refuse("neither manifest nor index")),
    }
}

/// The manifest of a platform.
pub(crate) fn choose(
    digest: &str,
    index: &[Descriptor],
    platform: &Platform,
) -> Result<Descriptor, PullError> {
    let fits = |d: &&Descriptor| {
        d.platform
            .as_ref()
            .is_some_and(|of| of.os == platform.os && of.architecture == platform.architecture)
    };
    index
        .iter()
        .find(fits)
        .cloned()
        .ok_or_else(|| PullError::Platform {
            what: digest.to_owned(),
            platform: format!("{}/{}", platform.os, platform.architecture),
        })
}

/// The index of an archive with one image.
pub(crate) fn index_of(manifest: &Descriptor, platform: &Platform) -> Vec<u8> {
    let media_type = match manifest.media_type.as_str() {
        DOCKER_MANIFEST => DOCKER_MANIFEST,
        _ => MANIFEST,
    };
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": media_type,
            "digest": manifest.digest,
            "size": manifest.size,
            "platform": { "os": platform.os, "architecture": platform.architecture },
        }],
    });
    index.to_string().into_bytes()
}
