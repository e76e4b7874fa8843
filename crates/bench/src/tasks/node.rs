//! The node all variants run on: a port layer and its private containerd.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portlayer::PortLayer;
use portlayer_node::config::Config;
use portlayer_runtime::Places;
use tokio::process::Command;

use crate::busybox::Busybox;
use crate::command::succeed;

/// The node's directory in the benchmark's.
const DIRECTORY: &str = "node";

/// An open port layer whose private containerd holds the workload's image, for the variants that use it directly.
pub(crate) struct Node {
    /// For what the variants keep; the node has a directory of its own in it.
    directory: PathBuf,
    inner: portlayer_node::Node,
    busybox: Busybox,
}

impl Node {
    /// Starts it below `directory` and imports the image.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let inner = portlayer_node::open(&Config::new(directory.join(DIRECTORY))).await?;
        let node = Self {
            directory: directory.to_owned(),
            inner,
            busybox: Busybox::load()?,
        };
        match node.import().await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await?;
                Err(error)
            }
        }
    }

    async fn import(&self) -> Result<()> {
        let archive = self.directory.join("busybox.tar");
        tokio::fs::write(&archive, self.busybox.archive()?).await?;
        let mut import = self.ctr();
        import.args(["images", "import"]).arg(&archive);
        succeed(import).await?;
        Ok(())
    }

    /// Ends what runs in it and removes all it made; the rest of the directory is the caller's.
    pub(crate) async fn stop(self) -> Result<()> {
        // Containers of ctr and of the direct client have their runc state where containerd's default puts it;
        // runc leaves the directory of a namespace.
        let state = Path::new("/run/containerd/runc").join(self.namespace());
        let removed = self.inner.remove().await;
        if let Err(error) = removed {
            // A port layer that does not close must not leave its containerd behind.
            portlayer_node::clean(&self.directory.join(DIRECTORY))?;
            return Err(error.into());
        }
        match std::fs::remove_dir_all(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .with_context(|| format!("cannot remove {}", state.display()))
    }

    fn places(&self) -> &Places {
        self.inner.places()
    }

    /// The port layer on this node.
    pub(crate) fn layer(&self) -> &PortLayer {
        &self.inner.port_layer
    }

    /// The directories above containerd's own that are ours.
    pub(crate) fn way_to_roots(&self) -> [PathBuf; 3] {
        let node = self.directory.join(DIRECTORY);
        [self.directory.clone(), node.clone(), node.join("state")]
    }

    /// The benchmark's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.places().socket
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.places().namespace
    }

    /// A cgroup for one container, removed with the node at the latest.
    pub(crate) fn cgroup(&self, container: &str) -> String {
        format!("{}/{container}", self.places().cgroup_parent)
    }

    pub(crate) fn busybox(&self) -> &Busybox {
        &self.busybox
    }

    /// `ctr` on this node.
    pub(super) fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket());
        command.args(["--namespace", self.namespace()]);
        command
    }
}
