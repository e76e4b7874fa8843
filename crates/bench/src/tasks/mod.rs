//! One task from start to end, by different means: each means is a [`Variant`].

mod ctr;
mod diego;
mod direct;
mod latency;
mod layer;
mod node;
mod runc;
mod throughput;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;

pub(crate) use diego::diego_variants;
pub(crate) use latency::{Pace, latency};
pub(crate) use node::Node;
pub(crate) use throughput::throughput;

use crate::report::Unit;

/// What one run took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timing {
    /// From the call to the exit status in the caller's hands; `None` when the means cannot tell the exit from the
    /// end of its own cleaning up.
    pub(crate) exit: Option<Duration>,
    /// From the call until nothing of the task is left.
    pub(crate) gone: Duration,
    /// The parts, in order, for means that can tell them apart.
    pub(crate) phases: Vec<(&'static str, Duration)>,
}

impl Timing {
    /// Of a means that returns when all is done.
    fn to_the_end(start: Instant) -> Self {
        Self {
            gone: start.elapsed(),
            ..Self::default()
        }
    }
}

/// A means of running `true` once. Runs with different numbers may overlap.
#[async_trait]
pub(crate) trait Variant: Send + Sync {
    /// Name in tables and in JSON; never changes, so that runs can be compared.
    fn name(&self) -> &'static str;

    /// What has to be there before the clock starts.
    async fn before(&self, _run: u64) -> Result<()> {
        Ok(())
    }

    /// The measured run. Errors: anything but exit status 0.
    async fn run(&self, run: u64) -> Result<Timing>;

    /// Removes what [`Variant::before`] made.
    async fn after(&self, _run: u64) -> Result<()> {
        Ok(())
    }

    /// Ends what it still does by itself, after its last run.
    async fn end(&self) {}

    /// Whether its tasks per second are measured too: of those that start one plain container each time.
    fn in_throughput(&self) -> bool {
        true
    }
}

/// The unit of all task times.
pub(crate) const UNIT: Unit = Unit::Millis;

/// Every means, ready to run; the first is what the others are compared with.
pub(crate) async fn variants(node: &Arc<Node>) -> Result<Vec<Box<dyn Variant>>> {
    let image = layer::image(node).await?;
    let further = layer::Further::start(node, &image).await?;
    let made = direct::made(node, &further.container()).await?;
    let direct = |kind| direct::Client::connect(node, &made, kind);
    Ok(vec![
        Box::new(ctr::Run::new(node)),
        Box::new(runc::Run::new(node)?),
        Box::new(direct(direct::Kind::Minimal).await?),
        Box::new(direct(direct::Kind::Stored).await?),
        Box::new(direct(direct::Kind::StoredUsers).await?),
        Box::new(layer::Executor::new(node, &image)),
        Box::new(layer::Executor::with_host_users(node, &image)),
        Box::new(layer::Executor::with_volumes(node, &image).await?),
        Box::new(further),
        Box::new(ctr::Exec::start(node).await?),
    ])
}

/// Names other parts of the benchmark look figures up by.
pub(crate) mod names {
    pub(crate) const CTR: &str = "ctr run --rm";
    pub(crate) const RUNC: &str = "runc run";
    pub(crate) const DIRECT: &str = "direct client";
    pub(crate) const DIRECT_STORED: &str = "direct client, output stored";
    pub(crate) const DIRECT_USERS: &str = "direct client, output stored, own user ids";
    pub(crate) const LAYER: &str = "portlayer";
    pub(crate) const LAYER_HOST_USERS: &str = "portlayer, the host's user ids";
    pub(crate) const LAYER_VOLUMES: &str = "portlayer, 20 volumes";
    pub(crate) const LAYER_FURTHER: &str = "portlayer, a further task";
    pub(crate) const STEPS: &str = "the same steps through the port layer";
    pub(crate) const DIEGO: &str = "Diego's front end";
    pub(crate) const CTR_EXEC: &str = "ctr task exec";
}
