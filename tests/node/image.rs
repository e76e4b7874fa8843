//! Images on a real containerd: every form, every refusal, and nothing left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use portlayer::archive::corpus::{self, Verdict};
use portlayer::archive::{Compression, EntryKind, TarBuilder};
use portlayer::element::{
    Body, Checksum, ElementId, ImageBody, ImageSpec, Record, Spec, State, StoreKeys,
};
use portlayer::store::{Progress, Put, Store, StoreError, Stored};
use portlayer::time::Timestamp;
use portlayer_runtime::connection::Connection;
use portlayer_runtime::image::{ImageLimits, ImageStore, ImageStoreConfig};
use portlayer_runtime::layout::{self, ImageBuilder, Packing};
use tokio::io::AsyncReadExt;

use crate::support::node::Node;

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

/// A record as the element service would have stored it.
pub(super) fn record(id: &ElementId, body: Body) -> Record {
    Record {
        id: id.clone(),
        parent: None,
        owner: None,
        checksum: None,
        size: 0,
        ro: BTreeMap::new(),
        rw: BTreeMap::new(),
        revision: 1,
        created: Timestamp::now(),
        modified: Timestamp::now(),
        state: State::Ready,
        hidden: false,
        body,
    }
}

pub(super) fn image_record(id: &ElementId, stored: &Stored) -> Record {
    let body = ImageBody {
        spec: ImageSpec::default(),
        keys: stored.keys.clone(),
        metadata_only: stored.metadata_only,
        defaults: stored.defaults.clone().unwrap_or_default(),
    };
    record(id, Body::Image(Box::new(body)))
}

pub(super) fn image_store(node: &mut Node) -> ImageStore {
    let staging = node.directory().join("staging");
    std::fs::create_dir_all(&staging).unwrap();
    let limits = ImageLimits {
        layer: corpus::limits(),
        ..ImageLimits::default()
    };
    let config = ImageStoreConfig {
        location: "images".to_owned(),
        space: staging.clone(),
        staging,
        limits,
    };
    ImageStore::new(Connection::new(node.engine().client(), "overlayfs"), config)
}

pub(super) async fn put_image(
    store: &ImageStore,
    name: &str,
    parent: Option<&Record>,
    data: Option<Vec<u8>>,
) -> Result<(Record, Stored), StoreError> {
    let id = id(name);
    let spec = Spec::Image(ImageSpec::default());
    let put = Put {
        id: &id,
        spec: &spec,
        parent,
        data: data.map(|bytes| Box::pin(std::io::Cursor::new(bytes)) as _),
        checksum: None,
        progress: None,
    };
    let stored = store.put(put).await?;
    Ok((image_record(&id, &stored), stored))
}

/// Everything the engine and our staging directory hold, as text.
pub(super) fn holdings(node: &mut Node) -> String {
    let places = node.engine().places().clone();
    let mut text = String::new();
    for arguments in [
        &["images", "ls", "-q"][..],
        &["content", "ls", "-q"],
        &["content", "active"],
        &["snapshots", "ls"],
        &["leases", "ls", "-q"],
    ] {
        let output = Command::new("ctr")
            .arg("-a")
            .arg(&places.socket)
            .arg("-n")
            .arg(&places.namespace)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "ctr {arguments:?}: {output:?}");
        text.push_str(&format!(
            "{arguments:?}\n{}",
            String::from_utf8_lossy(&output.stdout)
        ));
    }
    if let Ok(entries) = std::fs::read_dir(places.directory.join("staging")) {
        for entry in entries {
            text.push_str(&format!("staging {:?}\n", entry.unwrap().file_name()));
        }
    }
    text
}

pub(super) async fn read_all(mut stream: portlayer::element::DataStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Names and contents of the regular files of a tar.
pub(super) fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

fn base() -> ImageBuilder {
    let tar = TarBuilder::new()
        .dir("etc", 0o755)
        .file("etc/base", 0o644, b"base")
        .file("gone", 0o644, b"x")
        .finish();
    ImageBuilder::new()
        .layer(&tar, Packing::Gzip)
        .unwrap()
        .config("Env", serde_json::json!(["A=1"]))
        .config("Cmd", serde_json::json!(["/bin/true"]))
}

#[tokio::test]
async fn the_busybox_image_is_stored_and_removed_without_a_trace() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let staging = node.directory().join("staging");
    std::fs::create_dir_all(&staging).unwrap();
    let store = ImageStore::new(
        Connection::new(node.engine().client(), "overlayfs"),
        ImageStoreConfig {
            location: "images".to_owned(),
            space: staging.clone(),
            staging,
            limits: ImageLimits::default(),
        },
    );
    let archive = layout::busybox(Path::new("/bin/busybox"))
        .unwrap()
        .oci_archive();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let id = id("image://images/busybox");
    let put = Put {
        id: &id,
        spec: &Spec::Image(ImageSpec::default()),
        parent: None,
        data: Some(Box::pin(std::io::Cursor::new(archive.clone()))),
        checksum: Some(Checksum::of(&archive)),
        progress: Some(Arc::new(move |p| sink.lock().unwrap().push(p))),
    };
    let stored = store.put(put).await.unwrap();
    assert_eq!(stored.checksum, Some(Checksum::of(&archive)));
    assert_eq!(stored.size, archive.len() as u64);
    assert_eq!(stored.defaults.as_ref().unwrap().cmd, ["sh"]);
    assert_eq!(
        seen.lock().unwrap().last(),
        Some(&Progress::Unpacked { layers: 1, of: 1 })
    );
    assert_eq!(store.list().await.unwrap(), [id.digest_hex()]);
    assert!(holdings(&mut node).contains(&stored.keys["snapshot"]));
    store.remove(&id, &stored.keys).await.unwrap();
    store.remove(&id, &stored.keys).await.unwrap();
    assert_eq!(holdings(&mut node), before);
    node.end().await;
}

#[tokio::test]
async fn every_form_of_an_image_gives_the_same_files() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    let tar = TarBuilder::new()
        .dir("etc", 0o755)
        .file("etc/f", 0o644, b"content")
        .finish();
    let image = |packing| ImageBuilder::new().layer(&tar, packing).unwrap();
    let forms = [
        ("oci", image(Packing::Gzip).oci_archive()),
        ("oci-plain", image(Packing::Plain).oci_archive()),
        ("oci-zstd", image(Packing::Zstd).oci_archive()),
        (
            "oci-in-gzip",
            Packing::Gzip
                .pack(&image(Packing::Gzip).oci_archive())
                .unwrap(),
        ),
        ("docker", image(Packing::Plain).docker_archive()),
        (
            "docker-in-zstd",
            Packing::Zstd
                .pack(&image(Packing::Plain).docker_archive())
                .unwrap(),
        ),
        ("layer", tar.clone()),
        ("layer-gzip", Packing::Gzip.pack(&tar).unwrap()),
        ("layer-zstd", Packing::Zstd.pack(&tar).unwrap()),
    ];
    let mut snapshots = Vec::new();
    for (name, data) in &forms {
        let name = format!("image://images/{name}");
        let (record, stored) = put_image(&store, &name, None, Some(data.clone()))
            .await
            .unwrap();
        let tree = files(&read_all(store.export_tree(&record).await.unwrap()).await);
        assert_eq!(
            tree.get("etc/f").map(Vec::as_slice),
            Some(&b"content"[..]),
            "{name}: {tree:?}"
        );
        snapshots.push(stored.keys["snapshot"].clone());
    }
    snapshots.dedup();
    assert_eq!(snapshots.len(), 1, "the same layer is one snapshot");
    // Removing all but the last leaves it whole.
    for (name, _) in &forms[..8] {
        store
            .remove(&id(&format!("image://images/{name}")), &StoreKeys::new())
            .await
            .unwrap();
    }
    assert!(holdings(&mut node).contains(&snapshots[0]));
    store
        .remove(&id("image://images/layer-zstd"), &StoreKeys::new())
        .await
        .unwrap();
    assert_eq!(holdings(&mut node), before);
    node.end().await;
}

#[tokio::test]
async fn a_layer_on_a_parent_hides_adds_and_inherits() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    let (parent, first) = put_image(
        &store,
        "image://images/base",
        None,
        Some(base().oci_archive()),
    )
    .await
    .unwrap();
    let layer = TarBuilder::new()
        .file(".wh.gone", 0o644, b"")
        .file("etc/app", 0o644, b"app")
        .symlink("abs", "/etc")
        .file("abs/through", 0o644, b"link")
        .hardlink("etc/hard", "etc/app")
        .finish();
    let (child, stored) = put_image(&store, "image://images/app", Some(&parent), Some(layer))
        .await
        .unwrap();
    assert_eq!(
        stored.defaults.as_ref().unwrap().env,
        [("A".to_owned(), "1".to_owned())]
    );
    assert_ne!(stored.keys["snapshot"], first.keys["snapshot"]);
    let tree = files(&read_all(store.export_tree(&child).await.unwrap()).await);
    assert!(!tree.contains_key("gone"));
    assert_eq!(tree["etc/through"], b"link");
    assert_eq!(tree["etc/app"], b"app");
    assert_eq!(tree["etc/base"], b"base");

    let (tagged, shared) = put_image(&store, "image://images/tagged", Some(&child), None)
        .await
        .unwrap();
    assert!(shared.metadata_only);
    assert_eq!(shared.keys, stored.keys);
    store.remove(&tagged.id, &shared.keys).await.unwrap();
    // The parent may go first: what the child needs stays.
    store.remove(&parent.id, &first.keys).await.unwrap();
    let exported = read_all(store.export(&child).await.unwrap()).await;
    store.remove(&child.id, &stored.keys).await.unwrap();
    assert_eq!(holdings(&mut node), before);

    let (again, _) = put_image(&store, "image://images/again", None, Some(exported))
        .await
        .unwrap();
    let back = files(&read_all(store.export_tree(&again).await.unwrap()).await);
    assert_eq!(back, tree);
    store.remove(&again.id, &StoreKeys::new()).await.unwrap();
    assert_eq!(holdings(&mut node), before);
    node.end().await;
}

#[tokio::test]
async fn a_hostile_layer_is_refused_in_every_form_and_changes_nothing() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    for case in corpus::cases() {
        let image = ImageBuilder::new()
            .layer(&case.archive, Packing::Plain)
            .unwrap();
        let packed = Compression::detect(&case.archive) != Compression::None;
        for (form, data) in [
            ("layer", case.archive.clone()),
            ("oci", image.oci_archive()),
        ] {
            // As a layer of an image its diff id would be that of the packed bytes: refused for another reason.
            if packed && form == "oci" {
                continue;
            }
            let result = put_image(&store, "image://images/hostile", None, Some(data)).await;
            match (case.verdict, result) {
                (Verdict::Accepted, Ok((record, stored))) => {
                    store.remove(&record.id, &stored.keys).await.unwrap();
                }
                (Verdict::Accepted, Err(e)) => panic!("{} as {form}: {e:?}", case.name),
                (_, Ok(_)) => panic!("{} as {form}: accepted", case.name),
                (_, Err(StoreError::Archive { .. })) => {}
                (_, Err(e)) => panic!("{} as {form}: {e:?}", case.name),
            }
            assert_eq!(holdings(&mut node), before, "{} as {form}", case.name);
        }
    }
    assert!(!Path::new("/tmp/portlayer-escape").exists());
    node.end().await;
}

/// Images whose documents lie, by what is wrong with them.
fn lying_images() -> Vec<(&'static str, Vec<u8>)> {
    let good = base().layout();
    type Files = BTreeMap<String, Vec<u8>>;
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = good.clone();
        change(&mut files);
        layout::archive_of(&files)
    };
    let blob = |files: &BTreeMap<String, Vec<u8>>, holds: &[u8]| {
        let found = files
            .iter()
            .find(|(_, bytes)| bytes.windows(holds.len()).any(|w| w == holds));
        found.unwrap().0.clone()
    };
    let manifest = blob(&good, b"\"layers\":");
    let config = blob(&good, b"diff_ids");
    let layer = blob(&good, &[0x1f, 0x8b]);
    let index = |text: String| {
        changed(&move |files| drop(files.insert("index.json".into(), text.clone().into())))
    };
    let mut two = String::from_utf8(good["index.json"].clone()).unwrap();
    let other = base().config("User", serde_json::json!("x")).layout();
    let other_index: serde_json::Value = serde_json::from_slice(&other["index.json"]).unwrap();
    two = two.replace(
        "\"manifests\":[",
        &format!("\"manifests\":[{},", other_index["manifests"][0]),
    );
    let nested = |depth: usize| {
        let mut files = good.clone();
        for _ in 0..depth {
            let bytes = files["index.json"].clone();
            let digest = layout::digest(&bytes);
            let entry = serde_json::json!({
                "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": bytes.len(),
            });
            files.insert(layout::blob_path(&digest), bytes);
            let outer = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
            files.insert("index.json".into(), outer.to_string().into());
        }
        layout::archive_of(&files)
    };
    let empty_layer = TarBuilder::new().finish();
    let mut many = ImageBuilder::new();
    for _ in 0..200 {
        many = many.layer(&empty_layer, Packing::Plain).unwrap();
    }
    vec![
        (
            "layer bytes changed",
            changed(&|f| *f.get_mut(&layer).unwrap().last_mut().unwrap() ^= 1),
        ),
        ("layer missing", changed(&|f| drop(f.remove(&layer)))),
        (
            "layer cut",
            changed(&|f| f.get_mut(&layer).unwrap().truncate(40)),
        ),
        (
            "config changed",
            changed(&|f| f.get_mut(&config).unwrap().push(b' ')),
        ),
        ("config missing", changed(&|f| drop(f.remove(&config)))),
        (
            "manifest changed",
            changed(&|f| f.get_mut(&manifest).unwrap().push(b' ')),
        ),
        ("manifest missing", changed(&|f| drop(f.remove(&manifest)))),
        ("index is no document", index("{".into())),
        ("index is empty", index("{\"manifests\":[]}".into())),
        (
            "index names a path",
            index(r#"{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}"#.into()),
        ),
        (
            "index with upper-case digest",
            index(format!(
                r#"{{"manifests":[{{"digest":"sha256:{}","size":1}}]}}"#,
                "A".repeat(64)
            )),
        ),
        (
            "index with md5",
            index(r#"{"manifests":[{"digest":"md5:00","size":1}]}"#.into()),
        ),
        (
            "index with negative size",
            index(format!(
                r#"{{"manifests":[{{"digest":"sha256:{}","size":-1}}]}}"#,
                "a".repeat(64)
            )),
        ),
        ("index of 5 MiB", index(" ".repeat(5 << 20))),
        ("two images for this platform", index(two)),
        ("indexes in indexes", nested(6)),
        (
            "wrong diff id",
            base()
                .with_diff_id(0, &layout::digest(b"other"))
                .oci_archive(),
        ),
        (
            "diff id that is none",
            base().with_diff_id(0, "sha256:zz").oci_archive(),
        ),
        (
            "wrong diff id, docker",
            base()
                .with_diff_id(0, &layout::digest(b"other"))
                .docker_archive(),
        ),
        (
            "another architecture",
            base().platform("linux", "s390x").oci_archive(),
        ),
        (
            "another system",
            base().platform("windows", "amd64").docker_archive(),
        ),
        ("200 layers", many.oci_archive()),
        (
            "bad environment",
            base()
                .config("Env", serde_json::json!(["=x"]))
                .oci_archive(),
        ),
        (
            "bad stop signal",
            base()
                .config("StopSignal", serde_json::json!("SIG\u{1b}[2J"))
                .oci_archive(),
        ),
    ]
}

#[tokio::test]
async fn an_image_that_lies_is_refused_and_changes_nothing() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    for (name, data) in lying_images() {
        match put_image(&store, "image://images/liar", None, Some(data)).await {
            Err(e @ (StoreError::RefusedEntry { .. } | StoreError::Archive { .. })) => {
                assert!(!e.to_string().contains('\u{1b}'), "{name}");
            }
            Err(e) => panic!("{name}: {e:?}"),
            Ok(_) => panic!("{name}: accepted"),
        }
        assert_eq!(holdings(&mut node), before, "{name}");
    }
    node.end().await;
}

#[tokio::test]
async fn a_broken_or_wrong_stream_changes_nothing() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    let image = id("image://images/x");
    let spec = Spec::Image(ImageSpec::default());
    let wrong = Put {
        id: &image,
        spec: &spec,
        parent: None,
        data: Some(Box::pin(std::io::Cursor::new(base().oci_archive()))),
        checksum: Some(Checksum::of(b"something else")),
        progress: None,
    };
    assert!(matches!(
        store.put(wrong).await,
        Err(StoreError::ChecksumMismatch { .. })
    ));
    let half = base().oci_archive()[..700].to_vec();
    let failing = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(bytes::Bytes::from(half)),
        Err(std::io::Error::other("connection lost")),
    ]));
    let broken = Put {
        id: &image,
        spec: &spec,
        parent: None,
        data: Some(Box::pin(failing)),
        checksum: None,
        progress: None,
    };
    assert!(matches!(store.put(broken).await, Err(StoreError::Data(_))));
    let (parent, stored) = put_image(
        &store,
        "image://images/base",
        None,
        Some(base().oci_archive()),
    )
    .await
    .unwrap();
    let on_parent = put_image(
        &store,
        "image://images/y",
        Some(&parent),
        Some(base().oci_archive()),
    )
    .await;
    assert!(matches!(on_parent, Err(StoreError::InvalidParent(_))));
    assert!(matches!(
        put_image(&store, "image://images/z", None, None).await,
        Err(StoreError::Unsupported(_))
    ));
    store.remove(&parent.id, &stored.keys).await.unwrap();
    let full = Spec::Image(ImageSpec {
        freespace_bytes: 1 << 60,
    });
    let too_big = Put {
        id: &image,
        spec: &full,
        parent: None,
        data: Some(Box::pin(std::io::Cursor::new(base().oci_archive()))),
        checksum: None,
        progress: None,
    };
    assert!(matches!(
        store.put(too_big).await,
        Err(StoreError::InsufficientSpace { .. })
    ));
    assert_eq!(holdings(&mut node), before);
    node.end().await;
}

#[tokio::test]
async fn the_same_layers_put_at_once_are_one_snapshot_and_removed_with_the_last() {
    let mut node = Node::start().await;
    let store = image_store(&mut node);
    let before = holdings(&mut node);
    let archive = base().oci_archive();
    let puts = (0..6).map(|i| {
        let (store, archive) = (store.clone(), archive.clone());
        async move { put_image(&store, &format!("image://images/c{i}"), None, Some(archive)).await }
    });
    for result in futures::future::join_all(puts).await {
        result.unwrap();
    }
    assert_eq!(store.list().await.unwrap().len(), 6);
    let removals = (0..6).map(|i| {
        let store = store.clone();
        async move {
            store
                .remove(&id(&format!("image://images/c{i}")), &StoreKeys::new())
                .await
        }
    });
    for result in futures::future::join_all(removals).await {
        result.unwrap();
    }
    assert_eq!(holdings(&mut node), before);
    node.end().await;
}

#[tokio::test]
async fn special_nodes_are_taken_where_the_location_allows_them() {
    let mut node = Node::start().await;
    let staging = node.directory().join("staging");
    std::fs::create_dir_all(&staging).unwrap();
    let mut limits = ImageLimits::default();
    limits.layer.special_nodes = true;
    let config = ImageStoreConfig {
        location: "images".to_owned(),
        space: staging.clone(),
        staging,
        limits,
    };
    let store = ImageStore::new(Connection::new(node.engine().client(), "overlayfs"), config);
    let layer = TarBuilder::new()
        .entry(EntryKind::CharDevice, b"node", b"", 0o666, b"")
        .finish();
    let (record, stored) = put_image(&store, "image://images/nodes", None, Some(layer))
        .await
        .unwrap();
    store.remove(&record.id, &stored.keys).await.unwrap();
    node.end().await;
}
