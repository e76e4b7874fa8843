//! Workflows 4 to 7: volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portlayer::element::{Descriptor, ElementId, NewElement, Spec, VolumeSpec};
use portlayer::error::{CreateError, ReadError};
use portlayer_node::Node;
use tokio::io::AsyncReadExt;

use super::example::{
    e04_fresh_volume, e05_volume_from_parent, e06_nfs_volume, e07_nfs_volume_from_parent, stage,
};
use super::story::{Place, events, holdings, id, on_node, rows};

/// What is in a volume or image tree: type, mode, size and link of each entry, by path.
fn listing(tar: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry
            .path()
            .unwrap()
            .to_string_lossy()
            .trim_matches(['.', '/'])
            .to_owned();
        let link = entry
            .link_name()
            .unwrap()
            .map(|to| to.to_string_lossy().into_owned())
            .unwrap_or_default();
        let header = entry.header();
        // The mode of a link means nothing.
        let mode = if header.entry_type().is_symlink() {
            0
        } else {
            header.mode().unwrap() & 0o7777
        };
        let text = format!(
            "{:?} {mode:o} {}:{} {} {link}",
            header.entry_type(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            entry.size()
        );
        found.insert(path, text);
    }
    found.remove("");
    found
}

/// What is in a volume.
pub(super) async fn content(node: &Node, volume: &ElementId) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    let mut stream = node.port_layer.export(volume).await.unwrap();
    stream.read_to_end(&mut bytes).await.unwrap();
    listing(&bytes)
}

fn fresh(volume: &str) -> NewElement {
    NewElement::new(id(volume), Spec::Volume(VolumeSpec::default()))
}

fn directory(place: &Place, volume: &Descriptor) -> PathBuf {
    place
        .data()
        .join("volumes")
        .join(volume.id.location())
        .join("live")
        .join(volume.id.digest_hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_volume() {
    on_node(async |node, place| {
        let made = e04_fresh_volume::workflow(node).await.unwrap();
        assert_eq!((made.checksum, made.size, made.revision), (None, 0, 1));
        assert_eq!(
            content(node, &made.id).await,
            BTreeMap::new(),
            "no lost+found either"
        );
        let root = std::fs::metadata(directory(place, &made)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&root) & 0o7777, 0o755);
        assert_eq!(events(node).await, ["volume://volumes/data created"]);
        assert_eq!(rows(node, "volume://volumes/data").await, ["create 0>1 ok"]);
        assert_eq!(
            holdings(node).await.len(),
            1,
            "its directory and nothing else"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_from_parent() {
    on_node(async |node, _| {
        let (image, volumes) = e05_volume_from_parent::workflow(node).await.unwrap();
        let expected = listing(&stage::busybox_tar().unwrap());
        for volume in &volumes {
            let found = content(node, &volume.id).await;
            assert_eq!(found, expected, "{}", volume.id);
            assert_eq!(rows(node, volume.id.as_str()).await, ["create 0>1 ok"]);
        }
        let [seeded, cow, copy] = &volumes;
        assert_eq!(seeded.parent, Some(image.clone()));
        assert_eq!(copy.parent, Some(seeded.id.clone()));
        let told = [
            format!("{image} created"),
            format!("{} created", seeded.id),
            format!("{image} inherited by {}", seeded.id),
            format!("{} created", cow.id),
            format!("{image} inherited by {}", cow.id),
            format!("{} created", copy.id),
            format!("{} inherited by {}", seeded.id, copy.id),
        ];
        assert_eq!(events(node).await, told);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nfs_volume() {
    on_node(async |node, place| {
        let made = e06_nfs_volume::workflow(node).await.unwrap();
        let digest = made.id.digest_hex();
        let on_server = place.exports().join("volumes").join(&digest);
        let root = std::fs::metadata(&on_server).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(
            (root.uid(), root.gid(), root.mode() & 0o7777),
            (1000, 1000, 0o755)
        );
        let note = place
            .exports()
            .join("volumes_metadata")
            .join(&digest)
            .join("id");
        assert_eq!(std::fs::read_to_string(note).unwrap(), made.id.as_str());
        std::fs::write(on_server.join("from-elsewhere"), "x").unwrap();
        assert!(content(node, &made.id).await.contains_key("from-elsewhere"));
        assert_eq!(events(node).await, ["volume://nfs/shared created"]);
        assert_eq!(rows(node, "volume://nfs/shared").await, ["create 0>1 ok"]);
        assert_eq!(
            rows(node, "volume://away/shared").await,
            Vec::<String>::new()
        );
        let away = node.port_layer.read(&id("volume://away/shared")).await;
        assert!(matches!(away, Err(ReadError::NotFound { .. })), "{away:?}");

        node.port_layer.delete(&made.id).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(place.exports().join("volumes"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nfs_volume_from_parent() {
    on_node(async |node, place| {
        let (image, volume) = e07_nfs_volume_from_parent::workflow(node).await.unwrap();
        let read = node.port_layer.read(&volume).await;
        assert!(matches!(read, Err(ReadError::NotFound { .. })), "{read:?}");
        let on_server = place.exports().join("volumes").join(volume.digest_hex());
        assert!(!on_server.exists());
        assert_eq!(events(node).await, [format!("{image} created")]);
        assert_eq!(rows(node, volume.as_str()).await, Vec::<String>::new());
        // A volume is no parent there either.
        node.port_layer
            .create(fresh("volume://volumes/parent"))
            .await
            .unwrap();
        let refused = node
            .port_layer
            .create(fresh(volume.as_str()).parent(id("volume://volumes/parent")))
            .await;
        assert!(
            matches!(refused, Err(CreateError::InvalidParent { .. })),
            "{refused:?}"
        );
    })
    .await;
}
