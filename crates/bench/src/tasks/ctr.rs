//! containerd's own command line, as anyone would type it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use async_trait::async_trait;

use super::{Node, Timing, Variant, names};
use crate::busybox::{REFERENCE, TRUE};
use crate::command::succeed;

/// `ctr run --rm IMAGE ID true`.
pub(super) struct Run(Arc<Node>);

impl Run {
    pub(super) fn new(node: &Arc<Node>) -> Self {
        Self(node.clone())
    }
}

#[async_trait]
impl Variant for Run {
    fn name(&self) -> &'static str {
        names::CTR
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let id = format!("ctr-{run}");
        let mut command = self.0.ctr();
        command.args(["run", "--rm", "--cgroup", &self.0.cgroup(&id)]);
        command.args([REFERENCE, &id, TRUE]);
        let start = Instant::now();
        succeed(command).await?;
        Ok(Timing::to_the_end(start))
    }
}

/// The container [`Exec`] runs in.
const HOST: &str = "exec-host";

/// `ctr task exec`: a further process in one idle container, started when this is made and removed with the node.
pub(super) struct Exec(Arc<Node>);

impl Exec {
    pub(super) async fn start(node: &Arc<Node>) -> Result<Self> {
        let mut command = node.ctr();
        command.args(["run", "--detach", "--null-io", "--cgroup"]);
        command.args([&node.cgroup(HOST), REFERENCE, HOST, "/bin/sleep", "100000"]);
        succeed(command).await?;
        Ok(Self(node.clone()))
    }
}

#[async_trait]
impl Variant for Exec {
    fn name(&self) -> &'static str {
        names::CTR_EXEC
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let mut command = self.0.ctr();
        command.args(["task", "exec", "--exec-id", &format!("exec-{run}")]);
        command.args([HOST, TRUE]);
        let start = Instant::now();
        succeed(command).await?;
        Ok(Timing::to_the_end(start))
    }

    fn in_throughput(&self) -> bool {
        false
    }
}
