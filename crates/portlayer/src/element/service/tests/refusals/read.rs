//! Read and export.

use super::super::*;
use crate::error::{LocationError, ReadError};
use crate::store::StoreError;
use crate::store::memory::Verb;

#[tokio::test]
async fn read_refuses() {
    let node = Node::new().await;
    let unknown = node.layer.read(&id("task://nowhere/a")).await;
    assert!(matches!(
        unknown,
        Err(ReadError::Location(LocationError::Unknown { .. }))
    ));
    let wrong = node.layer.read(&id("task://images/a")).await;
    assert!(matches!(
        wrong,
        Err(ReadError::Location(LocationError::WrongKind { .. }))
    ));
    let missing = node.layer.read(&id("task://default/a")).await;
    assert!(
        matches!(&missing, Err(ReadError::NotFound { id }) if id.as_str() == "task://default/a")
    );
    node.layer.create(task("task://default/a")).await.unwrap();
    node.layer
        .create(executor("executor://default/x"))
        .await
        .unwrap();
    for text in [
        "task://default/a",
        "executor://default/x",
        "image://builtin/scratch",
        "log://node/file",
    ] {
        assert!(matches!(
            node.layer.export(&id(text)).await,
            Err(ReadError::NoData { .. })
        ));
    }
    node.layer.create(volume("volume://vols/v")).await.unwrap();
    node.volumes
        .fail(Verb::Export, StoreError::Missing("v".into()));
    let export = node.layer.export(&id("volume://vols/v")).await;
    assert!(matches!(
        export,
        Err(ReadError::Store {
            source: StoreError::Missing(_),
            ..
        })
    ));
}
