//! Layers: checked one by one, and made into an image when they come without its documents.

use std::io::{self, Read};

use portlayer::archive::{ArchiveError, Compression, Limits, check_layer_entry, scan};
use portlayer::element::{Checksum, Summing};
use portlayer::store::StoreError;
use serde_json::{Value, json};

use super::{CONFIG, Image, Layer, MANIFEST, Parent, Part, json_of, layer_fault, same_count};
use crate::image::ImageLimits;
use crate::image::config::{ImageConfig, native_architecture};
use crate::image::fault::{ImageRule, refuse};

/// A single layer, alone or on a parent: configuration and manifest are the parent's with one layer more.
pub(super) fn image(
    data: &Part,
    parent: Option<&Parent>,
    limits: &ImageLimits,
) -> Result<Image, StoreError> {
    let mut checker = Checker::new(limits);
    checker.layer(data.clone(), None, None)?;
    let added = checker.layers[0].diff_id.clone();
    let (mut config, below) = match parent {
        None => {
            let empty = json!({
                "architecture": native_architecture(), "os": "linux", "config": {},
                "rootfs": { "type": "layers", "diff_ids": [] },
            });
            (empty, Vec::new())
        }
        Some(parent) => {
            let manifest: Value = json_of("parent manifest", &parent.manifest)?;
            let below = manifest["layers"].as_array().cloned().unwrap_or_default();
            (json_of("parent configuration", &parent.config)?, below)
        }
    };
    if let Some(diff_ids) = config["rootfs"]["diff_ids"].as_array_mut() {
        diff_ids.push(Value::String(added));
    }
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut) {
        history.push(json!({ "created_by": "portlayer: layer from a data stream" }));
    }
    let bytes = config.to_string().into_bytes();
    let parsed = ImageConfig::parse("configuration", &bytes)?;
    same_count(
        "configuration",
        parsed.rootfs.diff_ids.len(),
        below.len() + 1,
    )?;
    Ok(assemble(bytes, parsed.rootfs.diff_ids, below, checker))
}

pub(super) fn assemble(
    config: Vec<u8>,
    diff_ids: Vec<String>,
    mut layers: Vec<Value>,
    checker: Checker<'_>,
) -> Image {
    for layer in &checker.layers {
        layers.push(json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.part.size }));
    }
    let config_digest = Checksum::of(&config).to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
        "layers": layers,
    });
    Image {
        manifest: manifest.to_string().into_bytes(),
        manifest_type: MANIFEST.to_owned(),
        config,
        config_digest,
        diff_ids,
        layers: checker.layers,
        file_bytes: checker.file_bytes,
    }
}

/// Checks layers one after the other; the byte limit is for all of them together.
pub(super) struct Checker<'a> {
    limits: &'a ImageLimits,
    left: u64,
    pub(super) layers: Vec<Layer>,
    pub(super) file_bytes: u64,
}

/// Sums what is read through it.
struct Summed<R> {
    inner: R,
    summing: Summing,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.summing.update(&buf[..n]);
        Ok(n)
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(limits: &'a ImageLimits) -> Checker<'a> {
        Checker {
            limits,
            left: limits.layer.bytes,
            layers: Vec::new(),
            file_bytes: 0,
        }
    }

    pub(super) fn layer(
        &mut self,
        part: Part,
        digest: Option<&str>,
        diff_id: Option<&str>,
    ) -> Result<(), StoreError> {
        let name = digest.or(diff_id).unwrap_or("data").to_owned();
        let limits = Limits {
            bytes: self.left,
            ..self.limits.layer
        };
        let mut summed = Summed {
            inner: part.reader(),
            summing: Summing::default(),
        };
        let scanned = scan(&mut summed, &limits, |entry| {
            check_layer_entry(entry, &limits).map(drop)
        });
        let scanned = scanned.map_err(|e| layer_fault(&name, e))?;
        // The decompressor may stop before the last bytes; the digest covers them all.
        io::copy(&mut summed, &mut io::sink())
            .map_err(|e| layer_fault(&name, ArchiveError::Read(e)))?;
        let actual = summed.summing.finish().to_string();
        if digest.is_some_and(|digest| digest != actual) {
            return Err(refuse(&name, ImageRule::Digest));
        }
        let content = scanned.checksum.to_string();
        if let Some(diff_id) = diff_id.filter(|diff_id| **diff_id != content) {
            return Err(refuse(&name, ImageRule::DiffId(diff_id.to_owned())));
        }
        self.left -= scanned.bytes.min(self.left);
        self.file_bytes += scanned.file_bytes;
        // The type says how containerd unpacks it: what the bytes are counts, not what the manifest calls them.
        let media_type = match scanned.compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            // No layer media type has them, and no engine unpacks them.
            Compression::Bzip2 => {
                return Err(refuse(&name, ImageRule::MediaType("bzip2".to_owned())));
            }
            Compression::Xz => return Err(refuse(&name, ImageRule::MediaType("xz".to_owned()))),
        };
        self.layers.push(Layer {
            part,
            digest: actual,
            media_type: media_type.to_owned(),
            diff_id: content,
        });
        Ok(())
    }
}
