//! Archives fed to everything that takes archives.

use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::Result;
use portlayer::PortLayer;
use portlayer::archive::{
    ArchiveError, ExtractOptions, Root, check_layer_entry, corpus, extract, place, scan,
    tar_of_zip, zip_of_tar,
};
use portlayer::element::{ElementId, ImageSpec, Kind, NewElement, Spec, VolumeSpec};

use super::archives::Hostile;
use super::report::{Must, Report, Seen};

/// What the extractor may write: more is an escape of the bounds.
const MOST_BYTES: u64 = 16 << 20;

/// The extractors of the library, each archive into a fresh directory.
pub(super) fn extractors(report: &mut Report, tars: &[Hostile], zips: &[Hostile]) -> Result<()> {
    type Extractor = fn(&[u8], &Path) -> Result<(), ArchiveError>;
    let all: [(&str, Extractor); 5] = [
        ("extract", |bytes, into| {
            extract(bytes, &root(into)?, &options()).map(drop)
        }),
        ("place in", |bytes, into| {
            place(
                bytes,
                &root(into)?,
                Path::new("/"),
                &options(),
                &|uid, gid| (uid, gid),
            )
            .map(drop)
        }),
        ("place as", |bytes, into| {
            place(
                bytes,
                &root(into)?,
                Path::new("new"),
                &options(),
                &|_, _| (0, 0),
            )
            .map(drop)
        }),
        ("scan", |bytes, _| {
            let limits = corpus::limits();
            scan(bytes, &limits, |entry| {
                check_layer_entry(entry, &limits).map(drop)
            })
            .map(drop)
        }),
        ("zip of it", |bytes, _| {
            zip_of_tar(bytes, std::io::sink(), &corpus::limits()).map(drop)
        }),
    ];
    for archive in report.slice(tars) {
        for (name, extractor) in all {
            one(report, "archives", archive, name, extractor)?;
        }
    }
    let of_zips: [(&str, Extractor); 2] = [
        ("place in", |bytes, into| {
            place(
                bytes,
                &root(into)?,
                Path::new("/"),
                &options(),
                &|uid, gid| (uid, gid),
            )
            .map(drop)
        }),
        ("tar of it", |bytes, _| {
            tar_of_zip(Cursor::new(bytes), &mut std::io::sink(), &corpus::limits())
        }),
    ];
    for archive in report.slice(zips) {
        for (name, extractor) in of_zips {
            one(report, "zips", archive, name, extractor)?;
        }
    }
    Ok(())
}

fn root(path: &Path) -> Result<Root, ArchiveError> {
    Root::open(path).map_err(|errno| ArchiveError::Read(errno.into()))
}

fn options() -> ExtractOptions {
    ExtractOptions {
        limits: corpus::limits(),
        ..ExtractOptions::default()
    }
}

fn one(
    report: &mut Report,
    class: &'static str,
    archive: &Hostile,
    name: &str,
    extractor: fn(&[u8], &Path) -> Result<(), ArchiveError>,
) -> Result<()> {
    // A few levels down, so that a few `..` too many are seen.
    let around = tempfile::Builder::new().prefix("around-").tempdir_in(
        report
            .sentinels()
            .outside()
            .parent()
            .unwrap_or(Path::new("/var/tmp")),
    )?;
    let into = around.path().join("a/b/root");
    std::fs::create_dir_all(&into)?;
    let bytes = archive.bytes.clone();
    let input = format!("{} -> {name}", archive.name);
    report.try_input(class, input, Must::Contained, move || {
        let seen = Seen::of(extractor(&bytes, &into));
        match bad_inside(&into).or_else(|| bad_around(around.path())) {
            Some(what) => Seen::Escaped(what),
            None => seen,
        }
    });
    Ok(())
}

/// What may not be in an extracted tree, whether the archive was refused half-way or not.
fn bad_inside(into: &Path) -> Option<String> {
    let mut open = vec![into.to_owned()];
    let mut bytes = 0;
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().ok()?;
        let kind = meta.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            let what = match kind.is_block_device() || kind.is_char_device() {
                true => "a device",
                false => "a FIFO or socket",
            };
            return Some(format!("{what} at {}", path.display()));
        }
        if meta.mode() & 0o6000 != 0 && !kind.is_symlink() {
            return Some(format!("a set-id bit on {}", path.display()));
        }
        let mut names = [0; 4096];
        if !kind.is_symlink() && rustix::fs::listxattr(&path, &mut names[..]).is_ok_and(|n| n > 0) {
            return Some(format!("an attribute on {}", path.display()));
        }
        bytes += meta.blocks() * 512;
        if kind.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .ok()?
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    (bytes > MOST_BYTES).then(|| format!("{bytes} bytes written"))
}

/// Something beside the directories that lead to the root.
fn bad_around(around: &Path) -> Option<String> {
    for (at, only) in [("", "a"), ("a", "b"), ("a/b", "root")] {
        for entry in std::fs::read_dir(around.join(at)).ok()?.flatten() {
            if entry.file_name() != only {
                return Some(format!("{} outside the root", entry.path().display()));
            }
        }
    }
    None
}

/// The stores of a node: each archive as the data of a volume and as a layer of an image.
pub(super) async fn stores(report: &mut Report, layer: &PortLayer, tars: &[Hostile]) -> Result<()> {
    // Those that are large only in the corpus's small limits would be real gigabytes here; the others are the same attack.
    for (at, archive) in report.slice(tars).enumerate() {
        for kind in [Kind::Volume, Kind::Image] {
            let location = match kind {
                Kind::Volume => "volumes",
                _ => "images",
            };
            let id = ElementId::new(kind, location, &format!("hostile-{at}"))?;
            let spec = match kind {
                Kind::Volume => Spec::Volume(VolumeSpec::default()),
                _ => Spec::Image(ImageSpec::default()),
            };
            let new = NewElement::new(id.clone(), spec).data(Cursor::new(archive.bytes.clone()));
            let input = format!("{} -> {kind}", archive.name);
            let attack = async {
                let made = Seen::of(layer.create(new).await);
                match made {
                    Seen::Contained(_) => match layer.delete(&id).await {
                        Ok(()) => made,
                        Err(error) => Seen::Escaped(format!("it cannot be deleted: {error}")),
                    },
                    refused => match layer.read(&id).await {
                        Ok(_) => Seen::Escaped("refused, and there all the same".to_owned()),
                        Err(_) => refused,
                    },
                }
            };
            report
                .try_async("stores", input, Must::Contained, attack)
                .await;
        }
    }
    Ok(())
}
