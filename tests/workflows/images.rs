//! Workflows 1, 2, 3 and 12: images.

use std::io::Cursor;

use portlayer::element::{
    Body, Checksum, Descriptor, ElementId, ImageSpec, NewElement, Spec, VolumeSpec,
};
use portlayer::error::{CreateError, DeleteError, LocationError};
use portlayer::runtime::FindingClass;

use super::example::{
    e01_image_from_scratch, e02_image_with_parent, e03_metadata_only_image, e12_list_images, stage,
};
use super::story::{events, holdings, id, on_node, rows};

fn image(name: &str) -> NewElement {
    NewElement::new(id(name), Spec::Image(ImageSpec::default()))
}

fn snapshot(image: &Descriptor) -> &str {
    match &image.body {
        Body::Image(body) => &body.keys["snapshot"],
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn image_from_scratch() {
    on_node(async |node, _| {
        // First only the mistake: the engine holds nothing of it, and nobody heard of it.
        let wrong = image("image://images/base").data(Cursor::new(stage::busybox_tar().unwrap()));
        let refused = node
            .port_layer
            .create(wrong.checksum(Checksum::of(b"other")))
            .await;
        assert!(
            matches!(refused, Err(CreateError::Store { .. })),
            "{refused:?}"
        );
        assert_eq!(holdings(node).await, []);
        assert_eq!(events(node).await, Vec::<String>::new());

        let made = e01_image_from_scratch::workflow(node).await.unwrap();
        let tar = stage::busybox_tar().unwrap();
        assert_eq!(made.checksum, Some(Checksum::of(&tar)));
        assert_eq!(made.size, tar.len() as u64);
        assert_eq!((made.revision, &made.parent), (1, &None));
        assert_eq!(made.ro["built-by"], b"the example");
        assert_eq!(node.port_layer.read(&made.id).await.unwrap(), made);

        let snapshots = holdings(node).await;
        let snapshots: Vec<_> = snapshots
            .iter()
            .filter(|f| f.class == FindingClass::Snapshot)
            .collect();
        assert_eq!(
            snapshots
                .iter()
                .map(|f| f.name.as_str())
                .collect::<Vec<_>>(),
            [snapshot(&made)]
        );
        assert_eq!(events(node).await, ["image://images/base created"]);
        assert_eq!(rows(node, "image://images/base").await, ["create 0>1 ok"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_with_parent() {
    on_node(async |node, _| {
        let (base, app) = e02_image_with_parent::workflow(node).await.unwrap();
        assert_eq!(app.parent, Some(base.clone()));
        let base_read = node.port_layer.read(&base).await.unwrap();
        assert_ne!(snapshot(&app), snapshot(&base_read), "a layer of its own");
        let told = [
            "image://images/busybox created",
            "image://images/app created",
            "image://images/busybox inherited by image://images/app",
        ];
        assert_eq!(events(node).await, told);
        assert_eq!(
            rows(node, "image://images/busybox").await,
            ["create 0>1 ok", "delete 1>1 in_use"]
        );
        assert_eq!(rows(node, "image://images/app").await, ["create 0>1 ok"]);

        // A volume is no parent of an image, and an image is no child of something in another kind's location.
        let volume = id("volume://volumes/v");
        let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
        node.port_layer.create(new).await.unwrap();
        let refused = node
            .port_layer
            .create(image("image://images/odd").parent(volume))
            .await;
        assert!(
            matches!(refused, Err(CreateError::InvalidParent { .. })),
            "{refused:?}"
        );
        let refused = node
            .port_layer
            .create(image("image://volumes/odd").parent(base))
            .await;
        assert!(
            matches!(
                refused,
                Err(CreateError::Location(LocationError::WrongKind { .. }))
            ),
            "{refused:?}"
        );
        let refused = node.port_layer.create(image("image://nowhere/odd")).await;
        assert!(
            matches!(
                refused,
                Err(CreateError::Location(LocationError::Unknown { .. }))
            ),
            "{refused:?}"
        );
        assert_eq!(events(node).await.len(), told.len() + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_only_image() {
    on_node(async |node, _| {
        let (app, tagged) = e03_metadata_only_image::workflow(node).await.unwrap();
        let app = node.port_layer.read(&app).await.unwrap();
        assert_eq!(snapshot(&tagged), snapshot(&app));
        assert_eq!(tagged.checksum, app.checksum, "it is the same data");
        assert_eq!(
            (tagged.ro["version"].as_slice(), tagged.rw["tag"].as_slice()),
            (&b"1.0"[..], &b"latest"[..])
        );
        let snapshots = holdings(node)
            .await
            .into_iter()
            .filter(|f| f.class == FindingClass::Snapshot)
            .count();
        assert_eq!(snapshots, 1, "the chain did not grow");
        let told = [
            "image://images/busybox created",
            "image://images/tagged created",
            "image://images/busybox inherited by image://images/tagged",
        ];
        assert_eq!(events(node).await, told);
        assert_eq!(rows(node, "image://images/tagged").await, ["create 0>1 ok"]);

        // Without the tag the image can go, and its snapshot with it.
        node.port_layer.delete(&tagged.id).await.unwrap();
        assert!(
            !holdings(node).await.is_empty(),
            "the tag's deletion took the image's snapshot"
        );
        node.port_layer.delete(&app.id).await.unwrap();
        assert_eq!(holdings(node).await, []);
        let gone = node.port_layer.delete(&app.id).await;
        assert!(
            matches!(gone, Err(DeleteError::NotFound { .. })),
            "{gone:?}"
        );
        assert_eq!(
            rows(node, "image://images/tagged").await,
            ["create 0>1 ok", "delete 1>0 ok"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_images() {
    on_node(async |node, _| {
        let answers = e12_list_images::workflow(node).await.unwrap();
        let expected: [&[&str]; 6] = [
            &["tools"],
            &["tools", "web"],
            &["web"],
            &["tools", "web"],
            &["busybox", "web"],
            // The built-in one is hidden too.
            &["scratch", "layer-3"],
        ];
        for ((question, names), expected) in answers.iter().zip(expected) {
            assert_eq!(names, expected, "{question}");
        }
        // Asking changes nothing.
        let created = events(node)
            .await
            .iter()
            .filter(|event| event.ends_with(" created"))
            .count();
        assert_eq!(created, 4);
        let ids: [ElementId; 1] = [id("image://images/web")];
        assert_eq!(rows(node, ids[0].as_str()).await, ["create 0>1 ok"]);
    })
    .await;
}
