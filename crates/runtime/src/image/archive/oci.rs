//! Archives with an OCI image layout.

use portlayer::element::Checksum;
use portlayer::store::StoreError;
use serde::Deserialize;

use super::files::Archive;
use super::layer::Checker;
use super::{Image, MANIFEST, json_of, same_count};
use crate::image::config::{ImageConfig, native_architecture};
use crate::image::fault::{ImageRule, refuse};
use crate::image::{ImageLimits, digest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

pub(super) fn image(archive: &Archive, limits: &ImageLimits) -> Result<Image, StoreError> {
    let index = archive.document("index.json")?;
    let (descriptor, bytes) = choose(archive, "index.json", &index, 0)?;
    let manifest: Manifest = json_of(&descriptor.digest, &bytes)?;
    let config = archive.described(&manifest.config)?;
    let name = manifest.config.digest.clone();
    let parsed = ImageConfig::parse(&name, &config)?;
    let diff_ids = parsed.rootfs.diff_ids;
    same_count(&name, diff_ids.len(), manifest.layers.len())?;
    let mut checker = Checker::new(limits);
    for (descriptor, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        layer_media_type(descriptor)?;
        let sum = digest::check(&descriptor.digest, &descriptor.digest)?;
        let part = archive.find(&format!("blobs/sha256/{}", sum.hex()))?;
        if part.size != descriptor.size {
            return Err(refuse(&descriptor.digest, ImageRule::Digest));
        }
        checker.layer(part, Some(&descriptor.digest), Some(diff_id))?;
    }
    let manifest_type = if descriptor.media_type.is_empty() {
        MANIFEST
    } else {
        &descriptor.media_type
    };
    Ok(Image {
        manifest_type: manifest_type.to_owned(),
        manifest: bytes,
        config,
        config_digest: name,
        diff_ids,
        layers: checker.layers,
        file_bytes: checker.file_bytes,
    })
}

impl Archive {
    /// A document named by a descriptor, its digest and size verified.
    fn described(&self, descriptor: &Descriptor) -> Result<Vec<u8>, StoreError> {
        let sum = digest::check("descriptor", &descriptor.digest)?;
        let bytes = self.document(&format!("blobs/sha256/{}", sum.hex()))?;
        if Checksum::of(&bytes) != sum || bytes.len() as u64 != descriptor.size {
            return Err(refuse(&descriptor.digest, ImageRule::Digest));
        }
        Ok(bytes)
    }
}

/// The manifest for this platform, looked for in nested indexes too.
fn choose(
    archive: &Archive,
    name: &str,
    index: &[u8],
    depth: u32,
) -> Result<(Descriptor, Vec<u8>), StoreError> {
    if depth > 3 {
        return Err(refuse(name, ImageRule::Nesting));
    }
    let index: Index = json_of(name, index)?;
    let fits = |d: &&Descriptor| {
        // Attestations of build tools are manifests for the platform "unknown".
        d.platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == native_architecture())
    };
    let mut fitting: Vec<&Descriptor> = index.manifests.iter().filter(fits).collect();
    fitting.dedup_by(|a, b| a.digest == b.digest);
    match fitting.as_slice() {
        [] => {
            let other = index.manifests.first().and_then(|d| d.platform.as_ref());
            let other = other.map_or("no image at all".to_owned(), |p| {
                format!("{}/{}", p.os, p.architecture)
            });
            Err(refuse(name, ImageRule::Platform(other)))
        }
        [descriptor] => {
            let bytes = archive.described(descriptor)?;
            match descriptor.media_type.as_str() {
                INDEX | DOCKER_INDEX => choose(archive, &descriptor.digest, &bytes, depth + 1),
                MANIFEST | DOCKER_MANIFEST | "" => Ok(((*descriptor).clone(), bytes)),
                other => Err(refuse(
                    &descriptor.digest,
                    ImageRule::MediaType(other.to_owned()),
                )),
            }
        }
        _ => Err(refuse(name, ImageRule::Ambiguous)),
    }
}

fn layer_media_type(descriptor: &Descriptor) -> Result<(), StoreError> {
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    if known.contains(&descriptor.media_type.as_str()) {
        return Ok(());
    }
    Err(refuse(
        &descriptor.digest,
        ImageRule::MediaType(descriptor.media_type.clone()),
    ))
}
