use std::io::Cursor;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::archive::TarBuilder;
use crate::store::suite;

fn store(root: &Path) -> DirStore {
    DirStore::open(root, Limits::default()).unwrap()
}

fn id(name: &str) -> ElementId {
    ElementId::new(Kind::Volume, "dirs", name).unwrap()
}

async fn put(
    store: &DirStore,
    name: &str,
    spec: VolumeSpec,
    data: Option<Vec<u8>>,
) -> Result<Stored, StoreError> {
    let id = id(name);
    store
        .put(Put {
            id: &id,
            spec: &Spec::Volume(spec),
            parent: None,
            data: data.map(|bytes| Box::pin(Cursor::new(bytes)) as _),
            checksum: None,
            progress: None,
        })
        .await
}

#[tokio::test]
async fn passes_the_suite() {
    let root = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    suite::check(async || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        store(&root.path().join(number.to_string()))
    })
    .await;
}

#[tokio::test]
async fn the_root_has_the_owner_and_mode_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let spec = VolumeSpec {
        uid: 1234,
        gid: 5678,
        mode: Some(0o1770),
        ..VolumeSpec::default()
    };
    put(&store, "v", spec, None).await.unwrap();
    let made = fs::metadata(store.inner.volume(&id("v").digest_hex())).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o7777),
        (1234, 5678, 0o1770)
    );
    put(&store, "plain", VolumeSpec::default(), None)
        .await
        .unwrap();
    let plain = fs::metadata(store.inner.volume(&id("plain").digest_hex())).unwrap();
    assert_eq!((plain.uid(), plain.mode() & 0o7777), (0, 0o755));
}

#[tokio::test]
async fn a_hostile_archive_is_refused_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let tar = TarBuilder::new().file("../escape", 0o644, b"x").finish();
    let refused = put(&store, "bad", VolumeSpec::default(), Some(tar)).await;
    assert!(matches!(refused, Err(StoreError::Archive { .. })));
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    assert!(!root.path().join("init/escape").exists());
}

#[tokio::test]
async fn what_cannot_be_promised_is_refused_before_anything_is_made() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let bounded = VolumeSpec {
        size_bytes: 1 << 20,
        ..VolumeSpec::default()
    };
    assert!(matches!(
        put(&store, "b", bounded, None).await,
        Err(StoreError::Unsupported(_))
    ));
    let vast = VolumeSpec {
        freespace_bytes: i64::MAX.unsigned_abs(),
        ..VolumeSpec::default()
    };
    let refused = put(&store, "f", vast, None).await;
    assert!(
        matches!(refused, Err(StoreError::InsufficientSpace { need_bytes, have_bytes }) if need_bytes > have_bytes)
    );
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn half_made_volumes_of_an_earlier_start_are_listed_and_swept() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let digest = id("half").digest_hex();
    fs::create_dir(store.inner.init().join(format!("{digest}.1-0"))).unwrap();
    assert_eq!(store.list().await.unwrap(), std::slice::from_ref(&digest));
    store.sweep(&digest).await.unwrap();
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_is_no_digest_steers_no_path() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    fs::create_dir(root.path().join("precious")).unwrap();
    assert!(store.sweep("../precious").await.is_err());
    assert!(root.path().join("precious").exists());
}

#[tokio::test]
async fn a_root_that_went_away_is_unhealthy() {
    let root = tempfile::tempdir().unwrap();
    let store = store(&root.path().join("store"));
    store.health().await.unwrap();
    fs::remove_dir_all(root.path().join("store")).unwrap();
    assert!(matches!(
        store.health().await,
        Err(StoreError::Unavailable(_))
    ));
}
