//! Makes images without a registry: OCI layouts, OCI archives and docker archives, the same bytes every time.
//!
//! [`busybox`] makes the image that `./dev run` and the tests use from a static busybox binary. [`ImageBuilder`] makes
//! any image from layers, including the wrong ones that tests need.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use portlayer::archive::TarBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Plain tar.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    /// The media type of a layer packed this way.
    pub fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Packs bytes, the same way every time.
    ///
    /// # Errors
    /// The packer's.
    pub fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Packing::Plain => Ok(bytes.to_vec()),
            Packing::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Packing::Zstd => zstd::encode_all(bytes, 3),
        }
    }
}

#[derive(Debug, Clone)]
struct Layer {
    diff_id: String,
    packing: Packing,
    blob: Vec<u8>,
}

/// An image under construction.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<Layer>,
    config: serde_json::Map<String, Value>,
    architecture: &'static str,
    os: &'static str,
}

impl Default for ImageBuilder {
    fn default() -> ImageBuilder {
        let architecture = super::image::native_architecture();
        ImageBuilder {
            layers: Vec::new(),
            config: serde_json::Map::new(),
            architecture,
            os: "linux",
        }
    }
}

impl ImageBuilder {
    /// An image without layers for this machine's platform.
    pub fn new() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// Adds a layer from a tar archive.
    ///
    /// # Errors
    /// The packer's.
    pub fn layer(mut self, tar: &[u8], packing: Packing) -> io::Result<ImageBuilder> {
        self.layers.push(Layer {
            diff_id: digest(tar),
            packing,
            blob: packing.pack(tar)?,
        });
        Ok(self)
    }

    /// Sets a field of the image configuration's `config` object, e.g. `Env` or `Cmd`.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> ImageBuilder {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// Another platform.
    #[must_use]
    pub fn platform(mut self, os: &'static str, architecture: &'static str) -> ImageBuilder {
        self.os = os;
        self.architecture = architecture;
        self
    }

    /// Gives a layer another diff id than its own: for images whose configuration lies.
    #[must_use]
    pub fn with_diff_id(mut self, layer: usize, diff_id: &str) -> ImageBuilder {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.diff_id = diff_id.to_owned();
        }
        self
    }

    fn config_json(&self) -> Vec<u8> {
        let diff_ids: Vec<&str> = self.layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": self.os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    /// The files of the OCI layout by path, blobs included.
    pub fn layout(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut blob = |bytes: Vec<u8>, media_type: &str| {
            let (sum, size) = (digest(&bytes), bytes.len());
            files.insert(blob_path(&sum), bytes);
            json!({ "mediaType": media_type, "digest": sum, "size": size })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|l| blob(l.blob.clone(), l.packing.media_type()))
            .collect();
        let config = blob(
            self.config_json(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers }).to_string();
        let mut descriptor = blob(manifest.into_bytes(), manifest_type);
        descriptor["platform"] = json!({ "architecture": self.architecture, "os": self.os });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        files.insert("index.json".to_owned(), index.to_string().into_bytes());
        files.insert(
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        );
        files
    }

    /// The image as an OCI archive (the layout in a tar).
    pub fn oci_archive(&self) -> Vec<u8> {
        archive_of(&self.layout())
    }

    /// The image as `docker save` of old wrote it: `manifest.json`, a config and a directory for each layer.
    pub fn docker_archive(&self) -> Vec<u8> {
        let mut files = BTreeMap::new();
        let config = self.config_json();
        let config_name = format!("{}.json", hex_of(&digest(&config)));
        let mut names = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let name = format!("{}{i}/layer.tar", hex_of(&layer.diff_id));
            files.insert(name.clone(), layer.blob.clone());
            names.push(name);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": null, "Layers": names }]);
        files.insert(config_name, config);
        files.insert(
            "manifest.json".to_owned(),
            manifest.to_string().into_bytes(),
        );
        archive_of(&files)
    }

    /// Writes the OCI layout into a directory, which is made when missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_layout(&self, directory: &Path) -> io::Result<()> {
        for (path, bytes) in self.layout() {
            let path = directory.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// A tar of files by path, parents made as needed: an OCI archive from the (changed) files of a layout.
pub fn archive_of(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = TarBuilder::new();
    let mut made = std::collections::BTreeSet::new();
    for (path, bytes) in files {
        for (at, _) in path.match_indices('/') {
            if made.insert(&path[..at]) {
                tar = tar.dir(&path[..at], 0o755);
            }
        }
        tar = tar.file(path, 0o644, bytes);
    }
    tar.finish()
}

/// Where a blob with this digest lies in a layout.
pub fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{}", hex_of(digest))
}

/// `sha256:<hex>` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// The names a busybox binary answers to, asked from the binary itself. Runs it: only for a binary from a trusted
/// source. Blocking.
///
/// # Errors
/// When it cannot be run or fails.
pub fn applets(busybox: &Path) -> io::Result<Vec<String>> {
    let output = std::process::Command::new(busybox)
        .arg("--list")
        .env_clear()
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "{} --list ended with {}",
            busybox.display(),
            output.status
        )));
    }
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|name| !name.is_empty() && !name.contains('/') && *name != "busybox")
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
user:x:1000:1000:user:/home/user:/bin/sh\n\
nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nnogroup:x:65534:\nnobody:x:65534:\n";

/// The root file system of the busybox image as a tar.
pub fn busybox_tar(binary: &[u8], applets: &[String]) -> Vec<u8> {
    let mut tar = TarBuilder::new();
    for path in [
        "bin", "dev", "etc", "home", "proc", "run", "sys", "usr", "usr/bin", "var",
    ] {
        tar = tar.dir(path, 0o755);
    }
    tar = tar
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("var/tmp", 0o1777);
    tar = tar.owner(1000, 1000).dir("home/user", 0o755).owner(0, 0);
    tar =
        tar.file("etc/passwd", 0o644, PASSWD.as_bytes())
            .file("etc/group", 0o644, GROUP.as_bytes());
    tar = tar.file("bin/busybox", 0o755, binary);
    for name in applets {
        tar = tar.symlink(&format!("bin/{name}"), "/bin/busybox");
    }
    tar.symlink("usr/bin/env", "/bin/busybox").finish()
}

/// The busybox image: one gzip layer, a shell as the default command, users root, daemon, user (1000) and nobody.
/// Reads and runs the binary (see [`applets`]). Blocking.
///
/// # Errors
/// When the binary cannot be read or run.
pub fn busybox(binary: &Path) -> io::Result<ImageBuilder> {
    let tar = busybox_tar(&std::fs::read(binary)?, &applets(binary)?);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(ImageBuilder::new()
        .layer(&tar, Packing::Gzip)?
        .config("Env", json!([path]))
        .config("Cmd", json!(["sh"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_every_time() {
        let make = || {
            let tar = busybox_tar(b"not a real binary", &["sh".into(), "ls".into()]);
            ImageBuilder::new()
                .layer(&tar, Packing::Gzip)
                .unwrap()
                .config("Cmd", json!(["sh"]))
                .oci_archive()
        };
        assert_eq!(digest(&make()), digest(&make()));
    }

    #[test]
    fn a_layout_names_every_blob_by_its_digest() {
        let image = ImageBuilder::new()
            .layer(&TarBuilder::new().finish(), Packing::Zstd)
            .unwrap();
        let layout = image.layout();
        for (path, bytes) in &layout {
            if path.starts_with("blobs/") {
                assert_eq!(*path, blob_path(&digest(bytes)));
            }
        }
        let dir = tempfile::tempdir().unwrap();
        image.write_layout(dir.path()).unwrap();
        assert_eq!(
            std::fs::read(dir.path().join("index.json")).unwrap(),
            layout["index.json"]
        );
    }
}
