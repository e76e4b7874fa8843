//! Delete.

use super::super::*;
use crate::error::{DeleteError, LocationError, ReadError};
use crate::ledger::Outcome;
use crate::store::StoreError;
use crate::store::memory::Verb;

#[tokio::test]
async fn delete_refuses() {
    let node = Node::new().await;
    node.layer
        .create(image("image://images/base"))
        .await
        .unwrap();
    node.layer
        .create(image("image://images/app").parent(id("image://images/base")))
        .await
        .unwrap();
    let volume = node
        .layer
        .create(volume("volume://vols/v"))
        .await
        .unwrap()
        .id;
    let x = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    node.compose(&x, State::Running, &[&volume]).await;
    node.layer.create(task("task://append/t")).await.unwrap();
    let before = node.fingerprint();
    let delete = |at: &str| {
        let (layer, at) = (node.layer.clone(), id(at));
        async move { layer.delete(&at).await.expect_err("refused") }
    };
    assert!(matches!(
        delete("task://nowhere/a").await,
        DeleteError::Location(LocationError::Unknown { .. })
    ));
    assert!(matches!(
        delete("task://append/t").await,
        DeleteError::Location(LocationError::Policy { verb: "delete", .. })
    ));
    assert!(matches!(
        delete("task://default/none").await,
        DeleteError::NotFound { .. }
    ));
    assert!(matches!(
        delete("image://builtin/none").await,
        DeleteError::NotFound { .. }
    ));
    for built_in in [
        "image://builtin/scratch",
        "network://node/none",
        "network://node/host",
        "log://node/file",
    ] {
        assert!(matches!(
            delete(built_in).await,
            DeleteError::PermissionDenied { .. }
        ));
    }
    assert!(
        matches!(delete("image://images/base").await, DeleteError::InUse { by, .. } if by == [id("image://images/app")])
    );
    assert!(
        matches!(delete("volume://vols/v").await, DeleteError::InUse { by, .. } if by == [x.clone()])
    );
    assert!(matches!(
        delete("executor://default/x").await,
        DeleteError::InvalidState {
            state: State::Running,
            ..
        }
    ));
    assert_eq!(node.fingerprint(), before);
    let last = node.audit(&volume).pop().unwrap();
    assert_eq!(last.outcome, Outcome::Failed("in_use".into()));

    node.compose(&x, State::Stopped, &[]).await;
    assert!(
        matches!(delete("volume://vols/v").await, DeleteError::InUse { .. }),
        "stopped executors use it too"
    );
    node.layer.delete(&x).await.unwrap();
    node.volumes
        .fail(Verb::Remove, StoreError::Unavailable("gone".into()));
    assert!(matches!(
        delete("volume://vols/v").await,
        DeleteError::Store { .. }
    ));
    assert!(matches!(
        node.layer.read(&volume).await,
        Err(ReadError::NotFound { .. })
    ));
    let swept = node.layer.sweep().await.unwrap();
    assert!(
        swept
            .iter()
            .any(|location| location.removed == [volume.digest_hex()])
    );
    assert!(node.volumes.is_empty());
}

#[tokio::test]
async fn an_owner_is_needed_by_what_is_made_from_its_tasks() {
    let node = Node::new().await;
    let owner = node
        .layer
        .create(volume("volume://vols/o"))
        .await
        .unwrap()
        .id;
    let owned = node
        .layer
        .create(task("task://default/o").owner(owner.clone()))
        .await
        .unwrap()
        .id;
    let child = node
        .layer
        .create(task("task://default/child").parent(owned))
        .await
        .unwrap()
        .id;
    let refused = node.layer.delete(&owner).await;
    assert!(matches!(refused, Err(DeleteError::InUse { by, .. }) if by == [child]));
}
