//! Over the gRPC interface, with a client in the same process.

use std::path::Path;
use std::sync::{Arc, Mutex};

use portlayer::element::{ElementId, ImageSpec, Kind, ListQuery, NewElement, Spec};
use portlayer::error::ErrorKind;
use portlayer::store::Progress;
use portlayer_client::{Client, PullFrom, Pulled, RegistryCredentials};
use portlayer_node::Node;
use portlayer_node::config::Config;
use portlayer_node::server::{Access as Callers, Facts, Server as Grpc};

use super::image::Image;
use super::server::{Access, Fault, Server};
use crate::support::left;

/// What must be nowhere afterwards.
const PASSWORD: &str = "password";
const WRONG: &str = "wrong-secret-of-somebody";
const TOKEN: &str = "a-secret-token";

/// A node whose owner allows this registry, and a client of it.
struct Place {
    directory: std::path::PathBuf,
}

impl Place {
    fn new() -> Place {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let made = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp");
        Place {
            directory: made.unwrap().keep(),
        }
    }

    async fn open(&self, registry: &Server) -> (Node, Grpc, Client) {
        let mut config = Config::new(self.directory.join("d"));
        config.pull.insecure.insert(registry.host.clone());
        config.pull.stall_seconds = 1;
        config.pull.retries = 1;
        let node = portlayer_node::open(&config).await.unwrap();
        let grpc = Grpc::new(
            node.port_layer.clone(),
            Facts::of(&config, &node),
            Callers::own(),
        );
        let client = grpc.client().await.unwrap();
        (node, grpc, client)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        left::remove(self.directory.join("d"), self.directory.clone(), ());
    }
}

async fn close(node: Node, grpc: Grpc, client: Client) {
    let report = node.port_layer.audit().await.unwrap();
    let leaks: Vec<_> = report.leaks().collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    drop(client);
    grpc.drain();
    drop(grpc);
    node.remove().await.unwrap();
}

fn id(name: &str) -> ElementId {
    format!("image://images/{name}").parse().unwrap()
}

async fn pull(
    client: &Client,
    name: &str,
    reference: String,
    password: Option<&str>,
) -> Result<Pulled, portlayer_client::Error> {
    let new = NewElement::new(id(name), Spec::Image(ImageSpec::default()));
    let credentials = password.map(|password| RegistryCredentials {
        user: "user".to_owned(),
        password: password.to_owned(),
    });
    client
        .pull(
            new,
            PullFrom {
                reference,
                credentials,
            },
            None,
        )
        .await
}

/// No file below the directory has these bytes: not the ledger, no log, nothing that was staged.
fn nowhere(directory: &Path, secret: &str) {
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                let found = bytes
                    .windows(secret.len())
                    .any(|bytes| bytes == secret.as_bytes());
                assert!(!found, "{} has {secret:?}", entry.path().display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_an_image_and_its_credentials_are_nowhere() {
    let (image, registry, place) = (Image::new(), Server::start(Access::Token), Place::new());
    image.on(&registry);
    let (node, grpc, client) = place.open(&registry).await;
    // It breaks off once on the way, and goes on where it ended.
    registry.fault(&image.layer_path(), Fault::BreakAfter(100_000));
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let new = NewElement::new(id("a"), Spec::Image(ImageSpec::default()));
    let from = PullFrom {
        reference: format!("{}/a:v1", registry.host),
        credentials: Some(RegistryCredentials {
            user: "user".to_owned(),
            password: PASSWORD.to_owned(),
        }),
    };
    assert!(!format!("{from:?}").contains(PASSWORD));
    let progress: portlayer::store::ProgressSink =
        Arc::new(move |progress| sink.lock().unwrap().push(progress));
    let pulled = client.pull(new, from, Some(progress)).await.unwrap();
    assert_eq!(
        (pulled.manifest.as_str(), pulled.image.id.clone()),
        (image.manifest.as_str(), id("a"))
    );
    let ranges: Vec<_> = registry
        .requests()
        .into_iter()
        .filter_map(|(_, headers)| headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, ["bytes=100000-"]);
    let told = told.lock().unwrap().clone();
    let bytes = told.iter().filter_map(|progress| match progress {
        Progress::Pulled { bytes, of } => Some((*bytes, *of)),
        _ => None,
    });
    let bytes: Vec<_> = bytes.collect();
    assert!(
        !bytes.is_empty() && bytes.windows(2).all(|pair| pair[0].0 <= pair[1].0),
        "{bytes:?}"
    );
    assert!(bytes.iter().all(|(_, of)| *of > image.layer_bytes() as u64));

    // What it says about running it came along, and the same by digest is the same bytes.
    let by_digest = format!("{}/a@{}", registry.host, image.manifest);
    let again = pull(&client, "b", by_digest, Some(PASSWORD)).await.unwrap();
    assert_eq!(again.image.checksum, pulled.image.checksum);
    let audit = client.audit_log(&id("a")).await.unwrap();
    assert!(!format!("{audit:?}").contains(PASSWORD));
    for secret in [TOKEN, "dXNlcjpwYXNzd29yZA"] {
        nowhere(&place.directory, secret);
    }
    for name in ["a", "b"] {
        client.delete(&id(name)).await.unwrap();
    }
    close(node, grpc, client).await;
}

/// What it is, the reference, a password, what goes wrong with the layer, and the error.
type Case<'a> = (
    &'a str,
    String,
    Option<&'a str>,
    Vec<Fault>,
    ErrorKind,
    &'a str,
);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pulled_is_a_typed_error_and_leaves_nothing() {
    let (image, registry, place) = (Image::new(), Server::start(Access::Basic), Place::new());
    image.on(&registry);
    let (node, grpc, client) = place.open(&registry).await;
    let reference = format!("{}/a:v1", registry.host);
    let layer = image.layer_path();
    let cases: [Case; 9] = [
        (
            "no credentials",
            reference.clone(),
            None,
            vec![],
            ErrorKind::PermissionDenied,
            "pull_unauthorized",
        ),
        (
            "wrong password",
            reference.clone(),
            Some(WRONG),
            vec![],
            ErrorKind::PermissionDenied,
            "pull_unauthorized",
        ),
        (
            "no such tag",
            format!("{}/a:v2", registry.host),
            Some(PASSWORD),
            vec![],
            ErrorKind::NotFound,
            "pull_not_found",
        ),
        (
            "wrong digest",
            reference.clone(),
            Some(PASSWORD),
            vec![Fault::Lie],
            ErrorKind::DataLoss,
            "pull_digest",
        ),
        (
            "stalls",
            reference.clone(),
            Some(PASSWORD),
            vec![Fault::StallAfter(0); 4],
            ErrorKind::Unavailable,
            "pull_stalled",
        ),
        (
            "breaks",
            reference.clone(),
            Some(PASSWORD),
            vec![Fault::BreakAfter(0); 4],
            ErrorKind::Unavailable,
            "pull_unreachable",
        ),
        (
            "misled",
            reference.clone(),
            Some(PASSWORD),
            vec![Fault::Redirect("http://192.0.2.1/x".to_owned())],
            ErrorKind::PermissionDenied,
            "pull_redirect",
        ),
        (
            "no host",
            "busybox:1".to_owned(),
            None,
            vec![],
            ErrorKind::InvalidArgument,
            "invalid_field",
        ),
        (
            "no tag",
            format!("{}/a", registry.host),
            None,
            vec![],
            ErrorKind::InvalidArgument,
            "invalid_field",
        ),
    ];
    for (what, reference, password, faults, kind, reason) in cases {
        for fault in faults {
            registry.fault(&layer, fault);
        }
        let refused = pull(&client, "a", reference, password).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.reason()),
            (kind, reason),
            "{what}: {refused:?}"
        );
        assert!(!format!("{refused:?} {refused}").contains(WRONG), "{what}");
        // The rest of what was to go wrong is for nobody else.
        registry.calm(&layer);
    }
    // Neither is anybody asked for an image that could not be stored.
    pull(&client, "a", reference.clone(), Some(PASSWORD))
        .await
        .unwrap();
    let asked = registry.requests().len();
    let taken = pull(&client, "a", reference.clone(), Some(PASSWORD))
        .await
        .unwrap_err();
    assert_eq!(taken.reason(), "already_exists");
    let elsewhere = NewElement::new(
        "image://nowhere/a".parse().unwrap(),
        Spec::Image(ImageSpec::default()),
    );
    let from = PullFrom {
        reference,
        credentials: None,
    };
    let unknown = client.pull(elsewhere, from, None).await.unwrap_err();
    assert_eq!(unknown.reason(), "unknown_location");
    assert_eq!(registry.requests().len(), asked);
    client.delete(&id("a")).await.unwrap();

    let query = ListQuery {
        kind: Some(Kind::Image),
        ..ListQuery::default()
    };
    assert_eq!(client.list(query).await.unwrap().items, []);
    let staging = std::fs::read_dir(place.directory.join("d/staging/pull")).unwrap();
    assert_eq!(staging.count(), 0);
    nowhere(&place.directory, WRONG);
    close(node, grpc, client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_its_pull() {
    let (image, registry, place) = (Image::new(), Server::start(Access::Open), Place::new());
    image.on(&registry);
    let (node, grpc, client) = place.open(&registry).await;
    for _ in 0..4 {
        registry.fault(&image.layer_path(), Fault::StallAfter(1000));
    }
    let reference = format!("{}/a:v1", registry.host);
    let begun = async {
        while registry
            .requests()
            .iter()
            .all(|(path, _)| *path != image.layer_path())
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        pulled = pull(&client, "a", reference.clone(), None) => panic!("{pulled:?}"),
        () = begun => {}
    }
    registry.calm(&image.layer_path());
    // The id is free and a new pull is not disturbed.
    pull(&client, "a", reference, None).await.unwrap();
    client.delete(&id("a")).await.unwrap();
    close(node, grpc, client).await;
}
