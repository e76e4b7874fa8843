//! Things outside that nothing may touch.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What the secret file holds; whoever shows it has read what is not theirs.
pub(super) const SECRET: &str = "sentinel-7f3a9c5e";

/// Files of the host that attacks like to change.
const HOST: [&str; 12] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/ld.so.preload",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/usr/sbin/runc",
    "/usr/bin/containerd-shim-runc-v2",
];

/// Places where a file with this prefix would be an escape.
const PREFIX: &str = "pl-escape";
const WATCHED: [&str; 6] = ["/", "/tmp", "/etc", "/dev", "/var/tmp", "/root"];

type Tree = BTreeMap<PathBuf, (u32, u32, u32, u64, i64, u64)>;

pub(super) struct Sentinels {
    outside: PathBuf,
    before: Tree,
    host: BTreeMap<&'static str, Option<(u32, u64)>>,
}

impl Sentinels {
    /// A directory with a secret, next to where the attacks are.
    pub(super) fn plant(place: &Path) -> Result<Sentinels> {
        let outside = place.join("outside");
        std::fs::create_dir_all(outside.join("empty"))?;
        std::fs::write(outside.join("secret"), SECRET)?;
        std::fs::write(outside.join("file"), "untouched")?;
        let mut before = Tree::new();
        tree(&outside, &mut before).context("the sentinels")?;
        let host = HOST.iter().map(|path| (*path, state(path))).collect();
        Ok(Sentinels {
            outside,
            before,
            host,
        })
    }

    /// The directory.
    pub(super) fn outside(&self) -> &Path {
        &self.outside
    }

    /// The secret file.
    pub(super) fn secret(&self) -> PathBuf {
        self.outside.join("secret")
    }

    /// What was changed, if anything was.
    pub(super) fn touched(&self) -> Option<String> {
        let mut now = Tree::new();
        if tree(&self.outside, &mut now).is_err() || now != self.before {
            return Some(self.outside.display().to_string());
        }
        for (path, before) in &self.host {
            if state(path) != *before {
                return Some((*path).to_owned());
            }
        }
        for directory in WATCHED {
            let entries = std::fs::read_dir(directory).ok()?;
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                    return Some(entry.path().display().to_string());
                }
            }
        }
        None
    }
}

/// Larger files are told by their times: hashing them after every input would be most of the work.
const HASHED: u64 = 64 << 10;

/// Mode and a hash of the content, or of size and time of the last change.
fn state(path: &str) -> Option<(u32, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let mut hasher = DefaultHasher::new();
    match meta.len() <= HASHED {
        true => std::fs::read(path).ok()?.hash(&mut hasher),
        false => (meta.len(), meta.ctime(), meta.ctime_nsec(), meta.ino()).hash(&mut hasher),
    }
    Some((meta.mode(), hasher.finish()))
}

fn tree(path: &Path, into: &mut Tree) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    let content = match meta.is_file() {
        true => std::fs::read(path)?,
        false => Vec::new(),
    };
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let facts = (
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.mtime(),
        hasher.finish(),
    );
    into.insert(path.to_owned(), facts);
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            tree(&entry?.path(), into)?;
        }
    }
    Ok(())
}
