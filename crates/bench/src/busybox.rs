//! The one workload: static busybox, as an image archive for the engines and as a plain bundle for runc.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use portlayer::archive::TarBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What every variant runs.
pub(crate) const TRUE: &str = "/bin/true";
/// The image's name in containerd.
pub(crate) const REFERENCE: &str = "bench.invalid/busybox:1";

/// The busybox image: one layer, made from this machine's static binary.
pub(crate) struct Busybox {
    binary: Vec<u8>,
    layer: Vec<u8>,
}

/// Commands that are links to the binary.
const LINKS: [&str; 3] = ["sh", "true", "sleep"];
/// Directories the mounts of a container go to.
const DIRECTORIES: [&str; 6] = ["bin", "dev", "etc", "proc", "sys", "tmp"];

impl Busybox {
    /// From the Debian package `busybox-static`.
    pub(crate) fn load() -> Result<Self> {
        let binary = std::fs::read("/bin/busybox")
            .context("cannot read /bin/busybox: install busybox-static")?;
        let mut tar = TarBuilder::new();
        for directory in DIRECTORIES {
            tar = tar.dir(directory, 0o755);
        }
        tar = tar.file("bin/busybox", 0o755, &binary);
        for link in LINKS {
            tar = tar.symlink(&format!("bin/{link}"), "busybox");
        }
        Ok(Self {
            binary,
            layer: tar.finish(),
        })
    }

    /// Digest of the uncompressed layer; with one layer also its chain id, the key of its snapshot.
    pub(crate) fn diff_id(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(&self.layer)))
    }

    /// A docker archive, which `ctr images import` and the port layer read alike.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let config = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": {"Cmd": [TRUE], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [self.diff_id()]},
        });
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [REFERENCE],
            "Layers": ["layer.tar"],
        }]);
        Ok(TarBuilder::new()
            .file("manifest.json", 0o644, &serde_json::to_vec(&manifest)?)
            .file("config.json", 0o644, &serde_json::to_vec(&config)?)
            .file("layer.tar", 0o644, &self.layer)
            .finish())
    }

    /// A plain directory with the image's files: what raw runc runs.
    pub(crate) fn unpack(&self, root: &Path) -> Result<()> {
        for directory in DIRECTORIES {
            std::fs::create_dir_all(root.join(directory))?;
        }
        let busybox = root.join("bin/busybox");
        std::fs::write(&busybox, &self.binary)?;
        std::fs::set_permissions(&busybox, std::fs::Permissions::from_mode(0o755))?;
        for link in LINKS {
            symlink("busybox", root.join("bin").join(link))?;
        }
        Ok(())
    }
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("no image architecture known for {other}"),
    }
}

/// The spec `runc spec` writes, running [`TRUE`] without a terminal in `cgroup` on a writable root.
pub(crate) fn spec(directory: &Path, cgroup: &str) -> Result<Value> {
    let output = std::process::Command::new("runc")
        .args(["spec", "--bundle"])
        .arg(directory)
        .output()
        .context("cannot run runc")?;
    ensure!(
        output.status.success(),
        "runc spec: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = directory.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    std::fs::remove_file(&path)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!([TRUE]);
    spec["root"] = json!({"path": "rootfs", "readonly": false});
    spec["linux"]["cgroupsPath"] = json!(cgroup);
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_names_its_layer_by_digest() {
        let busybox = Busybox {
            binary: b"binary".to_vec(),
            layer: TarBuilder::new()
                .file("bin/busybox", 0o755, b"binary")
                .finish(),
        };
        let archive = busybox.archive().unwrap();
        let wanted = busybox.diff_id();
        assert!(
            archive
                .windows(wanted.len())
                .any(|w| w == wanted.as_bytes())
        );
    }

    #[test]
    fn the_bundle_has_every_command() {
        let directory = tempfile::tempdir().unwrap();
        let busybox = Busybox {
            binary: b"binary".to_vec(),
            layer: Vec::new(),
        };
        busybox.unpack(directory.path()).unwrap();
        for link in LINKS {
            assert_eq!(
                std::fs::read(directory.path().join("bin").join(link)).unwrap(),
                b"binary"
            );
        }
    }
}
