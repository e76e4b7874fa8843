//! Update and ensure-freespace.

use super::super::*;
use crate::element::Patch;
use crate::error::{LocationError, UpdateError};
use crate::ledger::Outcome;
use crate::store::StoreError;

#[tokio::test]
async fn update_refuses() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(task("task://default/u").ro("r", "1").rw("w", "1"))
        .await
        .unwrap()
        .id;
    node.layer.create(task("task://append/u")).await.unwrap();
    let set = |key: &str| Patch::from([(key.to_owned(), Some(b"x".to_vec()))]);
    let before = node.fingerprint();
    let update = |at: &str, patch, revision| {
        let (layer, at) = (node.layer.clone(), id(at));
        async move {
            layer
                .update(&at, patch, revision)
                .await
                .expect_err("refused")
        }
    };
    assert!(matches!(
        update("task://nowhere/u", set("k"), None).await,
        UpdateError::Location(LocationError::Unknown { .. })
    ));
    assert!(matches!(
        update("task://append/u", set("k"), None).await,
        UpdateError::Location(LocationError::Policy {
            policy: Policy::CreateOnly,
            verb: "update",
            ..
        })
    ));
    assert!(matches!(
        update("network://node/host", set("k"), None).await,
        UpdateError::Location(LocationError::Policy { .. })
    ));
    assert!(matches!(
        update("task://default/none", set("k"), None).await,
        UpdateError::NotFound { .. }
    ));
    assert!(matches!(
        update("task://default/u", set("k"), Some(7)).await,
        UpdateError::Revision {
            expected: 7,
            actual: 1,
            ..
        }
    ));
    assert!(
        matches!(update("task://default/u", set("r"), None).await, UpdateError::ReadOnlyKey { key, .. } if key == "r")
    );
    assert!(matches!(
        update("task://default/u", Patch::from([("r".into(), None)]), None).await,
        UpdateError::ReadOnlyKey { .. }
    ));
    assert!(matches!(
        update("task://default/u", set(""), None).await,
        UpdateError::InvalidEntry { .. }
    ));
    assert_eq!(node.fingerprint(), before);
    assert_eq!(node.layer.read(&made).await.unwrap().revision, 1);
    let codes: Vec<_> = node
        .audit(&made)
        .into_iter()
        .map(|row| row.outcome)
        .collect();
    assert!(
        codes.contains(&Outcome::Failed("read_only_key".into())),
        "{codes:?}"
    );

    let volume = node
        .layer
        .create(volume("volume://vols/v"))
        .await
        .unwrap()
        .id;
    let executor = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    let no_bytes = node.layer.ensure_freespace(&executor, 1).await;
    assert!(matches!(no_bytes, Err(UpdateError::InvalidState { .. })));
    node.volumes.set_capacity(10);
    let full = node.layer.ensure_freespace(&volume, 11).await;
    assert!(matches!(
        full,
        Err(UpdateError::Store {
            source: StoreError::InsufficientSpace { .. },
            ..
        })
    ));
    node.compose(&executor, State::Running, &[&volume]).await;
    let bound = node.layer.ensure_freespace(&volume, 1).await;
    assert!(matches!(bound, Err(UpdateError::InvalidState { .. })));
}
