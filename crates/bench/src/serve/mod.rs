//! The daemon's interface over its socket: reads, one subscriber, and a crowd of subscribers of which one stands still
//! and one comes and goes. The daemon is a process of its own, so that its memory is its own.

pub(crate) mod daemon;
mod events;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portlayer::element::{NewElement, Spec};
use portlayer_client::Client;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

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
    let new = NewElement::new(daemon::element(0)?, Spec::Task(Box::default()));
    client.create(new.ro("build", "1").rw("team", "a")).await?;
    drop(client);
    let socket = daemon.socket();
    let read = tokio::task::spawn_blocking(move || reads(&socket, extent.reads)).await??;
    let mut groups = vec![read];
    groups.extend(events::measure(daemon, extent.events).await?);
    Ok(groups)
}

/// How a caller's runtime works: with threads of its own, each call wakes one after another of them.
const RUNTIMES: [(&str, bool); 2] = [("", false), (", from a runtime of several threads", true)];

/// Reads one after the other, in turn with calls that do nothing: what a call over this socket costs by itself.
fn reads(socket: &Path, reads: u64) -> Result<Group> {
    let mut group = Group::new(
        "serve_read",
        "Reading one element over the socket",
        Unit::Micros,
        "one after the other, on one connection, in turn with calls of the health service",
    );
    for (from, many) in RUNTIMES {
        let mut builder = match many {
            true => tokio::runtime::Builder::new_multi_thread(),
            false => tokio::runtime::Builder::new_current_thread(),
        };
        let runtime = builder.enable_all().build()?;
        let socket = socket.to_owned();
        let called = runtime.block_on(runtime.spawn(call(socket, reads)))??;
        let [mut samples, empty] = called;
        group.push(format!("read{from}"), &samples)?;
        group.push(format!("health check{from}"), &empty)?;
        samples.sort_by(f64::total_cmp);
        if let Some(p99) = quantile(&samples, 99) {
            group.push_single(format!("read, 99th percentile{from}"), p99);
        }
    }
    Ok(group)
}

/// Microseconds of so many reads, and of as many health checks.
async fn call(socket: PathBuf, reads: u64) -> Result<[Vec<f64>; 2]> {
    let client = Client::connect(socket).await?;
    let mut health = HealthClient::new(client.channel());
    let id = daemon::element(0)?;
    let (mut samples, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..reads {
        let start = Instant::now();
        let descriptor = client.read(&id).await?;
        samples.push(micros(start.elapsed()));
        ensure!(descriptor.id == id, "asked for {id}, got {}", descriptor.id);
        let start = Instant::now();
        health.check(HealthCheckRequest::default()).await?;
        empty.push(micros(start.elapsed()));
    }
    Ok([samples, empty])
}

/// So many in that time, per second.
fn per_second(count: u64, took: Duration) -> Result<f64> {
    Ok(f64::from(u32::try_from(count)?) / took.as_secs_f64())
}
