//! The private containerd all variants run on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portlayer_runtime::{Engine, EngineConfig};
use tokio::process::Command;

use crate::busybox::Busybox;
use crate::command::succeed;

/// A containerd with its own root, state, socket, namespace and cgroups, holding the workload's image.
pub(crate) struct Node {
    /// For what the variants keep; the engine has a directory of its own in it.
    directory: PathBuf,
    engine: Engine,
    busybox: Busybox,
}

impl Node {
    /// Starts it below `directory` and imports the image.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let engine = Engine::start(EngineConfig::new(directory.join("engine"))).await?;
        let node = Self {
            directory: directory.to_owned(),
            engine,
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
        self.engine.stop().await?;
        match std::fs::remove_dir_all(&state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .with_context(|| format!("cannot remove {}", state.display()))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.engine.places().socket
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.engine.places().namespace
    }

    /// A cgroup for one container, removed with the node at the latest.
    pub(crate) fn cgroup(&self, container: &str) -> String {
        format!("{}/{container}", self.engine.places().cgroup_parent)
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
