//! The library example, as it stands in the documentation.

use super::example::library;
use super::story::{events, on_node, rows};

#[tokio::test(flavor = "multi_thread")]
async fn the_library_example_runs_and_leaves_nothing() {
    on_node(async |node, _| {
        assert_eq!(library::workflow(node).await.unwrap(), "building\n");
        let told = events(node).await;
        assert_eq!(told.len(), 20, "{told:#?}");
        let last: Vec<_> = told[told.len() - 2..].iter().map(String::as_str).collect();
        assert_eq!(
            last,
            [
                "volume://volumes/results deleted",
                "image://images/tools deleted"
            ]
        );
        let executor = rows(node, "executor://executors/build-1").await;
        assert_eq!(
            executor,
            [
                "create 0>1 ok",
                "commit 1>2 ok",
                "unbind 2>3 ok",
                "delete 3>0 ok"
            ]
        );
        let log = node
            .port_layer
            .audit_log(&super::story::id("image://images/tools"))
            .await
            .unwrap();
        assert!(log.iter().all(|row| row.actor == "example"), "{log:?}");
    })
    .await;
}
