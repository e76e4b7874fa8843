//! Every error of every verb, and that nothing happened then.

use super::*;
use crate::error::{Classify, CreateError};
use crate::store::StoreError;

async fn refused(node: &Node, new: NewElement) -> CreateError {
    let before = node.fingerprint();
    let error = node.layer.create(new).await.expect_err("refused");
    assert_eq!(
        node.fingerprint(),
        before,
        "{error}: nothing may have happened"
    );
    error
}

macro_rules! assert_refused {
    ($node:expr, $new:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = refused(&$node, $new).await;
        assert!(matches!(&error, $pattern $(if $guard)?), "got {error:?}");
    }};
}

// Below the macro, which they use.
mod create;
mod delete;
mod fields;
mod read;
mod update;

#[tokio::test]
async fn errors_name_their_class_and_element() {
    let node = Node::new().await;
    let error: crate::Error = node
        .layer
        .create(task("task://fixed/a"))
        .await
        .unwrap_err()
        .into();
    assert_eq!(
        (error.kind(), error.reason(), error.retryable()),
        (
            crate::ErrorKind::FailedPrecondition,
            "location_policy",
            false
        )
    );
    assert_eq!(error.element(), Some(&id("task://fixed/a")));
    let error = StoreError::Unavailable("x".into());
    assert!(error.class().kind.retryable());
}
