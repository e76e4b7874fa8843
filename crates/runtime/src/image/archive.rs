//! Reads a spooled file: which form it has, where its parts lie, and what image it describes. Blocking; writes nothing
//! but, for a compressed image archive, an unnamed decompressed copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use portlayer::archive::{
    ArchiveError, Compression, Decoder, EntryKind, EntryName, Limits, TarReader, check_layer_entry,
    scan,
};
use portlayer::element::{Checksum, Summing};
use portlayer::store::StoreError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::{ImageConfig, native_architecture};
use super::fault::{ImageRule, refuse};
use super::{ImageLimits, digest};

/// Bytes of one JSON document.
const DOCUMENT_LIMIT: u64 = 4 << 20;
/// Files of an image archive; a layer may have more.
const FILES_LIMIT: usize = 10_000;
/// The kernel's overlay takes 500 lower directories, older ones fewer; 127 is what other engines allow.
const LAYERS_LIMIT: usize = 127;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A stretch of a file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Part {
    pub(super) fn reader(&self) -> PartReader {
        PartReader {
            part: self.clone(),
            at: 0,
        }
    }
}

/// Reads a part without moving the file's own position, so that several can read one file.
pub(super) struct PartReader {
    part: Part,
    at: u64,
}

impl Read for PartReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.size - self.at).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let n = self
            .part
            .file
            .read_at(&mut buf[..want], self.part.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A layer, checked.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) part: Part,
    pub(super) digest: String,
    pub(super) media_type: String,
    pub(super) diff_id: String,
}

/// An image, checked: everything an ingest needs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) manifest: Vec<u8>,
    pub(super) manifest_type: String,
    pub(super) config: Vec<u8>,
    pub(super) config_digest: String,
    /// Diff ids of all layers, the parent's included.
    pub(super) diff_ids: Vec<String>,
    /// The layers that came with the data: the last ones of `diff_ids`.
    pub(super) layers: Vec<Layer>,
    /// Bytes of all files of these layers.
    pub(super) file_bytes: u64,
}

/// The documents of a parent image, for a layer that goes on top of it.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
}

/// Finds out the form of the data and checks everything in it.
pub(super) fn read(
    data: &Part,
    parent: Option<&Parent>,
    staging: &Path,
    limits: &ImageLimits,
) -> Result<Image, StoreError> {
    let form = detect(data, limits)?;
    let (files, part) = match form {
        Form::Layer => return layer_image(data, parent, limits),
        Form::Archive {
            files,
            compressed: false,
        } => (files, data.clone()),
        Form::Archive {
            files,
            compressed: true,
        } => (files, decompress(data, staging, limits)?),
    };
    if parent.is_some() {
        return Err(StoreError::InvalidParent(
            "an image archive brings all its layers; only a layer takes a parent",
        ));
    }
    let archive = Archive { files, part };
    if archive.files.contains_key("oci-layout") && archive.files.contains_key("index.json") {
        return oci_image(&archive, limits);
    }
    docker_image(&archive, limits)
}

enum Form {
    Layer,
    Archive {
        files: BTreeMap<String, FileAt>,
        compressed: bool,
    },
}

#[derive(Debug, Clone)]
enum FileAt {
    Data { offset: u64, size: u64 },
    Link(String),
}

fn data_fault(source: ArchiveError) -> StoreError {
    layer_fault("data", source)
}

fn layer_fault(part: &str, source: ArchiveError) -> StoreError {
    match source {
        ArchiveError::Read(error) => super::io_failed("read staged data", Path::new(part), error),
        source => StoreError::Archive {
            part: part.to_owned(),
            source,
        },
    }
}

/// An image archive has its marker file at the top; everything else is taken for a layer.
fn detect(data: &Part, limits: &ImageLimits) -> Result<Form, StoreError> {
    let scan_limits = Limits {
        bytes: limits.archive_bytes(),
        ..limits.layer
    };
    let mut tar = TarReader::new(data.reader(), scan_limits).map_err(data_fault)?;
    let mut files = BTreeMap::new();
    let mut overflow = false;
    while let Some(entry) = tar.next_entry().map_err(data_fault)? {
        let Ok(name) = EntryName::parse(&entry.path, &limits.layer) else {
            continue;
        };
        let Some(path) = name.path().to_str().map(str::to_owned) else {
            continue;
        };
        let at = match entry.kind {
            EntryKind::File => FileAt::Data {
                offset: entry.offset,
                size: entry.size,
            },
            EntryKind::Symlink => match String::from_utf8(entry.target) {
                Ok(target) => FileAt::Link(target),
                Err(_) => continue,
            },
            _ => continue,
        };
        if files.len() < FILES_LIMIT {
            files.insert(path, at);
        } else {
            overflow = true;
        }
    }
    let compressed = tar.decoder().compression() != Compression::None;
    let oci = files.contains_key("oci-layout") && files.contains_key("index.json");
    // A root file system may well have a manifest.json of its own; docker's comes with the files it names.
    let docker = matches!(files.get("manifest.json"), Some(FileAt::Data { .. }))
        && files.keys().any(|name| {
            name.ends_with(".json") && name != "manifest.json" || name.starts_with("blobs/")
        });
    match (oci || docker, overflow) {
        (false, _) => Ok(Form::Layer),
        (true, true) => Err(refuse("data", ImageRule::TooManyFiles)),
        (true, false) => Ok(Form::Archive { files, compressed }),
    }
}

fn decompress(data: &Part, staging: &Path, limits: &ImageLimits) -> Result<Part, StoreError> {
    let failed = |e| super::io_failed("decompress data", staging, e);
    let mut file = tempfile::tempfile_in(staging).map_err(failed)?;
    let decode_limits = Limits {
        bytes: limits.archive_bytes(),
        ..limits.layer
    };
    let mut decoder = Decoder::new(data.reader(), decode_limits).map_err(data_fault)?;
    let mut buf = vec![0u8; 256 << 10];
    loop {
        let n = decoder.read(&mut buf).map_err(data_fault)?;
        if n == 0 {
            break;
        }
        file.write_all(&buf[..n]).map_err(failed)?;
    }
    Ok(Part {
        file: Arc::new(file),
        offset: 0,
        size: decoder.bytes_out(),
    })
}

struct Archive {
    files: BTreeMap<String, FileAt>,
    part: Part,
}

impl Archive {
    /// Old `docker save` writes a layer that occurs twice once, and a link for the second.
    fn find(&self, name: &str) -> Result<Part, StoreError> {
        let missing = || refuse(name, ImageRule::Missing);
        let at = match self.files.get(name).ok_or_else(missing)? {
            FileAt::Link(target) => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                self.files
                    .get(&joined(directory, target).ok_or_else(missing)?)
                    .ok_or_else(missing)?
            }
            data => data,
        };
        match at {
            FileAt::Data { offset, size } => Ok(Part {
                file: self.part.file.clone(),
                offset: self.part.offset + offset,
                size: *size,
            }),
            FileAt::Link(_) => Err(missing()),
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let part = self.find(name)?;
        if part.size > DOCUMENT_LIMIT {
            return Err(refuse(name, ImageRule::DocumentSize(DOCUMENT_LIMIT)));
        }
        let mut bytes = Vec::new();
        part.reader()
            .read_to_end(&mut bytes)
            .map_err(|e| layer_fault(name, ArchiveError::Read(e)))?;
        Ok(bytes)
    }

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

/// A link's target relative to a directory of the archive, as a name in the archive.
fn joined(directory: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

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

fn json_of<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| refuse(name, ImageRule::Json(e.to_string())))
}

fn oci_image(archive: &Archive, limits: &ImageLimits) -> Result<Image, StoreError> {
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

fn same_count(name: &str, config: usize, manifest: usize) -> Result<(), StoreError> {
    if manifest > LAYERS_LIMIT {
        return Err(refuse(name, ImageRule::TooManyLayers(LAYERS_LIMIT)));
    }
    if config != manifest {
        return Err(refuse(name, ImageRule::LayerCount { config, manifest }));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

/// `docker save`: the manifest names files; the OCI manifest that containerd wants is made here.
fn docker_image(archive: &Archive, limits: &ImageLimits) -> Result<Image, StoreError> {
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

/// A single layer, alone or on a parent: configuration and manifest are the parent's with one layer more.
fn layer_image(
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

fn assemble(
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
struct Checker<'a> {
    limits: &'a ImageLimits,
    left: u64,
    layers: Vec<Layer>,
    file_bytes: u64,
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
    fn new(limits: &'a ImageLimits) -> Checker<'a> {
        Checker {
            limits,
            left: limits.layer.bytes,
            layers: Vec::new(),
            file_bytes: 0,
        }
    }

    fn layer(
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
