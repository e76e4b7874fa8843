//! Many callers at once.

use std::io::Cursor;

use super::*;
use crate::element::Patch;
use crate::error::{CreateError, DeleteError};
use crate::store::memory::Verb;

const CALLERS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creates_of_one_id_exactly_one_wins() {
    let node = Node::new().await;
    const IDS: usize = 200;
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let layer = node.layer.clone();
        callers.push(tokio::spawn(async move {
            let mut won = Vec::new();
            for number in 0..IDS {
                let content = format!("{number} by {caller}");
                let new = NewElement::new(
                    id(&format!("volume://vols/{number}")),
                    Spec::Volume(VolumeSpec::default()),
                )
                .data(Cursor::new(content.clone()));
                match layer.create(new).await {
                    Ok(made) => {
                        assert_eq!(made.checksum, Some(sum(&content)));
                        won.push((made.id, content));
                    }
                    Err(CreateError::AlreadyExists { checksum, .. }) => assert!(checksum.is_some()),
                    Err(error) => panic!("{error:?}"),
                }
            }
            won
        }));
    }
    let mut winners = std::collections::BTreeMap::new();
    for caller in callers {
        for (id, content) in caller.await.unwrap() {
            assert!(winners.insert(id, content).is_none(), "one winner each");
        }
    }
    assert_eq!(winners.len(), IDS);
    for (id, content) in winners {
        assert_eq!(
            node.volumes.content(&id),
            Some(content.into_bytes()),
            "losers never touch the winner's bytes"
        );
        assert_eq!(node.audit(&id).len(), 1);
    }
}

#[tokio::test]
async fn the_next_in_line_wins_when_the_first_fails() {
    let node = Node::new().await;
    node.volumes
        .delay(Verb::Put, std::time::Duration::from_millis(20));
    node.volumes
        .fail(Verb::Put, crate::store::StoreError::Unsupported("luck"));
    let creates = (0..8).map(|_| node.layer.create(volume("volume://vols/v")));
    let done = futures::future::join_all(creates).await;
    assert_eq!(done.iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(
        done.iter()
            .filter(|made| matches!(made, Err(CreateError::Store { .. })))
            .count(),
        1
    );
    assert_eq!(node.volumes.len(), 1);
}

#[tokio::test]
async fn a_parent_cannot_go_while_a_child_is_made() {
    let node = Node::new().await;
    let parent = node
        .layer
        .create(volume("volume://vols/parent"))
        .await
        .unwrap()
        .id;
    let (feed, data) = tokio::io::duplex(16);
    node.layer
        .create(image("image://images/base"))
        .await
        .unwrap();
    let base = id("image://images/base");
    let child = NewElement::new(
        id("image://images/child"),
        Spec::Image(ImageSpec::default()),
    )
    .parent(base.clone())
    .data(data);
    let layer = node.layer.clone();
    let create = tokio::spawn(async move { layer.create(child).await });
    while node.images.calls(Verb::Put) < 2 {
        tokio::task::yield_now().await;
    }
    let refused = node.layer.delete(&base).await;
    assert!(
        matches!(refused, Err(DeleteError::InUse { by, .. }) if by == [id("image://images/child")])
    );
    drop(feed);
    create.await.unwrap().unwrap();
    node.layer.delete(&parent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creates_and_deletes_of_one_id_leave_one_state() {
    let node = Node::new().await;
    let mut callers = Vec::new();
    for caller in 0..16 {
        let layer = node.layer.clone();
        callers.push(tokio::spawn(async move {
            for _ in 0..20 {
                if caller % 2 == 0 {
                    let _ = layer.create(volume("volume://vols/flip")).await;
                } else {
                    let _ = layer.delete(&id("volume://vols/flip")).await;
                }
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let there = node.layer.read(&id("volume://vols/flip")).await.is_ok();
    assert_eq!(
        node.volumes.len(),
        usize::from(there),
        "bytes are there exactly when the record is"
    );
    assert!(
        node.layer
            .sweep()
            .await
            .unwrap()
            .iter()
            .all(|swept| swept.removed.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(task("task://default/t"))
        .await
        .unwrap()
        .id;
    let updates = (0..CALLERS).map(|caller| {
        let (layer, made) = (node.layer.clone(), made.clone());
        tokio::spawn(async move {
            let patch = Patch::from([(format!("key-{caller}"), Some(b"1".to_vec()))]);
            layer.update(&made, patch, None).await.unwrap();
        })
    });
    for update in updates.collect::<Vec<_>>() {
        update.await.unwrap();
    }
    let read = node.layer.read(&made).await.unwrap();
    assert_eq!(
        (read.revision, read.rw.len()),
        (CALLERS as u64 + 1, CALLERS)
    );
}
