//! What each verb does when it works: descriptor, events, audit rows.

use std::io::Cursor;

use tokio::io::AsyncReadExt;

use super::*;
use crate::element::{Keys, Patch, Projection, ReadData};
use crate::ledger::{Outcome, Verb};
use crate::task::Secret;

#[tokio::test]
async fn create_answers_the_descriptor_and_leaves_one_row_and_one_event() {
    let node = Node::new().await;
    let before = node.last();
    let made = node
        .layer
        .with_actor("alice")
        .create(task("task://default/a").ro("r", "1").rw("w", "2"))
        .await
        .unwrap();
    assert_eq!(
        (made.revision, made.state, made.size, made.checksum),
        (1, State::Ready, 0, None)
    );
    assert_eq!(node.layer.read(&made.id).await.unwrap(), made);
    assert_eq!(node.events(before), ["created task://default/a"]);
    let rows = node.audit(&made.id);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (
            rows[0].verb,
            rows[0].revision_before,
            rows[0].revision_after
        ),
        (Verb::Create, 0, 1)
    );
    assert_eq!(
        (rows[0].actor.as_str(), &rows[0].outcome),
        ("alice", &Outcome::Ok)
    );
    let executor = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap();
    assert_eq!(executor.state, State::Created);
}

#[tokio::test]
async fn the_definition_of_a_task_is_stored_and_summed() {
    let node = Node::new().await;
    let definition = r#"{"run": "it"}"#;
    let new = task("task://default/d")
        .data(Cursor::new(definition))
        .checksum(sum(definition));
    let made = node.layer.create(new).await.unwrap();
    assert_eq!(
        (made.checksum, made.size),
        (Some(sum(definition)), definition.len() as u64)
    );
    let mut text = String::new();
    node.layer
        .export(&made.id)
        .await
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, definition);

    let same = ReadData::UnlessChecksum(sum(definition));
    let (_, data) = node
        .layer
        .read_with(&made.id, &Projection::default(), same)
        .await
        .unwrap();
    assert!(data.is_none());
    let other = ReadData::UnlessChecksum(sum("x"));
    let (_, data) = node
        .layer
        .read_with(&made.id, &Projection::default(), other)
        .await
        .unwrap();
    assert!(data.is_some());
}

#[tokio::test]
async fn a_task_inherits_what_it_is_silent_about() {
    let node = Node::new().await;
    let mut parent = task("task://default/parent");
    if let Spec::Task(spec) = &mut parent.spec {
        spec.cwd = Some("/work".into());
        spec.secrets = vec![Secret {
            name: "TOKEN".into(),
            value: "s3cret".into(),
        }];
    }
    node.layer.create(parent).await.unwrap();
    let before = node.last();
    let child = NewElement::new(id("task://default/child"), Spec::Task(Box::default()))
        .parent(id("task://default/parent"));
    let child = node.layer.create(child).await.unwrap();
    let crate::element::Body::Task(body) = &child.body else {
        panic!("a task");
    };
    assert_eq!(
        (body.spec.argv.len(), body.spec.cwd.as_deref()),
        (1, Some("/work"))
    );
    assert_eq!(
        node.events(before),
        [
            "created task://default/child",
            "inherited task://default/parent task://default/child"
        ]
    );
    assert!(!serde_json::to_string(&child).unwrap().contains("s3cret"));
    assert!(!format!("{child:?}").contains("s3cret"));
}

#[tokio::test]
async fn update_patches_and_a_patch_that_changes_nothing_is_no_change() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(task("task://default/u").rw("a", "1").rw("b", "2"))
        .await
        .unwrap();
    let before = node.last();
    let patch = Patch::from([
        ("a".into(), None),
        ("b".into(), Some(b"2".to_vec())),
        ("c".into(), Some(b"3".to_vec())),
    ]);
    let done = node
        .layer
        .update(&made.id, patch.clone(), Some(1))
        .await
        .unwrap();
    assert_eq!(
        (done.descriptor.revision, done.changed),
        (2, vec!["a".to_owned(), "c".to_owned()])
    );
    assert_eq!(done.descriptor.rw.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(node.events(before), ["modified task://default/u a+c"]);
    let rows = node.audit(&made.id);
    assert_eq!(
        (rows[1].verb, rows[1].keys.join("+"), rows[1].revision_after),
        (Verb::Update, "a+c".into(), 2)
    );

    let before = node.fingerprint();
    let again = node.layer.update(&made.id, patch, None).await.unwrap();
    assert_eq!((again.descriptor.revision, again.changed), (2, Vec::new()));
    assert_eq!(
        (node.fingerprint(), node.audit(&made.id).len()),
        (before, 2)
    );
}

#[tokio::test]
async fn delete_removes_record_bytes_and_definition_and_keeps_the_rows() {
    let node = Node::new().await;
    node.layer.create(volume("volume://vols/v")).await.unwrap();
    node.layer
        .create(task("task://default/t").data(Cursor::new("d")))
        .await
        .unwrap();
    let before = node.last();
    for text in ["volume://vols/v", "task://default/t"] {
        node.layer.delete(&id(text)).await.unwrap();
        assert!(node.layer.read(&id(text)).await.is_err());
        let last = node.audit(&id(text)).pop().unwrap();
        assert_eq!((last.verb, last.revision_after), (Verb::Delete, 0));
    }
    assert!(node.volumes.is_empty());
    assert_eq!(
        node.layer
            .shared
            .ledger
            .data(&id("task://default/t"))
            .unwrap(),
        None
    );
    assert_eq!(
        node.events(before),
        ["deleted volume://vols/v", "deleted task://default/t"]
    );
    node.layer.create(task("task://default/t")).await.unwrap();
}

#[tokio::test]
async fn an_owner_takes_its_tasks_with_it() {
    let node = Node::new().await;
    let owner = node
        .layer
        .create(volume("volume://vols/o"))
        .await
        .unwrap()
        .id;
    let owned = node
        .layer
        .create(task("task://default/o/t").owner(owner.clone()))
        .await
        .unwrap();
    assert_eq!(owned.owner, Some(owner.clone()));
    let before = node.last();
    node.layer.delete(&owner).await.unwrap();
    assert_eq!(
        node.events(before),
        ["deleted task://default/o/t", "deleted volume://vols/o"]
    );
    assert!(node.layer.read(&owned.id).await.is_err());
}

#[tokio::test]
async fn a_deleted_executor_lets_go_of_what_it_used() {
    let node = Node::new().await;
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
    node.compose(&executor, State::Stopped, &[&volume]).await;
    let before = node.last();
    node.layer.delete(&executor).await.unwrap();
    assert_eq!(
        node.events(before),
        ["left volume://vols/v", "deleted executor://default/x"]
    );
    node.layer.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn a_projection_returns_the_keys_asked_for() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(
            task("task://default/p")
                .ro("r", "1")
                .rw("a", "2")
                .rw("b", "3"),
        )
        .await
        .unwrap();
    let projection = Projection {
        ro: Keys::None,
        rw: Keys::Only(["b".to_owned(), "gone".to_owned()].into()),
    };
    let (read, data) = node
        .layer
        .read_with(&made.id, &projection, ReadData::Never)
        .await
        .unwrap();
    assert!(read.ro.is_empty() && data.is_none());
    assert_eq!(read.rw.keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn free_space_is_a_change_like_any_other() {
    let node = Node::new().await;
    let made = node.layer.create(volume("volume://vols/f")).await.unwrap();
    let before = node.last();
    let grown = node.layer.ensure_freespace(&made.id, 4096).await.unwrap();
    assert_eq!(grown.revision, 2);
    assert_eq!(
        node.events(before),
        ["modified volume://vols/f spec.freespace_bytes"]
    );
    assert_eq!(
        node.layer
            .ensure_freespace(&made.id, 4096)
            .await
            .unwrap()
            .revision,
        2
    );
}

#[tokio::test]
async fn a_create_whose_caller_goes_away_leaves_nothing() {
    let node = Node::new().await;
    let (feed, data) = tokio::io::duplex(64);
    let new = NewElement::new(
        id("volume://vols/gone"),
        Spec::Volume(VolumeSpec::default()),
    )
    .data(data);
    {
        let create = node.layer.create(new);
        tokio::pin!(create);
        assert!(futures::poll!(create.as_mut()).is_pending());
    }
    // The id is free again once the abandoned create has cleaned up.
    node.layer
        .create(volume("volume://vols/gone"))
        .await
        .unwrap();
    assert_eq!(node.volumes.len(), 1);
    drop(feed);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(
            task("task://default/stays")
                .data(Cursor::new("d"))
                .rw("k", "v"),
        )
        .await
        .unwrap();
    let last = node.last();
    let node = node.reopen().await;
    assert_eq!(node.layer.read(&made.id).await.unwrap(), made);
    // The built-in elements are made once.
    assert_eq!(node.last(), last);
}
