//! How fast the daemon's interface is: the median of a unary read and the events per second to one subscriber, over a
//! unix socket, with the engine in memory. `cargo run --release --example serve_speed`.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::element::{ElementId, Kind, NewElement, Patch, Spec};
use portlayer::ledger::LedgerConfig;
use portlayer::runtime::fake::FakeRuntime;
use portlayer::store::{Location, Policy};
use portlayer_client::Client;
use portlayer_node::server::{Access, Facts, Listener, Server};

const READS: usize = 20_000;
const EVENTS: u64 = 200_000;
/// Updates under way at once while the events are made.
const WRITERS: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let layer = PortLayer::open(portlayer::Config {
        ledger: LedgerConfig::new(directory.path().join("ledger")),
        locations: vec![Location {
            name: "tasks".to_owned(),
            kinds: vec![Kind::Task],
            policy: Policy::ReadWrite,
            store: None,
        }],
        networks: Vec::new(),
        runtime: std::sync::Arc::new(FakeRuntime::default()),
    })
    .await?;
    let task: ElementId = "task://tasks/x".parse()?;
    let new = NewElement::new(task.clone(), Spec::Task(Box::default()));
    layer.create(new.ro("team", "a").rw("owner", "b")).await?;

    let socket = directory.path().join("socket");
    let server = Server::new(layer.clone(), Facts::default(), Access::own());
    let listener = Listener::unix(&socket, 0o600, None)?;
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    let client = Client::connect(&socket).await?;
    reads(&client, &task).await?;
    make_events(&layer, &task).await?;
    events(&client).await?;
    server.drain();
    drop(client);
    serving.await??;
    Ok(())
}

async fn reads(client: &Client, task: &ElementId) -> Result<()> {
    let mut took = Vec::with_capacity(READS);
    for _ in 0..READS {
        let started = Instant::now();
        client.read(task).await?;
        took.push(started.elapsed());
    }
    took.sort();
    let at = |part: usize| took[READS * part / 1000].as_secs_f64() * 1e6;
    println!(
        "read over the socket: p50 {:.0} us, p99 {:.0} us",
        at(500),
        at(990)
    );
    Ok(())
}

async fn make_events(layer: &PortLayer, task: &ElementId) -> Result<()> {
    let updates = futures::stream::iter(0..EVENTS).map(|n| {
        let patch = Patch::from([("n".to_owned(), Some(n.to_string().into_bytes()))]);
        layer.update(task, patch, None)
    });
    let mut updates = updates.buffer_unordered(WRITERS);
    while let Some(updated) = updates.next().await {
        updated?;
    }
    Ok(())
}

async fn events(client: &Client) -> Result<()> {
    let started = Instant::now();
    let mut events = client.subscribe(Some(1), &[] as &[&str]).await?;
    let mut count = 0_u64;
    while count < EVENTS {
        events.next().await.context("the stream ended")??;
        count += 1;
    }
    let took: Duration = started.elapsed();
    let rate = EVENTS as f64 / took.as_secs_f64();
    println!("stored events to one subscriber: {rate:.0} per second");
    Ok(())
}
