//! Every refusal arrives with its class, reason, element and field.

use std::io::Cursor;

use portlayer::compose::{Interrupt, JoinHow};
use portlayer::element::{Checksum, ImageSpec, ListQuery, NewElement, Patch, Spec};
use portlayer::error::ErrorKind;
use portlayer::runtime::SignalScope;
use portlayer::task::TaskSpec;
use portlayer_client::Error;
use portlayer_proto::v1;
use portlayer_proto::v1::elements_service_client::ElementsServiceClient;

use super::daemon::{Daemon, id, ids};

/// Class, reason, element and field of a refusal.
fn told<T>(refused: Result<T, Error>) -> (ErrorKind, String, Option<String>, Option<String>) {
    let Err(error) = refused else {
        panic!("not refused");
    };
    assert!(error.fault().is_some(), "{error}");
    (
        error.kind(),
        error.reason().to_owned(),
        error.element().map(ToString::to_string),
        error.field().map(str::to_owned),
    )
}

fn expected(
    kind: ErrorKind,
    reason: &str,
    element: Option<&str>,
    field: Option<&str>,
) -> (ErrorKind, String, Option<String>, Option<String>) {
    (
        kind,
        reason.to_owned(),
        element.map(str::to_owned),
        field.map(str::to_owned),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_arrive_with_all_that_is_known_of_them() {
    use ErrorKind::{
        Aborted, AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound,
        PermissionDenied,
    };
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let (task, executor) = ids("x");
    let new = |spec: TaskSpec| NewElement::new(task.clone(), Spec::Task(Box::new(spec)));
    let t = Some("task://tasks/x");

    assert_eq!(
        told(client.read(&task).await),
        expected(NotFound, "not_found", t, None)
    );
    let bad = TaskSpec {
        cwd: Some("relative".into()),
        ..TaskSpec::default()
    };
    let (kind, reason, element, field) = told(client.create(new(bad)).await);
    assert_eq!((kind, reason.as_str()), (InvalidArgument, "invalid_field"));
    assert_eq!(element.as_deref(), t);
    assert!(field.is_some_and(|field| field.contains("cwd")));
    let mut nil = new(TaskSpec::default());
    nil.rw.insert("k".into(), None);
    assert_eq!(
        told(client.create(nil).await),
        expected(InvalidArgument, "invalid_entry", t, Some("metadata.k"))
    );
    let wrong = new(TaskSpec::default())
        .data(Cursor::new(b"data".to_vec()))
        .checksum(Checksum::of(b"other"));
    assert_eq!(
        told(client.create(wrong).await),
        expected(DataLoss, "checksum_mismatch", t, Some("checksum"))
    );
    let lost = NewElement::new(id("image://nowhere/x"), Spec::Image(ImageSpec::default()));
    assert_eq!(
        told(client.create(lost).await),
        expected(
            NotFound,
            "unknown_location",
            Some("image://nowhere/x"),
            None
        )
    );
    let child = new(TaskSpec::default()).parent(id("task://tasks/none"));
    assert_eq!(
        told(client.create(child).await),
        expected(NotFound, "unknown_parent", t, Some("parent"))
    );

    client
        .create(new(TaskSpec::default()).ro("fixed", "1"))
        .await
        .unwrap();
    assert_eq!(
        told(client.create(new(TaskSpec::default())).await),
        expected(AlreadyExists, "already_exists", t, None)
    );
    let patch = |key: &str| Patch::from([(key.to_owned(), Some(b"2".to_vec()))]);
    assert_eq!(
        told(client.update(&task, patch("fixed"), None).await),
        expected(InvalidArgument, "read_only_key", t, Some("metadata.fixed"))
    );
    let revision = client
        .update(&task, patch("k"), Some(77))
        .await
        .unwrap_err();
    assert!(revision.retryable());
    assert_eq!(revision.detail("actual"), Some("1"));
    assert_eq!(
        told::<()>(Err(revision)),
        expected(Aborted, "revision", t, Some("expected_revision"))
    );
    let list = ListQuery::filter("colour==red");
    assert_eq!(
        told(client.list(list).await),
        expected(InvalidArgument, "invalid_filter", None, Some("filters"))
    );
    let events = client.subscribe(None, &["colour==red"]).await;
    assert_eq!(
        told(events),
        expected(InvalidArgument, "invalid_filter", None, Some("filters"))
    );
    let scratch = id("image://builtin/scratch");
    let (kind, ..) = told(client.delete(&scratch).await);
    assert!(matches!(kind, PermissionDenied | FailedPrecondition));

    let new = NewElement::new(executor.clone(), Spec::Executor(Box::default()));
    client.create(new).await.unwrap();
    let x = Some("executor://executors/x");
    assert_eq!(
        told(client.compose(&task).await),
        expected(InvalidArgument, "not_an_executor", t, None)
    );
    let handle = client.compose(&executor).await.unwrap();
    assert_eq!(
        told(client.join(handle.clone(), &task, JoinHow::root()).await),
        expected(InvalidArgument, "wrong_role", t, Some("how"))
    );
    assert_eq!(
        told(client.leave(handle.clone(), &task).await),
        expected(FailedPrecondition, "not_joined", t, None)
    );
    let joined = client
        .join(handle.clone(), &task, JoinHow::Task)
        .await
        .unwrap();
    let bound = client
        .bind(joined.clone(), None, Default::default())
        .await
        .unwrap();
    assert_eq!(
        told(client.commit(bound).await),
        expected(FailedPrecondition, "no_root", x, None)
    );
    client.commit(joined.clone()).await.unwrap();
    let volume = id("volume://volumes/v");
    let new = NewElement::new(volume.clone(), Spec::Volume(Default::default()));
    client.create(new).await.unwrap();
    let handle = client.compose(&executor).await.unwrap();
    let handle = client.join(handle, &volume, JoinHow::volume("/v")).await;
    client.commit(handle.unwrap()).await.unwrap();
    let used = client.delete(&volume).await.unwrap_err();
    assert_eq!(used.detail("by"), x);
    assert_eq!(
        told::<()>(Err(used)),
        expected(
            FailedPrecondition,
            "in_use",
            Some("volume://volumes/v"),
            None
        )
    );
    assert_eq!(
        told(client.wait(&executor, &task, None).await),
        expected(FailedPrecondition, "never_started", t, None)
    );
    assert_eq!(
        told(client.attach(&executor, &task, false, false).await),
        expected(FailedPrecondition, "not_running", t, None)
    );
    assert_eq!(
        told(client.stats(&executor).await),
        expected(FailedPrecondition, "not_running", x, None)
    );
    let signal = Interrupt::Signal {
        signal: 99,
        scope: SignalScope::All,
    };
    assert_eq!(
        told(client.interrupt(&executor, None, signal).await),
        expected(InvalidArgument, "invalid_field", x, Some("signal"))
    );

    // What no client of ours would send.
    let mut raw = ElementsServiceClient::new(client.channel());
    let bad = v1::ReadRequest {
        id: "image://images/../etc".into(),
        projection: None,
    };
    let status = raw.read(bad).await.unwrap_err();
    assert_eq!(
        told::<()>(Err(status.into())),
        expected(InvalidArgument, "invalid_id", None, Some("id"))
    );
    let status = raw.create(v1::CreateRequest::default()).await.unwrap_err();
    assert_eq!(
        told::<()>(Err(status.into())),
        expected(InvalidArgument, "missing_field", None, Some("element"))
    );
    drop(raw);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_break_off_leave_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(bytes::Bytes::from_static(b"half")),
        Err(std::io::Error::other("the disk is gone")),
    ]));
    let (task, _) = ids("half");
    let new = NewElement::new(task.clone(), Spec::Task(Box::default())).data(broken);
    let failed = client.create(new).await.unwrap_err();
    assert!(matches!(failed, Error::Data(_)), "{failed}");
    // The id is free again as soon as the server has seen the end.
    let whole = || {
        NewElement::new(task.clone(), Spec::Task(Box::default())).data(Cursor::new(b"x".to_vec()))
    };
    client.create(whole()).await.unwrap();
    assert_eq!(client.read(&task).await.unwrap().size, 1);
    daemon.end().await;
}
