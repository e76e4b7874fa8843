//! Create: locations, shapes, metadata, parents, owners, and what a store says.

use super::super::*;
use super::refused;
use crate::element::{EntryRule, metadata};
use crate::error::{CreateError, LocationError};
use crate::store::StoreError;
use crate::store::memory::Verb;

#[tokio::test]
async fn create_refuses_locations() {
    let node = Node::new().await;
    assert_refused!(node, task("task://nowhere/a"), CreateError::Location(LocationError::Unknown { location, .. }) if location == "nowhere");
    assert_refused!(
        node,
        task("task://images/a"),
        CreateError::Location(LocationError::WrongKind { .. })
    );
    assert_refused!(
        node,
        task("task://fixed/a"),
        CreateError::Location(LocationError::Policy {
            verb: "create",
            policy: Policy::ReadOnly,
            ..
        })
    );
    let network = NewElement::new(
        id("network://bare/n"),
        Spec::Network(std::collections::BTreeMap::default()),
    );
    assert_refused!(
        node,
        network,
        CreateError::Location(LocationError::Policy { .. })
    );
    let log = NewElement::new(
        id("log://node/l"),
        Spec::Log([("kind".to_owned(), "pigeon".to_owned())].into()),
    );
    assert_refused!(
        node,
        log,
        CreateError::InvalidField { field, .. } if field == "kind"
    );
    let built_in = NewElement::new(
        id("network://node/host"),
        Spec::Network(std::collections::BTreeMap::default()),
    );
    assert_refused!(
        node,
        built_in,
        CreateError::Location(LocationError::Policy { .. })
    );
    let network = |name: &str, subnet: &str| {
        let settings = [("subnet4".to_owned(), subnet.to_owned())].into();
        NewElement::new(
            id(&format!("network://node/{name}")),
            Spec::Network(settings),
        )
    };
    node.layer
        .create(network("a", "10.7.0.0/16"))
        .await
        .unwrap();
    assert_refused!(
        node,
        network("b", "10.7.3.0/24"),
        CreateError::InvalidField { field, .. } if field == "subnet4"
    );
    node.layer.delete(&id("network://node/a")).await.unwrap();
    node.layer
        .create(network("b", "10.7.3.0/24"))
        .await
        .unwrap();
    node.layer.create(task("task://append/a")).await.unwrap();
}

#[tokio::test]
async fn create_refuses_shapes() {
    let node = Node::new().await;
    let wrong = NewElement::new(id("task://default/a"), Spec::Volume(VolumeSpec::default()));
    assert_refused!(
        node,
        wrong,
        CreateError::SpecKind {
            spec: Kind::Volume,
            ..
        }
    );
    assert_refused!(node, executor("executor://default/x").data(Cursor::new("x")), CreateError::InvalidField { field, .. } if field == "data");
    assert_refused!(node, task("task://default/a").checksum(sum("x")), CreateError::InvalidField { field, .. } if field == "checksum");
    assert_refused!(node, bare_image("image://images/a"), CreateError::InvalidField { field, .. } if field == "data");
    let scratch = bare_image("image://images/a").parent(id("image://builtin/scratch"));
    assert_refused!(node, scratch, CreateError::InvalidField { field, .. } if field == "data");
    let long = task("task://default/a").data(Cursor::new(vec![b'x'; 1024 * 1024 + 1]));
    assert_refused!(node, long, CreateError::InvalidField { field, .. } if field == "data");
}

#[tokio::test]
async fn create_refuses_metadata() {
    let node = Node::new().await;
    let with = |ro: &[(&str, Option<Vec<u8>>)]| {
        let mut new = task("task://default/m");
        new.ro = ro
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        new
    };
    let many = |keys: usize, bytes: usize| {
        let mut new = task("task://default/m");
        new.ro = (0..keys)
            .map(|n| (format!("k{n:03}"), Some(vec![0; bytes])))
            .collect();
        new
    };
    let cases: Vec<(NewElement, EntryRule)> = vec![
        (with(&[("k", None)]), EntryRule::Nil),
        (with(&[("", Some(vec![]))]), EntryRule::EmptyKey),
        (
            with(&[(&"k".repeat(257), Some(vec![]))]),
            EntryRule::KeyTooLong,
        ),
        (with(&[("a\nb", Some(vec![]))]), EntryRule::KeyCharacter),
        (
            with(&[("k", Some(vec![0; metadata::MAX_VALUE_BYTES + 1]))]),
            EntryRule::ValueTooLong,
        ),
        (many(metadata::MAX_KEYS + 1, 0), EntryRule::TooManyKeys),
        (many(5, metadata::MAX_VALUE_BYTES), EntryRule::TooManyBytes),
    ];
    for (new, rule) in cases {
        assert_refused!(node, new, CreateError::InvalidEntry { entry, .. } if entry.rule == rule);
    }
    assert_refused!(node, task("task://default/m").ro("k", "1").rw("k", "2"), CreateError::ReadOnlyKey { key, .. } if key == "k");
    let full = node.layer.create(many(metadata::MAX_KEYS, 0)).await;
    assert_eq!(
        full.unwrap().ro.len(),
        metadata::MAX_KEYS,
        "the limit itself is allowed"
    );
}

#[tokio::test]
async fn create_refuses_parents_and_owners() {
    let node = Node::new().await;
    node.layer.create(image("image://images/i")).await.unwrap();
    let parent = node
        .layer
        .create(volume("volume://vols/bound"))
        .await
        .unwrap()
        .id;
    let executor_id = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    node.compose(&executor_id, State::Stopped, &[&parent]).await;

    assert_refused!(
        node,
        image("image://images/a").parent(id("image://images/none")),
        CreateError::UnknownParent { .. }
    );
    assert_refused!(
        node,
        image("image://images/a").parent(id("image://nowhere/none")),
        CreateError::UnknownParent { .. }
    );
    let invalid = [
        image("image://images/a").parent(parent.clone()),
        image("image://images/a").parent(id("image://images/a")),
        volume("volume://vols/a").parent(id("task://default/t")),
        task("task://default/a").parent(id("image://images/i")),
        executor("executor://default/a").parent(executor_id.clone()),
        volume("volume://nfs/a").parent(id("image://images/i")),
        volume("volume://vols/a").parent(parent.clone()),
        volume("volume://vols/a")
            .parent(id("image://images/i"))
            .data(Cursor::new("x")),
    ];
    for (at, new) in invalid.into_iter().enumerate() {
        let error = refused(&node, new).await;
        assert!(
            matches!(&error, CreateError::InvalidParent { .. }),
            "case {at}: {error:?}"
        );
    }
    assert_refused!(
        node,
        task("task://default/a").owner(id("volume://vols/none")),
        CreateError::UnknownOwner { .. }
    );
    assert_refused!(
        node,
        task("task://default/a").owner(executor_id.clone()),
        CreateError::InvalidOwner { .. }
    );
    assert_refused!(
        node,
        task("task://default/a").owner(id("image://builtin/scratch")),
        CreateError::InvalidOwner { .. }
    );
    assert_refused!(
        node,
        volume("volume://vols/a").owner(parent.clone()),
        CreateError::InvalidOwner { .. }
    );
}

#[tokio::test]
async fn create_refuses_a_second_one_and_shows_the_sum_of_the_first() {
    let node = Node::new().await;
    node.layer.create(image("image://images/i")).await.unwrap();
    assert_refused!(node, image("image://images/i"), CreateError::AlreadyExists { checksum, .. } if *checksum == Some(sum("image://images/i")));
}

#[tokio::test]
async fn create_passes_on_what_the_store_says_and_keeps_nothing() {
    let node = Node::new().await;
    assert_refused!(
        node,
        image("image://images/i").checksum(sum("other")),
        CreateError::Store {
            source: StoreError::ChecksumMismatch { .. },
            ..
        }
    );
    assert_refused!(
        node,
        task("task://default/t")
            .data(Cursor::new("a"))
            .checksum(sum("b")),
        CreateError::Store {
            source: StoreError::ChecksumMismatch { .. },
            ..
        }
    );
    assert_refused!(
        node,
        image("image://bare/i"),
        CreateError::Store {
            source: StoreError::Unsupported(_),
            ..
        }
    );
    assert_refused!(
        node,
        volume("volume://nfs/v").data(Cursor::new("x")),
        CreateError::Store {
            source: StoreError::Unsupported(_),
            ..
        }
    );
    for verb in [Verb::Put, Verb::PutLate] {
        let full = StoreError::InsufficientSpace {
            need_bytes: 2,
            have_bytes: 1,
        };
        node.volumes.fail(verb, full);
        assert_refused!(
            node,
            volume("volume://vols/v"),
            CreateError::Store {
                source: StoreError::InsufficientSpace { need_bytes: 2, .. },
                ..
            }
        );
    }
    node.layer.create(volume("volume://vols/v")).await.unwrap();
}
