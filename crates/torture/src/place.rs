//! Where a tortured node lives.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use portlayer_node::config::Config;

/// A directory for one node. Everything in it is removed when it is dropped, whatever runs there.
pub(crate) struct Place {
    directory: PathBuf,
    keep: bool,
}

impl Place {
    /// A new one below `parent`. Needs root.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "containers need root: run this as root"
        );
        // Short, because sockets are in it.
        let made = tempfile::Builder::new()
            .prefix("plt-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        Ok(Self {
            directory: made.keep(),
            keep: false,
        })
    }

    /// One that is there.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            keep: false,
        }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves everything as it is, for a look.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep {
            println!("left for a look: {}", self.directory.display());
            return;
        }
        let cleaned = portlayer_node::clean(&data(&self.directory));
        if let Err(error) = cleaned {
            println!("left behind in {}: {error}", self.directory.display());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The node's data directory.
pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("node")
}

/// What a worker wrote to its standard error, of all workers.
pub(crate) fn worker_log(directory: &Path) -> PathBuf {
    directory.join("workers.log")
}

/// The node's configuration.
pub(crate) fn config(directory: &Path) -> Config {
    let mut config = Config::new(data(directory));
    // A worker is opened a thousand times; its cache is cold anyway.
    config.ledger.cache_bytes = 32 << 20;
    config
}
