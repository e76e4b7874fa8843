//! Archives as `docker save` writes them.

use portlayer::store::StoreError;
use serde::Deserialize;

use super::files::Archive;
use super::layer::{Checker, assemble};
use super::{Image, json_of, same_count};
use crate::image::ImageLimits;
use crate::image::config::ImageConfig;
use crate::image::fault::{ImageRule, refuse};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

/// `docker save`: the manifest names files; the OCI manifest that containerd wants is made here.
pub(super) fn image(archive: &Archive, limits: &ImageLimits) -> Result<Image, StoreError> {
    let document = archive.document("manifest.json")?;
    let images: Vec<DockerImage> = json_of("manifest.json", &document)?;
    let [image] = images.as_slice() else {
        let rule = if images.is_empty() {
            ImageRule::Missing
        } else {
            ImageRule::Ambiguous
        };
        return Err(refuse("manifest.json", rule));
    };
    let config = archive.document(&image.config)?;
    let name = portlayer::archive::shown(image.config.as_bytes());
    let parsed = ImageConfig::parse(&name, &config)?;
    let diff_ids = parsed.rootfs.diff_ids;
    same_count(&name, diff_ids.len(), image.layers.len())?;
    let mut checker = Checker::new(limits);
    for (path, diff_id) in image.layers.iter().zip(&diff_ids) {
        checker.layer(archive.find(path)?, None, Some(diff_id))?;
    }
    Ok(assemble(config, diff_ids, Vec::new(), checker))
}
