//! Callers that break every rule: each is told why, and nothing of theirs stays.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portlayer::element::{NewElement, Spec};
use portlayer::error::ErrorKind;
use portlayer_client::{Client, Error};
use portlayer_proto::v1;
use portlayer_proto::v1::attach_request::Message as Ask;
use portlayer_proto::v1::compositions_service_client::CompositionsServiceClient;
use portlayer_proto::v1::elements_service_client::ElementsServiceClient;
use portlayer_proto::v1::import_request::Part;
use portlayer_proto::v1::tasks_service_client::TasksServiceClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::daemon::{Daemon, busybox, id, ids, one_call, shell};

fn told(status: Status) -> (ErrorKind, String, Option<String>) {
    let error = Error::from(status);
    assert!(error.fault().is_some(), "{error}: without details");
    (
        error.kind(),
        error.reason().to_owned(),
        error.field().map(str::to_owned),
    )
}

fn invalid(reason: &str, field: &str) -> (ErrorKind, String, Option<String>) {
    let field = Some(field.to_owned());
    (ErrorKind::InvalidArgument, reason.to_owned(), field)
}

/// Waits until nothing of others is in flight but the question itself, with as few descriptors as there were.
async fn nothing_is_left(client: &Client, descriptors: u64) {
    let mut left = String::new();
    for _ in 0..600 {
        let now = client.diagnostics().await.unwrap();
        if now.calls == 1 && now.descriptors <= descriptors {
            return;
        }
        left = format!("{now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("more than {descriptors} descriptors: {left}");
}

fn header(name: &str) -> v1::ImportRequest {
    let spec = v1::Spec {
        kind: Some(v1::spec::Kind::Task(v1::TaskSpec::default())),
    };
    v1::ImportRequest {
        part: Some(Part::Header(v1::ImportHeader {
            element: Some(v1::NewElement {
                id: ids(name).0.to_string(),
                spec: Some(spec),
                ..v1::NewElement::default()
            }),
            progress: false,
        })),
    }
}

fn data(bytes: &'static [u8]) -> v1::ImportRequest {
    v1::ImportRequest {
        part: Some(Part::Data(bytes::Bytes::from_static(bytes))),
    }
}

async fn import(client: &Client, parts: Vec<v1::ImportRequest>) -> Status {
    let mut raw = ElementsServiceClient::new(client.channel());
    let answers = raw.import(futures::stream::iter(parts)).await;
    match answers {
        Err(status) => status,
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
    }
}

async fn attach(client: &Client, asks: Vec<Ask>) -> Status {
    let mut raw = TasksServiceClient::new(client.channel());
    let asks = asks
        .into_iter()
        .map(|ask| v1::AttachRequest { message: Some(ask) });
    let answers = raw
        .attach(futures::stream::iter(asks.collect::<Vec<_>>()))
        .await;
    answers.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_out_of_turn_is_refused_by_name() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let mut raw = ElementsServiceClient::new(client.channel());
    let descriptors = client.diagnostics().await.unwrap().descriptors;

    let read = |id: String| v1::ReadRequest {
        id,
        projection: None,
    };
    let long = "x".repeat(4 << 20);
    let status = raw.read(read(format!("task://tasks/{long}"))).await;
    let status = status.unwrap_err();
    assert!(status.message().len() < 1 << 10, "it is told what it sent");
    assert_eq!(told(status), invalid("invalid_id", "id"));
    let status = raw.read(read("x".repeat(17 << 20))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let list = v1::ListRequest {
        filters: vec![format!("labels.a=={long}")],
        ..v1::ListRequest::default()
    };
    // A filter so long is a filter still, or refused as one.
    if let Err(status) = raw.list(list).await {
        assert_eq!(told(status), invalid("invalid_filter", "filters"));
    }
    let list = v1::ListRequest {
        page_token: "\u{0}nonsense".into(),
        page_size: u32::MAX,
        ..v1::ListRequest::default()
    };
    if let Err(status) = raw.list(list).await {
        assert_eq!(told(status).0, ErrorKind::InvalidArgument);
    }
    let mut compositions = CompositionsServiceClient::new(client.channel());
    for handle in [Vec::new(), vec![0xff; 15 << 20]] {
        let handle = handle.into();
        let status = compositions.commit(v1::CommitRequest { handle }).await;
        let (kind, reason, _) = told(status.unwrap_err());
        assert_eq!(kind, ErrorKind::InvalidArgument, "{reason}");
    }

    // Streams: nothing at all, data first, two headers, an end without data.
    assert_eq!(
        told(import(&client, Vec::new()).await),
        invalid("missing_field", "header")
    );
    assert_eq!(
        told(import(&client, vec![data(b"x")]).await),
        invalid("missing_field", "header")
    );
    let twice = import(&client, vec![header("a"), header("a")]).await;
    assert!(Error::from(twice.clone()).fault().is_some(), "{twice}");
    let half = import(&client, vec![header("a"), data(b"half")]).await;
    assert!(Error::from(half.clone()).fault().is_some(), "{half}");
    let stdin = Ask::Stdin(bytes::Bytes::from_static(b"x"));
    assert_eq!(
        told(attach(&client, vec![stdin]).await),
        invalid("missing_field", "open")
    );
    assert_eq!(
        told(attach(&client, Vec::new()).await),
        invalid("missing_field", "open")
    );
    let nobody = Ask::Open(v1::AttachOpen {
        executor: "executor://executors/none".into(),
        task: "task://tasks/none".into(),
        ..v1::AttachOpen::default()
    });
    assert_eq!(
        told(attach(&client, vec![nobody]).await).0,
        ErrorKind::NotFound
    );

    let left = client.read(&ids("a").0).await.unwrap_err();
    assert_eq!(left.reason(), "not_found");
    drop((raw, compositions));
    nothing_is_left(&client, descriptors).await;
    drop(client);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_given_up_leave_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let descriptors = client.diagnostics().await.unwrap().descriptors;
    let mut uploads = Vec::new();
    for n in 0..50 {
        let (parts, sent) = tokio::sync::mpsc::channel(4);
        parts.send(header(&n.to_string())).await.unwrap();
        parts.send(data(b"half")).await.unwrap();
        let mut raw = ElementsServiceClient::new(client.channel());
        let call = tokio::spawn(async move {
            let answers = raw.import(ReceiverStream::new(sent)).await;
            answers.unwrap().into_inner().message().await
        });
        uploads.push((parts, call));
    }
    while client.diagnostics().await.unwrap().calls < 51 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (parts, call) in uploads {
        call.abort();
        drop(parts);
    }
    nothing_is_left(&client, descriptors).await;
    for n in 0..50 {
        // Free again, at once or as soon as the server has let go.
        let new = || NewElement::new(ids(&n.to_string()).0, Spec::Task(Box::default()));
        client.create(new()).await.unwrap();
    }
    drop(client);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_say_nothing_or_nonsense_disturb_nobody() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let descriptors = client.diagnostics().await.unwrap().descriptors;
    let silent: Vec<_> = (0..1_000)
        .map(|_| UnixStream::connect(daemon.socket()).unwrap())
        .collect();
    for n in 0..100_u8 {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        // A good beginning, then anything; or anything at once. The daemon may have hung up already.
        let good: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let noise = [31, 7, 250, 113]
            .map(|by: u8| by.wrapping_mul(n))
            .repeat(128);
        let _ = stream.write_all(if n % 2 == 0 { good } else { &[] });
        let _ = stream.write_all(&noise);
    }
    while client.diagnostics().await.unwrap().descriptors < descriptors + 1_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let new = NewElement::new(ids("x").0, Spec::Task(Box::default()));
    client.create(new).await.unwrap();
    drop(silent);
    nothing_is_left(&client, descriptors).await;
    drop(client);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_waits_share_a_connection_with_everything_else() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let (task, executor) = ids("x");
    let mut spec = shell("read line; exit 7");
    spec.interaction.stdin = true;
    client.run(one_call("x", &image, spec)).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..500 {
        let (client, task, executor) = (client.clone(), task.clone(), executor.clone());
        waits.push(tokio::spawn(async move {
            client.wait(&executor, &task, None).await
        }));
    }
    while client.diagnostics().await.unwrap().calls < 501 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let attached = client.attach(&executor, &task, false, true).await.unwrap();
    drop(attached.input);
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap().code, Some(7));
    }
    assert!(client.read(&id("task://tasks/x")).await.is_ok());
    drop(client);
    daemon.end().await;
}
