//! Reads a spooled file: which form it has, where its parts lie, and what image it describes. Blocking; writes nothing
//! but, for a compressed image archive, an unnamed decompressed copy.

mod docker;
mod files;
mod layer;
mod oci;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use portlayer::archive::{
    ArchiveError, Compression, Decoder, EntryKind, EntryName, Limits, TarReader,
};
use portlayer::store::StoreError;
use serde::Deserialize;

pub(super) use files::Part;
use files::{Archive, FileAt};

use super::ImageLimits;
use super::fault::{ImageRule, refuse};

/// Files of an image archive; a layer may have more.
const FILES_LIMIT: usize = 10_000;
/// The kernel's overlay takes 500 lower directories, older ones fewer; 127 is what other engines allow.
const LAYERS_LIMIT: usize = 127;
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

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
        Form::Layer => return layer::image(data, parent, limits),
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
        return oci::image(&archive, limits);
    }
    docker::image(&archive, limits)
}

enum Form {
    Layer,
    Archive {
        files: BTreeMap<String, FileAt>,
        compressed: bool,
    },
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

fn same_count(name: &str, config: usize, manifest: usize) -> Result<(), StoreError> {
    if manifest > LAYERS_LIMIT {
        return Err(refuse(name, ImageRule::TooManyLayers(LAYERS_LIMIT)));
    }
    if config != manifest {
        return Err(refuse(name, ImageRule::LayerCount { config, manifest }));
    }
    Ok(())
}

fn json_of<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| refuse(name, ImageRule::Json(e.to_string())))
}
