//! What two executors, or two callers, share.

use portlayer::compose::{BindHow, CommitError, Handle, JoinHow};
use portlayer::element::ElementId;
use portlayer::error::DeleteError;
use portlayer_node::Node;

use super::composed::stop;
use super::example::stage;
use super::live::volume;
use super::story::{events, id, on_node};

async fn with_volume(
    node: &Node,
    executor: &ElementId,
    image: &ElementId,
    data: &ElementId,
    task: &ElementId,
) -> Handle {
    let layer = &node.port_layer;
    let handle = layer.compose(executor).await.unwrap();
    let handle = layer.join(handle, image, JoinHow::root()).await.unwrap();
    let handle = layer
        .join(handle, data, JoinHow::volume("/data"))
        .await
        .unwrap();
    let handle = layer.join(handle, task, JoinHow::Task).await.unwrap();
    layer.bind(handle, None, BindHow::Plain).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_two_executors_goes_only_after_both() {
    for location in ["volumes", "cow", "block", "nfs"] {
        on_node(async |node, _| {
            let layer = &node.port_layer;
            let image = stage::busybox(node).await.unwrap();
            let data = volume(node, &format!("volume://{location}/data")).await;
            let writer = stage::shell(
                node,
                "writer",
                "echo shared > /data/file; echo ready; exec sleep 1000",
            )
            .await
            .unwrap();
            let reader = stage::shell(node, "reader", "cat /data/file; exec sleep 1000")
                .await
                .unwrap();
            let (one, two) = (
                stage::executor(node, "one").await.unwrap(),
                stage::executor(node, "two").await.unwrap(),
            );
            layer
                .commit(with_volume(node, &one, &image, &data, &writer).await)
                .await
                .unwrap();
            stage::until_it_says(node, &one, &writer, "ready")
                .await
                .unwrap();
            layer
                .commit(with_volume(node, &two, &image, &data, &reader).await)
                .await
                .unwrap();
            stage::until_it_says(node, &two, &reader, "shared")
                .await
                .unwrap();

            assert_in_use(
                node,
                &data,
                &["executor://executors/one", "executor://executors/two"],
            )
            .await;
            stop(node, &one).await;
            layer.delete(&one).await.unwrap();
            assert_in_use(node, &data, &["executor://executors/two"]).await;
            stop(node, &two).await;
            assert_in_use(node, &data, &["executor://executors/two"]).await;
            layer.delete(&two).await.unwrap();
            layer.delete(&data).await.unwrap();
        })
        .await;
    }
}

async fn assert_in_use(node: &Node, volume: &ElementId, users: &[&str]) {
    match node.port_layer.delete(volume).await {
        Err(DeleteError::InUse { by, .. }) => {
            assert_eq!(by, users.iter().map(|user| id(user)).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_from_one_revision() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let (a, b) = (
            volume(node, "volume://volumes/a").await,
            volume(node, "volume://volumes/b").await,
        );
        let open = layer.compose(&executor).await.unwrap();
        let base = layer
            .join(open.clone(), &image, JoinHow::root())
            .await
            .unwrap();
        layer.commit(base).await.unwrap();

        // Of other elements: one is done over the other.
        let first = layer
            .join(open.clone(), &a, JoinHow::volume("/a"))
            .await
            .unwrap();
        let second = layer
            .join(open.clone(), &b, JoinHow::volume("/b"))
            .await
            .unwrap();
        let (first, second) = tokio::join!(layer.commit(first), layer.commit(second));
        let revisions = [first.unwrap().revision, second.unwrap().revision];
        assert_eq!(revisions.iter().max(), Some(&4), "{revisions:?}");

        // Of the same element: the later one is told what changed, and by whom.
        let open = layer.compose(&executor).await.unwrap();
        let bound = layer
            .bind(open.clone(), Some(&a), BindHow::Plain)
            .await
            .unwrap();
        let gone = layer.leave(open, &a).await.unwrap();
        let changed = layer.with_actor("somebody").commit(bound).await.unwrap();
        let before = events(node).await;
        match layer.commit(gone).await {
            Err(CommitError::Stale {
                element,
                expected,
                actual,
                changed_by,
                ..
            }) => {
                assert_eq!(
                    (element, expected, actual),
                    (a.clone(), 4, changed.revision)
                );
                assert!(!changed_by.is_empty());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(events(node).await, before);

        // An element that was deleted after it was joined to a handle.
        let handle = layer.compose(&executor).await.unwrap();
        let lost = volume(node, "volume://volumes/lost").await;
        let handle = layer
            .join(handle, &lost, JoinHow::volume("/lost"))
            .await
            .unwrap();
        layer.delete(&lost).await.unwrap();
        match layer.commit(handle).await {
            Err(CommitError::Stale {
                element, actual, ..
            }) => assert_eq!((element, actual), (lost, 0)),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_is_away_at_the_start_takes_down_only_its_own() {
    // `away` is away in every node of these tests; here is what still works.
    on_node(async |node, _| {
        let health = node.port_layer.events(1, usize::MAX).await.unwrap();
        let health = health
            .iter()
            .find(|event| event.change.as_str() == "location-health");
        assert_eq!(
            health.map(|event| event.id.as_str()),
            Some("volume://away/_")
        );
        let report = node.port_layer.audit().await.unwrap();
        assert_eq!(report.away.keys().collect::<Vec<_>>(), ["away"]);
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let task = stage::shell(node, "t1", "true").await.unwrap();
        super::composed::run(node, &executor, &image, &[&task]).await;
        let exit = node.port_layer.wait(&executor, &task, None).await.unwrap();
        assert_eq!(exit.code, Some(0));
    })
    .await;
}
