//! The workflows of seed 003 that need no engine: 1 to 7 and 12.

use std::io::Cursor;

use super::*;
use crate::element::{Body, ListQuery};
use crate::error::{CreateError, DeleteError};
use crate::store::StoreError;

#[tokio::test]
async fn w1_an_image_from_scratch() {
    let node = Node::new().await;
    let before = node.last();
    let base = || {
        image("image://images/base")
            .parent(id("image://builtin/scratch"))
            .checksum(sum("image://images/base"))
    };
    let made = node
        .layer
        .create(base().ro("r", "1").rw("w", "1"))
        .await
        .unwrap();
    assert_eq!(
        (made.checksum, made.size),
        (Some(sum("image://images/base")), 19)
    );
    assert_eq!(
        node.events(before),
        [
            "created image://images/base",
            "inherited image://builtin/scratch image://images/base"
        ]
    );
    assert!(matches!(
        node.layer.create(base()).await,
        Err(CreateError::AlreadyExists { .. })
    ));
    let wrong = image("image://images/wrong").checksum(sum("x"));
    assert!(matches!(
        node.layer.create(wrong).await,
        Err(CreateError::Store {
            source: StoreError::ChecksumMismatch { .. },
            ..
        })
    ));
    assert_eq!((node.images.len(), node.audit(&made.id).len()), (1, 1));
}

#[tokio::test]
async fn w2_an_image_from_a_parent_and_w3_one_of_metadata_only() {
    let node = Node::new().await;
    node.layer
        .create(image("image://images/base"))
        .await
        .unwrap();
    let before = node.last();
    let app = node
        .layer
        .create(image("image://images/app").parent(id("image://images/base")))
        .await
        .unwrap();
    assert_eq!(
        node.events(before),
        [
            "created image://images/app",
            "inherited image://images/base image://images/app"
        ]
    );
    assert!(matches!(
        node.layer.delete(&id("image://images/base")).await,
        Err(DeleteError::InUse { by, .. }) if by == [app.id.clone()]
    ));
    let stored = node.images.len();
    let tagged = bare_image("image://images/tagged")
        .parent(app.id.clone())
        .ro("tag", "v1");
    let tagged = node.layer.create(tagged).await.unwrap();
    assert_eq!((tagged.checksum, tagged.size), (app.checksum, app.size));
    assert_eq!(tagged.ro["tag"], b"v1");
    assert_eq!(node.images.len(), stored);
    let (Body::Image(tagged_body), Body::Image(app_body)) = (&tagged.body, &app.body) else {
        panic!("images");
    };
    assert!(tagged_body.metadata_only);
    assert_eq!(tagged_body.keys, app_body.keys);
    assert!(matches!(
        node.layer.delete(&app.id).await,
        Err(DeleteError::InUse { by, .. }) if by == [tagged.id.clone()]
    ));
    for gone in [tagged.id, app.id, id("image://images/base")] {
        node.layer.delete(&gone).await.unwrap();
    }
    assert!(node.images.is_empty());
}

#[tokio::test]
async fn w4_a_fresh_volume_and_w5_one_from_a_parent() {
    let node = Node::new().await;
    let mut fresh = volume("volume://vols/data");
    fresh.spec = Spec::Volume(VolumeSpec {
        freespace_bytes: 1 << 30,
        ..VolumeSpec::default()
    });
    let fresh = node.layer.create(fresh).await.unwrap();
    assert_eq!(
        (fresh.checksum, fresh.size, fresh.state),
        (None, 0, State::Ready)
    );

    node.layer
        .create(image("image://images/app"))
        .await
        .unwrap();
    let before = node.last();
    let seeded = volume("volume://vols/seeded").parent(id("image://images/app"));
    let seeded = node.layer.create(seeded).await.unwrap();
    assert_eq!(
        node.events(before),
        [
            "created volume://vols/seeded",
            "inherited image://images/app volume://vols/seeded"
        ]
    );
    let copy = volume("volume://vols/copy").parent(seeded.id.clone());
    let copy = node.layer.create(copy).await.unwrap();
    assert_eq!(
        node.volumes.content(&copy.id),
        node.volumes.content(&seeded.id)
    );

    let x = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    node.compose(&x, State::Running, &[&copy.id]).await;
    let of_bound = volume("volume://vols/late").parent(copy.id);
    assert!(matches!(
        node.layer.create(of_bound).await,
        Err(CreateError::InvalidParent { .. })
    ));
}

#[tokio::test]
async fn w6_a_network_volume_and_w7_no_parent_for_it() {
    let node = Node::new().await;
    node.layer
        .create(volume("volume://nfs/shared"))
        .await
        .unwrap();
    node.layer
        .create(image("image://images/app"))
        .await
        .unwrap();
    let before = node.fingerprint();
    let seeded = volume("volume://nfs/x").parent(id("image://images/app"));
    assert!(matches!(
        node.layer.create(seeded).await,
        Err(CreateError::InvalidParent { .. })
    ));
    let data = volume("volume://nfs/x").data(Cursor::new("x"));
    assert!(matches!(
        node.layer.create(data).await,
        Err(CreateError::Store {
            source: StoreError::Unsupported(_),
            ..
        })
    ));
    assert_eq!(node.fingerprint(), before);
}

#[tokio::test]
async fn w12_listing_specific_images() {
    let node = Node::new().await;
    node.layer
        .create(image("image://images/base").rw("tag", "base"))
        .await
        .unwrap();
    let mut layer = image("image://images/layer").parent(id("image://images/base"));
    layer.hidden = true;
    node.layer.create(layer).await.unwrap();
    node.layer
        .create(image("image://images/app").parent(id("image://images/layer")))
        .await
        .unwrap();
    let list = async |filter: &str| {
        let page = node.layer.list(ListQuery::filter(filter)).await.unwrap();
        page.items
            .into_iter()
            .map(|item| item.id.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(list("kind==image,labels.\"tag\"==base").await, ["base"]);
    assert_eq!(list("kind==image").await, ["app", "base"]);
    assert_eq!(list("ancestor==image://images/base").await, ["app"]);
}
