//! Locations that go away, and bytes a crash left.

use super::*;
use crate::error::{CreateError, LocationError, ReadError};
use crate::store::StoreError;

async fn until(node: &Node, available: bool) {
    // The probe that the failed call asked for runs beside us.
    while node.layer.shared.health.check("vols").is_ok() != available {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_location_that_goes_away_takes_only_its_own_elements() {
    let node = Node::new().await;
    node.layer.create(volume("volume://vols/v")).await.unwrap();
    let before = node.last();
    node.volumes.set_away(Some("the server is off"));
    let first = node.layer.create(volume("volume://vols/w")).await;
    assert!(matches!(
        first,
        Err(CreateError::Store {
            source: StoreError::Unavailable(_),
            ..
        })
    ));
    until(&node, false).await;
    let next = node.layer.create(volume("volume://vols/w")).await;
    assert!(
        matches!(next, Err(CreateError::Location(LocationError::Unavailable { reason, .. })) if reason == "the server is off")
    );
    let read = node.layer.read(&id("volume://vols/v")).await.unwrap();
    assert_eq!(read.state, State::Unavailable);
    let export = node.layer.export(&read.id).await;
    assert!(matches!(
        export,
        Err(ReadError::Location(LocationError::Unavailable { .. }))
    ));
    node.layer.create(task("task://default/t")).await.unwrap();
    node.layer.create(image("image://images/i")).await.unwrap();

    node.volumes.set_away(None);
    until(&node, true).await;
    node.layer.create(volume("volume://vols/w")).await.unwrap();
    assert_eq!(node.layer.read(&read.id).await.unwrap().state, State::Ready);
    let events = node.events(before);
    let flips = events
        .iter()
        .filter(|event| *event == "location-health volume://vols/_")
        .count();
    assert_eq!(flips, 2, "{events:?}");
}

#[tokio::test]
async fn a_start_without_a_location_is_degraded_and_not_stopped() {
    let node = Node::new().await;
    node.layer.create(volume("volume://vols/v")).await.unwrap();
    node.volumes.set_hanging(true);
    let node = node.reopen().await;
    assert_eq!(
        node.layer.read(&id("volume://vols/v")).await.unwrap().state,
        State::Unavailable
    );
    node.layer.create(task("task://default/t")).await.unwrap();
}

#[tokio::test]
async fn bytes_without_a_record_are_swept_at_open() {
    let node = Node::new().await;
    let kept = node
        .layer
        .create(volume("volume://vols/kept"))
        .await
        .unwrap()
        .id;
    node.volumes.leave_garbage(&id("volume://vols/crashed"));
    let node = node.reopen().await;
    assert_eq!(node.volumes.len(), 1);
    assert!(node.volumes.content(&kept).is_some());
}

#[tokio::test]
async fn the_sweep_leaves_alone_what_is_being_made() {
    let node = Node::new().await;
    node.volumes.delay(
        crate::store::memory::Verb::PutLate,
        std::time::Duration::from_millis(200),
    );
    let layer = node.layer.clone();
    let create = tokio::spawn(async move { layer.create(volume("volume://vols/slow")).await });
    while node.volumes.is_empty() {
        tokio::task::yield_now().await;
    }
    let swept = node.layer.sweep().await.unwrap();
    assert!(swept.iter().all(|location| location.removed.is_empty()));
    create.await.unwrap().unwrap();
    assert_eq!(node.volumes.len(), 1);
}
