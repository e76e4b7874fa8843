//! Who may call what; health and reflection.

use portlayer::element::{ListQuery, NewElement, Spec};
use portlayer::error::ErrorKind;
use portlayer_client::{Client, Error, Tls};
use portlayer_node::config::Role;
use portlayer_node::server::{Access, Facts, Listener, Server, TlsFiles};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::daemon::{Daemon, ids};

fn task() -> NewElement {
    NewElement::new(ids("x").0, Spec::Task(Box::default()))
}

fn denied<T>(result: Result<T, Error>) -> String {
    let Err(error) = result else {
        panic!("not refused");
    };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    error.reason().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_look_changes_nothing() {
    let config = "[serve]\nread_write_uids = []\nread_only_uids = [0]\n";
    let mut daemon = Daemon::start_with(config);
    let client = daemon.client().await;
    client.list(ListQuery::default()).await.unwrap();
    let _events = client.subscribe(Some(1), &[] as &[&str]).await.unwrap();
    assert_eq!(denied(client.create(task()).await), "read_only_peer");
    assert_eq!(denied(client.delete(&ids("x").0).await), "read_only_peer");
    let mut health = HealthClient::new(client.channel());
    for service in ["", "portlayer.v1.TasksService"] {
        let ask = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(ask).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    drop((health, client));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_no_list_may_nothing() {
    let mut daemon = Daemon::start_with("[serve]\nread_write_uids = [4711]\n");
    let client = daemon.client().await;
    let refused = client.list(ListQuery::default()).await;
    assert_eq!(denied(refused), "peer_not_allowed");
    drop(client);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_has_the_mode_and_group_of_the_configuration() {
    use std::os::unix::fs::MetadataExt;
    let mut daemon = Daemon::start_with("[serve]\nmode = '0606'\ngroup = '12345'\n");
    let client = daemon.client().await;
    let socket = std::fs::metadata(daemon.socket()).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.gid()), (0o606, 12345));
    drop(client);
    daemon.end().await;
}

/// A port layer over the engine in memory: enough for what is about connections.
async fn layer() -> (tempfile::TempDir, portlayer::PortLayer) {
    let directory = tempfile::tempdir().unwrap();
    let location = |name: &str, kind| portlayer::store::Location {
        name: name.to_owned(),
        kinds: vec![kind],
        policy: portlayer::store::Policy::ReadWrite,
        store: None,
    };
    let layer = portlayer::PortLayer::open(portlayer::Config {
        ledger: portlayer::ledger::LedgerConfig::new(directory.path().join("ledger")),
        locations: vec![location("tasks", portlayer::element::Kind::Task)],
        networks: Vec::new(),
        runtime: std::sync::Arc::new(portlayer::runtime::fake::FakeRuntime::default()),
    });
    (directory, layer.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_knows_its_callers_by_their_certificates() {
    let (directory, layer) = layer().await;
    let pem = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (server, caller, stranger) = (made(), made(), made());
    let files = TlsFiles {
        certificate: pem("server.pem", &server.cert.pem()),
        key: pem("server.key", &server.signing_key.serialize_pem()),
        client_authority: Some(pem("caller.pem", &caller.cert.pem())),
    };
    let listener = Listener::tls("127.0.0.1:0", &files).await.unwrap();
    let address = listener.address().unwrap();
    let access = Access {
        tls: Role::ReadWrite,
        ..Access::own()
    };
    let daemon = Server::new(layer.clone(), Facts::default(), access);
    let serving = tokio::spawn({
        let daemon = daemon.clone();
        async move { daemon.serve(listener).await }
    });
    let tls = |identity: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>| Tls {
        address: format!("localhost:{}", address.port()),
        server_name: None,
        authority: server.cert.pem().into_bytes(),
        identity: identity.map(|of| {
            let key = of.signing_key.serialize_pem();
            (of.cert.pem().into_bytes(), key.into_bytes())
        }),
    };
    let client = Client::connect_tls(tls(Some(&caller))).await.unwrap();
    client.create(task()).await.unwrap();
    let rows = client.audit_log(&ids("x").0).await.unwrap();
    assert!(
        rows[0].actor.starts_with("tls sha256:"),
        "{}",
        rows[0].actor
    );
    for identity in [None, Some(&stranger)] {
        let refused = match Client::connect_tls(tls(identity)).await {
            // With TLS 1.3 the refusal may come with the first call.
            Ok(client) => {
                let client = client.with_patience(std::time::Duration::ZERO);
                client.info(false).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    daemon.drain();
    drop(client);
    serving.await.unwrap().unwrap();
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_this_process_a_pipe_is_enough_and_draining_ends_streams() {
    use futures::StreamExt;
    let (_directory, layer) = layer().await;
    let server = Server::new(layer, Facts::default(), Access::own());
    let client = server.client().await.unwrap();
    let client = client.with_patience(std::time::Duration::ZERO);
    client.create(task()).await.unwrap();
    let mut events = client.subscribe(Some(1), &[] as &[&str]).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().sequence, 1);
    assert_eq!(server.calls(), 1);
    server.drain();
    let end = loop {
        if let Err(error) = events.next().await.unwrap() {
            break error;
        }
    };
    assert_eq!(
        (end.kind(), end.reason()),
        (ErrorKind::Unavailable, "draining")
    );
    assert!(end.retryable());
    let late = client.info(false).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable);
}
