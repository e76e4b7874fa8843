//! A daemon that is stopped: what is in flight comes to its end, what has none is told, and who does not read is cut off.

use std::time::Duration;

use futures::StreamExt;
use portlayer::element::{NewElement, Spec};
use portlayer::error::ErrorKind;
use portlayer_client::Client;
use portlayer_proto::v1;
use portlayer_proto::v1::events_service_client::EventsServiceClient;
use tokio::io::AsyncWriteExt;
use tonic::transport::{Channel, Endpoint};

use super::daemon::{Daemon, busybox, ids, one_call, shell};

/// A moment in which others get on.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn in_flight(client: &Client, calls: u64) {
    while client.diagnostics().await.unwrap().calls != calls {
        moment().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_flight_comes_to_its_end_and_who_follows_is_told() {
    let mut daemon = Daemon::start_with("[serve]\ndrain_seconds = 600\n");
    let client = daemon.client().await.with_patience(Duration::ZERO);
    let mut events = client.subscribe(None, &[] as &[&str]).await.unwrap();
    let (task, _) = ids("x");
    let (mut data, theirs) = tokio::io::duplex(64);
    let new = NewElement::new(task.clone(), Spec::Task(Box::default())).data(theirs);
    let creating = client.clone();
    let create = tokio::spawn(async move { creating.create(new).await });
    data.write_all(b"first half, ").await.unwrap();
    // The subscription, the upload and the question itself.
    in_flight(&client, 3).await;
    daemon.ask_to_end();
    let end = events.next().await.unwrap().unwrap_err();
    assert_eq!(
        (end.kind(), end.reason()),
        (ErrorKind::Unavailable, "draining")
    );
    let late = client.info(false).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable);
    data.write_all(b"second half").await.unwrap();
    drop(data);
    assert_eq!(create.await.unwrap().unwrap().size, 23);
    assert!(daemon.wait().success(), "{}", daemon.log());
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());

    daemon.spawn();
    let client = daemon.client().await;
    assert_eq!(client.read(&task).await.unwrap().size, 23);
    drop(client);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_attached_and_stays_holds_nothing_up() {
    let mut daemon = Daemon::start_with("[serve]\ndrain_seconds = 600\n");
    let client = daemon.client().await.with_patience(Duration::ZERO);
    let image = busybox(&client).await;
    let (task, executor) = ids("x");
    let mut spec = shell("cat");
    spec.interaction.stdin = true;
    client.run(one_call("x", &image, spec)).await.unwrap();
    let mut attached = client.attach(&executor, &task, true, true).await.unwrap();
    let mut input = attached.input.take().unwrap();
    input.write_all(b"one\n").await.unwrap();
    let chunk = attached.output.next().await.unwrap().unwrap();
    assert_eq!(chunk.bytes, b"one\n");
    daemon.ask_to_end();
    let end = attached.output.next().await.unwrap().unwrap_err();
    assert_eq!(end.reason(), "draining");
    assert!(daemon.wait().success(), "{}", daemon.log());
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());
    drop((input, attached));

    daemon.spawn();
    let client = daemon.client().await;
    let stop = portlayer::compose::Interrupt::Stop { how: None };
    client.interrupt(&executor, None, stop).await.unwrap();
    client.wait(&executor, &task, None).await.unwrap();
    drop(client);
    daemon.end().await;
}

/// A connection that takes in so few bytes that it stands still after some events.
async fn narrow(daemon: &Daemon) -> Channel {
    let socket = daemon.socket();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://portlayer").initial_stream_window_size(256);
    endpoint.connect_with_connector(connector).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off() {
    let mut daemon = Daemon::start_with("[serve]\ndrain_seconds = 1\n");
    let client = daemon.client().await;
    let mut service = EventsServiceClient::new(narrow(&daemon).await);
    let request = v1::SubscribeRequest {
        from: Some(1),
        filters: Vec::new(),
        snapshot: None,
    };
    let stalled = service.subscribe(request).await.unwrap().into_inner();
    for n in 0..50 {
        let new = NewElement::new(ids(&n.to_string()).0, Spec::Task(Box::default()));
        client.create(new).await.unwrap();
    }
    drop(client);
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(daemon.log().contains("cut off"), "{}", daemon.log());
    // What it did not read is where it was: nothing is lost to who comes again.
    drop(stalled);
    daemon.spawn();
    let client = daemon.client().await;
    let events = client.events(1, 1000).await.unwrap();
    let created = events.iter().filter(|event| {
        event.change.as_str() == "created" && event.id.as_str().starts_with("task://tasks/")
    });
    assert_eq!(created.count(), 50);
    drop(client);
    daemon.end().await;
}
