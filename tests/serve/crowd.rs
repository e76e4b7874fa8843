//! Many subscribers at once, over a socket: ten that read, one that stands still, one that comes and goes.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::element::{ElementId, Kind, NewElement, Patch, Spec};
use portlayer::event::{Change, Event};
use portlayer::ledger::LedgerConfig;
use portlayer::runtime::fake::FakeRuntime;
use portlayer::store::{Location, Policy};
use portlayer_client::{Client, EventStream};
use portlayer_node::server::{Access, Facts, Listener, Server};

const EVENTS: u64 = 20_000;
/// Fewer are kept than the one that stands still misses.
const KEPT: u64 = 8_000;

async fn layer(directory: &Path) -> PortLayer {
    let ledger = LedgerConfig {
        event_retention: KEPT,
        ..LedgerConfig::new(directory.join("ledger"))
    };
    let layer = PortLayer::open(portlayer::Config {
        ledger,
        locations: vec![Location {
            name: "tasks".to_owned(),
            kinds: vec![Kind::Task],
            policy: Policy::ReadWrite,
            store: None,
        }],
        networks: Vec::new(),
        runtime: Arc::new(FakeRuntime::default()),
    });
    layer.await.unwrap()
}

async fn follow(client: &Client, from: u64) -> EventStream {
    client.subscribe(Some(from), &[] as &[&str]).await.unwrap()
}

async fn next(events: &mut EventStream) -> Event {
    events.next().await.unwrap().unwrap()
}

/// What comes after an event; the way there has no unmarked gap.
fn after(event: &Event, expected: u64, missed: &mut u64) -> u64 {
    match event.change {
        Change::Gap { from, to } => {
            assert_eq!(from, expected);
            *missed += to + 1 - from;
            to + 1
        }
        _ => {
            assert_eq!(event.sequence, expected);
            expected + 1
        }
    }
}

/// Makes events in rounds, each only when every fast reader has the one before: whoever reads loses nothing.
async fn make(layer: &PortLayer, task: &ElementId, from: u64, count: u64) {
    let changes = futures::stream::iter(from..from + count).map(|n| async move {
        let patch = Patch::from([("n".to_owned(), Some(n.to_string().into_bytes()))]);
        layer.update(task, patch, None).await.unwrap();
    });
    changes.buffer_unordered(256).for_each(|()| async {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_still_costs_nobody_anything_and_gaps_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let layer = layer(directory.path()).await;
    let task: ElementId = "task://tasks/x".parse().unwrap();
    let new = NewElement::new(task.clone(), Spec::Task(Box::default()));
    layer.create(new).await.unwrap();
    let socket = directory.path().join("socket");
    let server = Server::new(layer.clone(), Facts::default(), Access::own());
    let listener = Listener::unix(&socket, 0o600, None).unwrap();
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    // All on one connection: there one could hold the others up.
    let client = Client::connect(&socket).await.unwrap();
    let first = layer.last_sequence() + 1;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(follow(&client, first).await);
    }
    let mut fast = Vec::new();
    for _ in 0..10 {
        fast.push(follow(&client, first).await);
    }
    let mut resuming = first;
    let mut missed = 0;
    let rounds = 4;
    for round in 0..rounds {
        let from = first + round * (EVENTS / rounds);
        let to = from + EVENTS / rounds;
        let reading = fast.iter_mut().map(|events| async move {
            for expected in from..to {
                let event = next(events).await;
                assert!(!matches!(event.change, Change::Gap { .. }), "{event:?}");
                assert_eq!(event.sequence, expected);
            }
        });
        let (_, ()) = tokio::join!(
            futures::future::join_all(reading),
            make(&layer, &task, from, to - from),
        );
        // Comes when it likes, which is after more than is kept, and stays for a while.
        if round % 2 == 1 {
            let mut events = follow(&client, resuming).await;
            for _ in 0..1_000 {
                resuming = after(&next(&mut events).await, resuming, &mut missed);
            }
        }
    }
    let last = layer.last_sequence();
    assert_eq!(last, first + EVENTS - 1);
    assert!(missed > 0);
    let mut events = follow(&client, resuming).await;
    while resuming <= last {
        resuming = after(&next(&mut events).await, resuming, &mut missed);
    }
    for mut events in stalled {
        let (mut expected, mut missed) = (first, 0);
        while expected <= last {
            expected = after(&next(&mut events).await, expected, &mut missed);
        }
    }
    drop((events, fast, client));
    server.drain();
    serving.await.unwrap().unwrap();
    drop(server);
    layer.close().await.unwrap();
}
