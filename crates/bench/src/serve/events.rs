//! Events to one subscriber, and to ten fast ones, one that stands still and one that comes and goes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use portlayer::event::{Change, Event};
use portlayer_client::{Client, EventStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::daemon::{Daemon, Memory};
use super::per_second;
use crate::report::{Group, Unit};

/// Subscribers that read as fast as they can.
const FAST: u64 = 10;
/// How often the one that comes and goes does.
const VISITS: u64 = 20;
/// Between two looks at the daemon's memory.
const LOOK: Duration = Duration::from_millis(50);

/// Everything about events.
pub(super) async fn measure(daemon: &mut Daemon, count: u64) -> Result<Vec<Group>> {
    let mut rates = Group::new(
        "serve_events",
        "Events over the socket",
        Unit::PerSecond,
        format!(
            "{count} events; delivered: over {FAST} fast subscribers, beside one that stands still and one that resumes"
        ),
    );
    let mut memory = Group::new(
        "serve_memory",
        "Memory of the daemon",
        Unit::MiB,
        "resident; growth is the most seen above what there was before",
    );
    // Fills the caches and the log up to what it keeps.
    daemon.make(count).await?;
    // As many again, for what making them alone costs.
    let alone = daemon.memory()?.mib()?;
    let watch = Watch::start(daemon.memory()?);
    let start = Instant::now();
    let last = daemon.make(count).await?;
    rates.push_single("made, nobody listens", per_second(count, start.elapsed())?);
    memory.push_single("growth, nobody listens", watch.end().await? - alone);
    rates.push_single("stored, to one", one(daemon, last, count).await?);

    let before = daemon.memory()?.mib()?;
    let crowd = crowd(daemon, last, count).await?;
    rates.push_single("made, all listen", per_second(count, crowd.made)?);
    rates.push_single("delivered", per_second(count * FAST, crowd.delivered)?);
    memory.push_single("before", before);
    memory.push_single("growth", crowd.most - before);
    Ok(vec![rates, memory])
}

/// Per second, of stored events.
async fn one(daemon: &Daemon, last: u64, count: u64) -> Result<f64> {
    let client = Client::connect(daemon.socket()).await?;
    let start = Instant::now();
    let mut events = follow(&client, last - count + 1).await?;
    all(&mut events, last - count + 1, last).await?;
    per_second(count, start.elapsed())
}

struct Crowd {
    /// How long the changes took.
    made: Duration,
    /// How long it took until everybody had them.
    delivered: Duration,
    /// The daemon's memory, at most.
    most: f64,
}

async fn crowd(daemon: &mut Daemon, seen: u64, count: u64) -> Result<Crowd> {
    let (first, last) = (seen + 1, seen + count);
    let mut readers = JoinSet::new();
    for _ in 0..FAST {
        let client = Client::connect(daemon.socket()).await?;
        let mut events = follow(&client, first).await?;
        readers.spawn(async move { all(&mut events, first, last).await });
    }
    let client = Client::connect(daemon.socket()).await?;
    let stalled = follow(&client, first).await?;
    readers.spawn(resuming(daemon.socket(), first, last, count / VISITS));
    let watch = Watch::start(daemon.memory()?);
    let start = Instant::now();
    let reached = daemon.make(count).await?;
    let made = start.elapsed();
    ensure!(reached == last, "{reached} events and not {last}");
    while let Some(read) = readers.join_next().await {
        read??;
    }
    let delivered = start.elapsed();
    let most = watch.end().await?;
    late(stalled, first, last).await?;
    Ok(Crowd {
        made,
        delivered,
        most,
    })
}

/// Looks at the daemon's memory until it is told to end.
struct Watch {
    over: oneshot::Sender<()>,
    watched: JoinHandle<Result<f64>>,
}

impl Watch {
    fn start(memory: Memory) -> Self {
        let (over, ended) = oneshot::channel();
        let watched = tokio::spawn(most(memory, ended));
        Self { over, watched }
    }

    /// The most that was seen, in MiB.
    async fn end(self) -> Result<f64> {
        // Fails when it ended already, and then it says why.
        let _ = self.over.send(());
        self.watched.await?
    }
}

/// The most memory seen until it is over.
async fn most(memory: Memory, over: oneshot::Receiver<()>) -> Result<f64> {
    let mut over = over;
    let mut most = memory.mib()?;
    while tokio::time::timeout(LOOK, &mut over).await.is_err() {
        most = most.max(memory.mib()?);
    }
    Ok(most.max(memory.mib()?))
}

async fn follow(client: &Client, from: u64) -> Result<EventStream> {
    Ok(client.subscribe(Some(from), &[] as &[&str]).await?)
}

/// Takes every event of a range; one that is missing, double or a gap is an error.
async fn all(events: &mut EventStream, first: u64, last: u64) -> Result<()> {
    for expected in first..=last {
        let event = events.next().await.context("the stream ended")??;
        let gap = matches!(event.change, Change::Gap { .. });
        ensure!(
            event.sequence == expected && !gap,
            "event {expected} is missing: {event:?}"
        );
    }
    Ok(())
}

/// Comes, reads some, goes, and comes again.
async fn resuming(socket: PathBuf, first: u64, last: u64, some: u64) -> Result<()> {
    let mut next = first;
    while next <= last {
        let client = Client::connect(&socket).await?;
        let mut events = follow(&client, next).await?;
        for _ in 0..some {
            let event = events.next().await.context("the stream ended")??;
            next = after(&event, next)?;
            if next > last {
                break;
            }
        }
        drop((events, client));
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The one that stood still goes on: what it can no longer have is told.
async fn late(mut events: EventStream, first: u64, last: u64) -> Result<()> {
    let mut next = first;
    while next <= last {
        let event = events.next().await.context("the stream ended")??;
        next = after(&event, next)?;
    }
    Ok(())
}

/// The sequence to expect after an event; an unmarked gap is an error.
fn after(event: &Event, expected: u64) -> Result<u64> {
    match event.change {
        Change::Gap { from, to } if from == expected => Ok(to + 1),
        Change::Gap { .. } => bail!("the gap is not at {expected}: {event:?}"),
        _ if event.sequence == expected => Ok(expected + 1),
        _ => bail!("event {expected} is missing and no gap says so: {event:?}"),
    }
}
