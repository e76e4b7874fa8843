//! An element whose record is damaged, seen through the verbs: it alone is hurt.

use super::*;
use crate::ErrorKind;
use crate::element::{ListQuery, Patch};
use crate::error::{Classify, CreateError, DeleteError, ReadError, UpdateError};
use crate::ledger::LedgerError;

fn patch() -> Patch {
    Patch::from([("k".to_owned(), Some(b"v".to_vec()))])
}

#[tokio::test]
async fn a_damaged_record_refuses_every_verb_and_hurts_no_other_element() {
    let node = Node::new().await;
    let bad = id("volume://vols/bad");
    let others = ["task://default/t", "volume://vols/a", "volume://vols/z"];
    node.layer.create(task(others[0])).await.unwrap();
    for text in [others[1], bad.as_str(), others[2]] {
        node.layer.create(volume(text)).await.unwrap();
    }
    node.layer.shared.ledger.damage(&bad);
    let before = node.fingerprint();

    let read = node.layer.read(&bad).await.unwrap_err();
    assert!(matches!(&read, ReadError::Quarantined { id } if *id == bad));
    assert_eq!(read.class().kind, ErrorKind::DataLoss);
    let export = node.layer.export(&bad).await;
    assert!(matches!(export, Err(ReadError::Quarantined { .. })));
    let update = node.layer.update(&bad, patch(), None).await;
    assert!(matches!(update, Err(UpdateError::Quarantined { id }) if id == bad));
    let space = node.layer.ensure_freespace(&bad, 1).await;
    assert!(matches!(space, Err(UpdateError::Quarantined { .. })));
    let delete = node.layer.delete(&bad).await;
    assert!(matches!(
        delete,
        Err(DeleteError::Ledger {
            source: LedgerError::Damaged { .. },
            ..
        })
    ));
    let unhurt = node.layer.delete_damaged(&id(others[1])).await;
    assert!(matches!(unhurt, Err(DeleteError::InvalidState { .. })));
    let again = node.layer.create(volume(bad.as_str())).await;
    assert!(matches!(again, Err(CreateError::AlreadyExists { .. })));
    let child = node
        .layer
        .create(volume("volume://vols/child").parent(bad.clone()))
        .await;
    assert!(matches!(child, Err(CreateError::InvalidParent { .. })));
    assert_eq!(node.fingerprint(), before, "nothing happened");

    let page = node.layer.list(ListQuery::default()).await.unwrap();
    assert_eq!(page.damaged, [bad.as_str()]);
    for text in others {
        assert!(page.items.iter().any(|item| item.id.as_str() == text));
        node.layer.read(&id(text)).await.unwrap();
        node.layer.update(&id(text), patch(), None).await.unwrap();
    }
    let swept = node.layer.sweep().await.unwrap();
    assert!(swept.iter().all(|location| location.removed.is_empty()));
    assert!(node.volumes.content(&bad).is_some(), "its bytes are kept");

    let node = node.reopen().await;
    assert!(matches!(
        node.layer.read(&bad).await,
        Err(ReadError::Quarantined { .. })
    ));
    for text in others {
        node.layer.delete(&id(text)).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_element_is_deleted_when_asked_for_and_the_ledger_verifies_again() {
    let node = Node::new().await;
    let (parent, bad) = (id("volume://vols/parent"), id("volume://vols/bad"));
    node.layer.create(volume(parent.as_str())).await.unwrap();
    let child = volume(bad.as_str()).parent(parent.clone());
    node.layer.create(child).await.unwrap();
    let needs = id("volume://vols/needs");
    let grandchild = volume(needs.as_str()).parent(bad.clone());
    node.layer.create(grandchild).await.unwrap();
    node.layer.shared.ledger.damage(&bad);

    let refused = node.layer.delete_damaged(&bad).await;
    assert!(matches!(refused, Err(DeleteError::InUse { by, .. }) if by == [needs.clone()]));
    node.layer.delete(&needs).await.unwrap();
    node.layer.delete_damaged(&bad).await.unwrap();
    assert!(node.volumes.content(&bad).is_none(), "its bytes are gone");
    let gone = node.layer.delete_damaged(&bad).await;
    assert!(matches!(gone, Err(DeleteError::NotFound { .. })));
    let report = node.layer.shared.ledger.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    // Neither its parent nor its name is held any more.
    node.layer.delete(&parent).await.unwrap();
    node.layer.create(volume(bad.as_str())).await.unwrap();
}
