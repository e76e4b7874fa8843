//! The daemon's interface over its socket: reads, one subscriber, and a crowd of subscribers of which one stands still
//! and one comes and goes. The daemon is a process of its own, so that its memory is its own.

pub(crate) mod daemon;
mod events;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portlayer::element::{NewElement, Spec};
use portlayer_client::Client;

use crate::report::{Group, Unit};
use crate::sample::{micros, quantile};
use daemon::Daemon;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Reads, one after the other.
    pub(crate) reads: u64,
    /// Events of each part about events.
    pub(crate) events: u64,
}

/// Everything about serving, with a daemon below `directory`.
pub(crate) async fn measure(directory: &Path, extent: Extent) -> Result<Vec<Group>> {
    let directory = directory.join("serve");
    let mut daemon = Daemon::start(&directory).await?;
    let measured = tokio::select! {
        measured = by(&mut daemon, extent) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let ended = daemon.end().await;
    // Whatever happened, also to the daemon: no engine stays.
    portlayer_node::clean(&directory)?;
    let groups = measured?;
    ended?;
    Ok(groups)
}

async fn by(daemon: &mut Daemon, extent: Extent) -> Result<Vec<Group>> {
    let client = Client::connect(daemon.socket()).await?;
    let mut groups = vec![reads(&client, extent.reads).await?];
    drop(client);
    groups.extend(events::measure(daemon, extent.events).await?);
    Ok(groups)
}

async fn reads(client: &Client, reads: u64) -> Result<Group> {
    let id = daemon::element(0)?;
    let new = NewElement::new(id.clone(), Spec::Task(Box::default()));
    client.create(new.ro("build", "1").rw("team", "a")).await?;
    let mut group = Group::new(
        "serve_read",
        "Reading one element over the socket",
        Unit::Micros,
        "one after the other, on one connection",
    );
    let mut samples = Vec::new();
    for _ in 0..reads {
        let start = Instant::now();
        let descriptor = client.read(&id).await?;
        samples.push(micros(start.elapsed()));
        ensure!(descriptor.id == id, "asked for {id}, got {}", descriptor.id);
    }
    group.push("read", &samples)?;
    samples.sort_by(f64::total_cmp);
    if let Some(p99) = quantile(&samples, 99) {
        group.push_single("read, 99th percentile", p99);
    }
    Ok(group)
}

/// So many in that time, per second.
fn per_second(count: u64, took: Duration) -> Result<f64> {
    Ok(f64::from(u32::try_from(count)?) / took.as_secs_f64())
}
