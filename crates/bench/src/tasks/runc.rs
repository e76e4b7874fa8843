//! `runc run` on a plain directory: no engine, no snapshot, no record; the floor of what runs through runc.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use async_trait::async_trait;
use tokio::process::Command;

use super::{Node, Timing, Variant, names};
use crate::busybox;
use crate::command::succeed;

/// One bundle per run, all on the same root directory.
pub(super) struct Run {
    directory: PathBuf,
    spec: serde_json::Value,
    node: Arc<Node>,
}

impl Run {
    pub(super) fn new(node: &Arc<Node>) -> Result<Self> {
        let directory = node.directory().join("runc");
        let root = directory.join("root");
        std::fs::create_dir_all(&root)?;
        node.busybox().unpack(&root)?;
        let mut spec = busybox::spec(&directory, "")?;
        spec["root"]["path"] = serde_json::json!(root);
        Ok(Self {
            spec,
            directory,
            node: node.clone(),
        })
    }

    fn bundle(&self, run: u64) -> PathBuf {
        self.directory.join(format!("bundle-{run}"))
    }
}

#[async_trait]
impl Variant for Run {
    fn name(&self) -> &'static str {
        names::RUNC
    }

    async fn before(&self, run: u64) -> Result<()> {
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = serde_json::json!(self.node.cgroup(&id(run)));
        let bundle = self.bundle(run);
        tokio::fs::create_dir(&bundle).await?;
        tokio::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?).await?;
        Ok(())
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(["run", "--bundle"])
            .arg(self.bundle(run))
            .arg(id(run));
        let start = Instant::now();
        succeed(command).await?;
        Ok(Timing::to_the_end(start))
    }

    async fn after(&self, run: u64) -> Result<()> {
        tokio::fs::remove_dir_all(self.bundle(run)).await?;
        Ok(())
    }
}

fn id(run: u64) -> String {
    format!("runc-{run}")
}
