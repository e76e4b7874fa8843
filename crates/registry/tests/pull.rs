//! Pulls from a registry of the tests' own: with and without credentials, and with everything that can go wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use portlayer_registry::{
    Config, Credentials, Platform, Progress, PullError, Pulled, Reference, pull,
};
use portlayer_runtime::layout::{ImageBuilder, Packing, blob_path, digest};
use server::{Access, Fault, Server};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image and where the server has its parts.
struct Image {
    layout: BTreeMap<String, Vec<u8>>,
    manifest: String,
    layer: String,
}

impl Image {
    fn new() -> Image {
        let layer: Vec<u8> = (0..200_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let tar =
            portlayer_runtime::layout::archive_of(&BTreeMap::from([("file".to_owned(), layer)]));
        let builder = ImageBuilder::new()
            .platform("linux", "amd64")
            .layer(&tar, Packing::Plain)
            .unwrap();
        let layout = builder.layout();
        let index: serde_json::Value = serde_json::from_slice(&layout["index.json"]).unwrap();
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        Image {
            layer: digest(&tar),
            manifest,
            layout,
        }
    }

    fn on(&self, server: &Server) {
        for (path, bytes) in &self.layout {
            let sum = digest(bytes);
            match path.as_str() {
                "oci-layout" => {}
                "index.json" => {
                    server.put("/v2/a/manifests/v1", INDEX, bytes);
                    server.put(&format!("/v2/a/manifests/{sum}"), INDEX, bytes);
                }
                _ if sum == self.manifest => {
                    server.put(&format!("/v2/a/manifests/{sum}"), MANIFEST, bytes)
                }
                _ => server.put(
                    &format!("/v2/a/blobs/{sum}"),
                    "application/octet-stream",
                    bytes,
                ),
            }
        }
    }

    fn layer_path(&self) -> String {
        format!("/v2/a/blobs/{}", self.layer)
    }
}

fn config(server: &Server) -> Config {
    Config {
        insecure: [server.host.clone()].into(),
        stall: Duration::from_millis(500),
        ..Config::default()
    }
}

fn credentials(password: &str) -> Credentials {
    Credentials {
        user: "user".to_owned(),
        password: password.to_owned(),
    }
}

async fn get(
    config: &Config,
    reference: &str,
    own: Option<&Credentials>,
) -> Result<Pulled, PullError> {
    let staging = tempfile::tempdir().unwrap();
    let reference: Reference = reference.parse().unwrap();
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
    };
    let heard = Mutex::new(Vec::new());
    let progress = |progress: Progress| heard.lock().unwrap().push(progress);
    let pulled = pull(
        config,
        &reference,
        own,
        &platform,
        staging.path(),
        &progress,
    )
    .await;
    assert_eq!(
        std::fs::read_dir(staging.path()).unwrap().count(),
        0,
        "something is left in staging"
    );
    if let Ok(pulled) = &pulled {
        let heard = heard.lock().unwrap();
        let last = heard.last().unwrap();
        assert_eq!((last.done, last.total), (pulled.bytes, pulled.bytes));
    }
    pulled
}

/// The archive holds the image, every blob by its digest.
async fn check(pulled: Pulled, image: &Image) {
    let file = pulled.archive.into_std().await;
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(file).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        found.insert(path, bytes);
    }
    for (path, bytes) in image
        .layout
        .iter()
        .filter(|(path, _)| path.starts_with("blobs/"))
    {
        assert_eq!(found.get(path), Some(bytes), "{path}");
    }
    let index: serde_json::Value = serde_json::from_slice(&found["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.manifest);
    assert!(found.contains_key(&blob_path(&image.manifest)) && found.contains_key("oci-layout"));
}

#[tokio::test]
async fn by_tag_and_by_digest_with_and_without_credentials() {
    let image = Image::new();
    for access in [Access::Open, Access::Basic, Access::Token] {
        let server = Server::start(access);
        image.on(&server);
        let own = (server.access() != Access::Open).then(|| credentials("password"));
        for reference in [
            format!("{}/a:v1", server.host),
            format!("{}/a@{}", server.host, image.manifest),
        ] {
            let pulled = get(&config(&server), &reference, own.as_ref())
                .await
                .unwrap();
            assert_eq!(pulled.manifest, image.manifest);
            check(pulled, &image).await;
        }
    }
}

#[tokio::test]
async fn wrong_or_no_credentials_are_told_apart_from_nothing_and_shown_nowhere() {
    let image = Image::new();
    for access in [Access::Basic, Access::Token] {
        let server = Server::start(access);
        image.on(&server);
        let reference = format!("{}/a:v1", server.host);
        for own in [None, Some(credentials("wrong-secret"))] {
            let refused = get(&config(&server), &reference, own.as_ref())
                .await
                .unwrap_err();
            assert!(
                matches!(refused, PullError::Unauthorized { .. }),
                "{refused:?}"
            );
            let shown = format!("{refused:?} {refused} {own:?}");
            assert!(!shown.contains("wrong-secret"), "{shown}");
        }
        // A call with the right ones opens nothing for the next.
        let own = credentials("password");
        get(&config(&server), &reference, Some(&own)).await.unwrap();
        get(&config(&server), &reference, None).await.unwrap_err();
        let missing = get(
            &config(&server),
            &format!("{}/a:v2", server.host),
            Some(&own),
        )
        .await
        .unwrap_err();
        assert!(matches!(missing, PullError::NotFound { .. }), "{missing:?}");
    }
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke_off() {
    let image = Image::new();
    let server = Server::start(Access::Token);
    image.on(&server);
    server.fault(&image.layer_path(), Fault::BreakAfter(100_000));
    server.fault(&image.layer_path(), Fault::StallAfter(50_000));
    server.fault(&image.layer_path(), Fault::Status(503));
    let reference = format!("{}/a:v1", server.host);
    let pulled = get(&config(&server), &reference, Some(&credentials("password")))
        .await
        .unwrap();
    check(pulled, &image).await;
    let ranges: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|(path, _)| *path == image.layer_path())
        .filter_map(|(_, headers)| headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=150000-", "bytes=150000-"]);
}

#[tokio::test]
async fn a_registry_that_sends_all_of_it_again_is_understood() {
    let image = Image::new();
    let server = Server::start(Access::Open);
    image.on(&server);
    server.fault(&image.layer_path(), Fault::BreakAfter(100_000));
    server.fault(&image.layer_path(), Fault::Whole);
    let pulled = get(&config(&server), &format!("{}/a:v1", server.host), None)
        .await
        .unwrap();
    check(pulled, &image).await;
}

#[tokio::test]
async fn what_stands_still_is_given_up() {
    let image = Image::new();
    let server = Server::start(Access::Open);
    image.on(&server);
    for _ in 0..10 {
        server.fault(&image.layer_path(), Fault::StallAfter(0));
    }
    let few = Config {
        retries: 1,
        ..config(&server)
    };
    let refused = get(&few, &format!("{}/a:v1", server.host), None)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, PullError::Stalled { at: 0, .. }),
        "{refused:?}"
    );
    server.fault("/v2/a/manifests/v1", Fault::StallAfter(10));
    server.fault("/v2/a/manifests/v1", Fault::StallAfter(10));
    let refused = get(&few, &format!("{}/a:v1", server.host), None)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, PullError::Stalled { at: 10, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_has_another_digest_or_length_is_refused() {
    let image = Image::new();
    let server = Server::start(Access::Open);
    image.on(&server);
    let reference = format!("{}/a@{}", server.host, image.manifest);
    server.fault(&image.layer_path(), Fault::Lie);
    let refused = get(&config(&server), &reference, None).await.unwrap_err();
    assert!(
        matches!(&refused, PullError::Digest { what, .. } if *what == image.layer),
        "{refused:?}"
    );
    server.fault(&format!("/v2/a/manifests/{}", image.manifest), Fault::Lie);
    let refused = get(&config(&server), &reference, None).await.unwrap_err();
    assert!(
        matches!(&refused, PullError::Digest { what, .. } if *what == image.manifest),
        "{refused:?}"
    );
    for bytes in [&b"short"[..], &[0; 2_000_000]] {
        server.put(&image.layer_path(), "x", bytes);
        let refused = get(&config(&server), &reference, None).await.unwrap_err();
        assert!(
            matches!(&refused, PullError::Size { what, .. } if *what == image.layer),
            "{refused:?}"
        );
    }
    let small = Config {
        max_bytes: 1000,
        ..config(&server)
    };
    let refused = get(&small, &reference, None).await.unwrap_err();
    assert!(matches!(refused, PullError::TooLarge { .. }), "{refused:?}");
}

#[tokio::test]
async fn permission_goes_to_the_registry_and_not_to_where_it_redirects() {
    let image = Image::new();
    let (server, store) = (Server::start(Access::Token), Server::start(Access::Open));
    image.on(&server);
    store.put("/elsewhere", "x", &image.layout[&blob_path(&image.layer)]);
    let reference = format!("{}/a:v1", server.host);
    let own = credentials("password");
    server.fault(
        &image.layer_path(),
        Fault::Redirect(format!("http://{}/elsewhere?signature=secret", store.host)),
    );
    store.put(
        "/elsewhere?signature=secret",
        "x",
        &image.layout[&blob_path(&image.layer)],
    );
    let both = Config {
        insecure: [server.host.clone(), store.host.clone()].into(),
        ..config(&server)
    };
    check(get(&both, &reference, Some(&own)).await.unwrap(), &image).await;
    let asked = store.requests();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].1.contains_key("authorization"), "{asked:?}");

    // A place without TLS that nobody allowed, another scheme, and no end.
    for to in [
        format!("http://{}/elsewhere", store.host),
        "file:///etc/passwd".to_owned(),
        "ftp://a/b".to_owned(),
    ] {
        server.fault(&image.layer_path(), Fault::Redirect(to));
        let refused = get(&config(&server), &reference, Some(&own))
            .await
            .unwrap_err();
        assert!(matches!(refused, PullError::Redirect { .. }), "{refused:?}");
    }
    for _ in 0..10 {
        server.fault(
            &image.layer_path(),
            Fault::Redirect(format!("http://{}{}", server.host, image.layer_path())),
        );
    }
    let refused = get(&config(&server), &reference, Some(&own))
        .await
        .unwrap_err();
    assert!(matches!(refused, PullError::Redirect { .. }), "{refused:?}");
}

#[tokio::test]
async fn nobody_is_spoken_to_without_tls_unless_it_is_configured() {
    let image = Image::new();
    let server = Server::start(Access::Open);
    image.on(&server);
    let refused = get(
        &Config {
            stall: Duration::from_secs(2),
            retries: 0,
            ..Config::default()
        },
        &format!("{}/a:v1", server.host),
        None,
    )
    .await;
    assert!(refused.is_err());
    assert!(
        server
            .requests()
            .iter()
            .all(|(path, _)| !path.starts_with("/v2"))
    );
}

#[tokio::test]
async fn mirrors_are_asked_first_and_never_get_credentials() {
    let image = Image::new();
    let (mirror, registry) = (Server::start(Access::Open), Server::start(Access::Basic));
    image.on(&mirror);
    image.on(&registry);
    let config = Config {
        mirrors: BTreeMap::from([(registry.host.clone(), vec![mirror.host.clone()])]),
        insecure: [mirror.host.clone(), registry.host.clone()].into(),
        ..config(&mirror)
    };
    let reference = format!("{}/a:v1", registry.host);
    let own = credentials("password");
    check(get(&config, &reference, Some(&own)).await.unwrap(), &image).await;
    assert!(registry.requests().is_empty(), "the mirror had it");
    assert!(
        mirror
            .requests()
            .iter()
            .all(|(_, headers)| !headers.contains_key("authorization"))
    );
    // What the mirror has wrong comes from the registry.
    mirror.fault(&image.layer_path(), Fault::Lie);
    check(get(&config, &reference, Some(&own)).await.unwrap(), &image).await;
    assert!(!registry.requests().is_empty());
}

#[tokio::test]
async fn an_image_for_other_platforms_is_refused() {
    let server = Server::start(Access::Open);
    let other = ImageBuilder::new().platform("linux", "s390x").layout();
    server.put("/v2/a/manifests/v1", INDEX, &other["index.json"]);
    let refused = get(&config(&server), &format!("{}/a:v1", server.host), None)
        .await
        .unwrap_err();
    assert!(matches!(refused, PullError::Platform { .. }), "{refused:?}");
    server.put(
        "/v2/a/manifests/v1",
        INDEX,
        b"{\"manifests\":[],\"config\":{\"digest\":\"\",\"size\":1},\"layers\":[]}",
    );
    let refused = get(&config(&server), &format!("{}/a:v1", server.host), None)
        .await
        .unwrap_err();
    assert!(matches!(refused, PullError::Document { .. }), "{refused:?}");
}
