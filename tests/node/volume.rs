//! Volumes on a real containerd and kernel: each backing, its bounds, and nothing left behind.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portlayer::archive::corpus::{self, Verdict};
use portlayer::archive::{Limits, TarBuilder};
use portlayer::element::{Body, Checksum, DataStream, Record, Spec, VolumeBody, VolumeSpec};
use portlayer::store::{MountSource, Put, Store, StoreError, Stored};
use portlayer_runtime::connection::Connection;
use portlayer_runtime::mount;
use portlayer_runtime::volume::{
    BlockConfig, BlockVolumes, CowConfig, CowVolumes, DirectoryMount, KernelNfs, NfsConfig,
    NfsVolumes, TmpfsVolumes,
};

use super::image::{holdings, id, image_store, put_image, record};
use super::pool::pool;
use crate::support::node::Node;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn stream(bytes: Vec<u8>) -> DataStream {
    Box::pin(std::io::Cursor::new(bytes))
}

pub(super) async fn put(
    store: &dyn Store,
    name: &str,
    spec: VolumeSpec,
    parent: Option<&Record>,
    data: Option<DataStream>,
) -> Result<(Record, Stored), StoreError> {
    let id = id(name);
    let wrapped = Spec::Volume(spec.clone());
    let put = Put {
        id: &id,
        spec: &wrapped,
        parent,
        data,
        checksum: None,
        progress: None,
    };
    let stored = store.put(put).await?;
    let body = VolumeBody {
        spec,
        keys: stored.keys.clone(),
    };
    Ok((record(&id, Body::Volume(Box::new(body))), stored))
}

pub(super) async fn attach(store: &dyn Store, volume: &Record, executor: &str) -> PathBuf {
    match store.attach(volume, &id(executor)).await.unwrap() {
        MountSource::Path(path) => path,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn detach(store: &dyn Store, volume: &Record, executor: &str) {
    store
        .detach(&volume.id, &Default::default(), &id(executor))
        .await
        .unwrap();
}

pub(super) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Mounts and loop devices below a directory.
fn kernel_holdings(directory: &Path) -> Vec<String> {
    let text = directory.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> = mounts
        .lines()
        .filter(|l| l.contains(text))
        .map(str::to_owned)
        .collect();
    for device in std::fs::read_dir("/sys/block").unwrap() {
        let backing = device.unwrap().path().join("loop/backing_file");
        if let Ok(file) = std::fs::read_to_string(backing)
            && file.contains(text)
        {
            found.push(file);
        }
    }
    found
}

/// The kernel frees a loop device a moment after the unmount.
pub(super) async fn assert_kernel_is_clean(directory: &Path) {
    for _ in 0..100 {
        if kernel_holdings(directory).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left behind: {:?}", kernel_holdings(directory));
}

fn cow(node: &mut Node) -> CowVolumes {
    let directory = node.directory().to_owned();
    let config = CowConfig {
        location: "vols".to_owned(),
        mounts: directory.join("mounts"),
        space: directory,
        limits: corpus::limits(),
    };
    CowVolumes::new(Connection::new(node.engine().client(), "overlayfs"), config)
}

fn block(directory: &Path) -> BlockVolumes {
    BlockVolumes::new(BlockConfig {
        directory: directory.join("block"),
        mounts: directory.join("mounts"),
        limits: corpus::limits(),
        default_bytes: 16 * MIB,
    })
    .unwrap()
}

pub(super) fn scratch() -> tempfile::TempDir {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts and needs root"
    );
    tempfile::Builder::new()
        .prefix("pl-vol-")
        .tempdir_in("/var/tmp")
        .unwrap()
}

fn sample() -> Vec<u8> {
    TarBuilder::new()
        .dir("./", 0o750)
        .dir("etc", 0o755)
        .owner(1000, 1000)
        .file("etc/f", 0o640, b"content")
        .symlink("abs", "/etc")
        .file("abs/through", 0o4755, b"link")
        .finish()
}

#[tokio::test]
async fn a_fresh_volume_is_empty_and_shared_by_its_users() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let store = cow(&mut node);
    let spec = VolumeSpec {
        uid: 1000,
        gid: 100,
        ..VolumeSpec::default()
    };
    let (volume, _) = put(&store, "volume://vols/data", spec, None, None)
        .await
        .unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    assert_eq!(attach(&store, &volume, "executor://node/b").await, path);
    let meta = path.metadata().unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o755, 1000, 100)
    );
    assert_eq!(names(&path), Vec::<String>::new());
    std::fs::write(path.join("file"), "kept").unwrap();
    detach(&store, &volume, "executor://node/a").await;
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "kept");
    detach(&store, &volume, "executor://node/b").await;
    detach(&store, &volume, "executor://node/b").await;
    assert!(!path.exists());
    let again = attach(&store, &volume, "executor://node/c").await;
    assert_eq!(std::fs::read_to_string(again.join("file")).unwrap(), "kept");
    detach(&store, &volume, "executor://node/c").await;
    assert_eq!(store.list().await.unwrap(), [volume.id.digest_hex()]);
    store.remove(&volume.id, &Default::default()).await.unwrap();
    store.remove(&volume.id, &Default::default()).await.unwrap();
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    assert!(matches!(
        store.attach(&volume, &id("executor://node/c")).await,
        Err(StoreError::Missing(_))
    ));
    assert_eq!(holdings(&mut node), before);
    assert_kernel_is_clean(&node.directory().join("mounts")).await;
    node.end().await;
}

#[tokio::test]
async fn a_volume_from_an_image_is_a_copy_on_write_and_outlives_it() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let images = image_store(&mut node);
    let (image, stored) = put_image(&images, "image://images/app", None, Some(sample()))
        .await
        .unwrap();
    let store = cow(&mut node);
    assert!(store.shares_backing(&image));
    let (seeded, _) = put(
        &store,
        "volume://vols/seeded",
        VolumeSpec::default(),
        Some(&image),
        None,
    )
    .await
    .unwrap();
    let path = attach(&store, &seeded, "executor://node/a").await;
    assert_eq!(std::fs::read(path.join("etc/f")).unwrap(), b"content");
    std::fs::write(path.join("etc/f"), "changed").unwrap();
    detach(&store, &seeded, "executor://node/a").await;

    // The image is as it was, and may go: the volume keeps the layers it stands on.
    let (other, _) = put(
        &store,
        "volume://vols/other",
        VolumeSpec::default(),
        Some(&image),
        None,
    )
    .await
    .unwrap();
    images.remove(&image.id, &stored.keys).await.unwrap();
    let path = attach(&store, &other, "executor://node/a").await;
    assert_eq!(std::fs::read(path.join("etc/f")).unwrap(), b"content");
    detach(&store, &other, "executor://node/a").await;

    let (copy, _) = put(
        &store,
        "volume://vols/copy",
        VolumeSpec::default(),
        Some(&seeded),
        None,
    )
    .await
    .unwrap();
    store.remove(&seeded.id, &Default::default()).await.unwrap();
    let path = attach(&store, &copy, "executor://node/a").await;
    assert_eq!(std::fs::read(path.join("etc/f")).unwrap(), b"changed");
    assert_eq!(path.join("etc/f").metadata().unwrap().uid(), 1000);
    detach(&store, &copy, "executor://node/a").await;
    for volume in [&copy, &other] {
        store.remove(&volume.id, &Default::default()).await.unwrap();
    }
    // Snapshots of a removed image go with the last one that stands on them, at the engine's next collection.
    let (again, stored) = put_image(&images, "image://images/again", None, Some(sample()))
        .await
        .unwrap();
    images.remove(&again.id, &stored.keys).await.unwrap();
    assert_eq!(holdings(&mut node), before);
    assert_kernel_is_clean(&node.directory().join("mounts")).await;
    node.end().await;
}

#[tokio::test]
async fn hostile_data_makes_no_volume_in_any_backing() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let directory = scratch();
    let export = directory.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let nfs = NfsVolumes::new(
        nfs_config(directory.path()),
        Arc::new(DirectoryMount(export)),
    );
    let (subvolumes, pool_at) = pool(directory.path(), 256 * MIB, corpus::limits());
    let stores: [(&str, Box<dyn Store>); 4] = [
        ("cow", Box::new(cow(&mut node))),
        ("block", Box::new(block(directory.path()))),
        ("nfs", Box::new(nfs.clone())),
        ("pool", Box::new(subvolumes)),
    ];
    for case in corpus::cases() {
        for (name, store) in &stores {
            // A file system is made for every one of these: the refused ones are enough.
            if *name == "block" && case.verdict != Verdict::Refused {
                continue;
            }
            let data = stream(case.archive.clone());
            let result = put(
                store.as_ref(),
                "volume://vols/v",
                VolumeSpec::default(),
                None,
                Some(data),
            )
            .await;
            match (case.verdict, result) {
                (Verdict::Refused, Err(StoreError::Archive { .. })) => {}
                (Verdict::Refused, other) => panic!("{} in {name}: {other:?}", case.name),
                (_, Ok((volume, _))) => {
                    store.remove(&volume.id, &Default::default()).await.unwrap()
                }
                (_, Err(e)) => panic!("{} in {name}: {e:?}", case.name),
            }
            assert_eq!(
                store.list().await.unwrap(),
                Vec::<String>::new(),
                "{} in {name}",
                case.name
            );
        }
    }
    assert!(!Path::new("/tmp/portlayer-escape").exists());
    nfs.close().await.unwrap();
    mount::unmount(&pool_at).unwrap();
    assert_eq!(holdings(&mut node), before);
    assert_kernel_is_clean(directory.path()).await;
    assert_kernel_is_clean(&node.directory().join("mounts")).await;
    node.end().await;
}

#[tokio::test]
async fn a_checksum_is_that_of_the_whole_stream() {
    let directory = scratch();
    let store = block(directory.path());
    let volume = id("volume://vols/v");
    let spec = Spec::Volume(VolumeSpec::default());
    let make = |checksum| Put {
        id: &volume,
        spec: &spec,
        parent: None,
        data: Some(stream(sample())),
        checksum: Some(checksum),
        progress: None,
    };
    let wrong = store.put(make(Checksum::of(b"x"))).await;
    assert!(matches!(wrong, Err(StoreError::ChecksumMismatch { .. })));
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    let stored = store.put(make(Checksum::of(&sample()))).await.unwrap();
    assert_eq!(stored.size, sample().len() as u64);
    store.remove(&volume, &stored.keys).await.unwrap();
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_block_volume_is_bounded_and_says_so() {
    let directory = scratch();
    let store = block(directory.path());
    let spec = VolumeSpec {
        size_bytes: 16 * MIB,
        ..VolumeSpec::default()
    };
    let (volume, _) = put(&store, "volume://vols/small", spec.clone(), None, None)
        .await
        .unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    assert_eq!(names(&path), Vec::<String>::new());
    let mut file = std::fs::File::create(path.join("big")).unwrap();
    let full = (0..64)
        .map(|_| file.write_all(&vec![1; 1 << 20]))
        .find_map(Result::err)
        .unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    let bound = store.ensure_freespace(&volume, 8 * MIB).await;
    assert!(matches!(bound, Err(StoreError::InUse(_))));
    detach(&store, &volume, "executor://node/a").await;
    let over = store.ensure_freespace(&volume, 8 * MIB).await;
    assert!(matches!(over, Err(StoreError::InsufficientSpace { .. })));
    store.remove(&volume.id, &Default::default()).await.unwrap();

    let noise: Vec<u8> = (0..6u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let big = TarBuilder::new().file("f", 0o644, &noise).finish();
    let tight = VolumeSpec {
        size_bytes: 5 * MIB,
        ..VolumeSpec::default()
    };
    let refused = put(
        &store,
        "volume://vols/tight",
        tight,
        None,
        Some(stream(big)),
    )
    .await;
    assert!(
        matches!(refused, Err(StoreError::InsufficientSpace { .. })),
        "{refused:?}"
    );
    let endless = VolumeSpec {
        freespace_bytes: 1 << 50,
        ..VolumeSpec::default()
    };
    let refused = put(&store, "volume://vols/endless", endless, None, None).await;
    assert!(matches!(refused, Err(StoreError::InsufficientSpace { .. })));
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_block_volume_has_the_free_space_asked_for_and_grows_when_unbound() {
    let mut node = Node::start().await;
    let images = image_store(&mut node);
    let (image, stored) = put_image(&images, "image://images/app", None, Some(sample()))
        .await
        .unwrap();
    let directory = scratch();
    let store = block(directory.path());
    assert!(!store.shares_backing(&image));
    let free = |path: &Path| {
        let stat = nix::sys::statvfs::statvfs(path).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    let spec = VolumeSpec {
        freespace_bytes: 16 * MIB,
        ..VolumeSpec::default()
    };
    let tree = images.export_tree(&image).await.unwrap();
    let (volume, _) = put(&store, "volume://vols/big", spec, Some(&image), Some(tree))
        .await
        .unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    assert!(free(&path) >= 16 * MIB);
    assert_eq!(std::fs::read(path.join("etc/f")).unwrap(), b"content");
    detach(&store, &volume, "executor://node/a").await;
    store.ensure_freespace(&volume, 64 * MIB).await.unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    assert!(free(&path) >= 64 * MIB);
    assert_eq!(names(&path), ["abs", "etc"]);
    assert_eq!(std::fs::read(path.join("etc/through")).unwrap(), b"link");
    // Through a restart of ours the user is remembered.
    let again = block(directory.path());
    assert!(matches!(
        again.ensure_freespace(&volume, 128 * MIB).await,
        Err(StoreError::InUse(_))
    ));
    detach(&again, &volume, "executor://node/a").await;
    store.remove(&volume.id, &Default::default()).await.unwrap();
    images.remove(&image.id, &stored.keys).await.unwrap();
    assert_kernel_is_clean(directory.path()).await;
    node.end().await;
}

fn nfs_config(directory: &Path) -> NfsConfig {
    NfsConfig {
        target: "nfs://192.0.2.1/export?uid=1000&gid=1000".parse().unwrap(),
        mount_point: directory.join("nfs"),
        deadline: Duration::from_secs(20),
        limits: corpus::limits(),
    }
}

#[tokio::test]
async fn an_nfs_volume_is_a_directory_of_the_export_and_takes_no_parent() {
    let directory = scratch();
    let export = directory.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let store = NfsVolumes::new(
        nfs_config(directory.path()),
        Arc::new(DirectoryMount(export.clone())),
    );
    let (volume, _) = put(
        &store,
        "volume://nfs/shared",
        VolumeSpec::default(),
        None,
        None,
    )
    .await
    .unwrap();
    let digest = volume.id.digest_hex();
    let note =
        std::fs::read_to_string(export.join("volumes_metadata").join(&digest).join("id")).unwrap();
    assert_eq!(note, volume.id.as_str());
    let path = attach(&store, &volume, "executor://node/a").await;
    assert_eq!(path.metadata().unwrap().uid(), 1000);
    std::fs::write(path.join("f"), "x").unwrap();
    assert_eq!(
        std::fs::read_to_string(export.join("volumes").join(&digest).join("f")).unwrap(),
        "x"
    );
    detach(&store, &volume, "executor://node/a").await;
    let parent = put(
        &store,
        "volume://nfs/x",
        VolumeSpec::default(),
        Some(&volume),
        None,
    )
    .await;
    assert!(matches!(parent, Err(StoreError::InvalidParent(_))));
    assert_eq!(store.list().await.unwrap(), [digest]);
    store.remove(&volume.id, &Default::default()).await.unwrap();
    assert_eq!(names(&export.join("volumes")), Vec::<String>::new());
    assert_eq!(
        names(&export.join("volumes_metadata")),
        Vec::<String>::new()
    );
    store.close().await.unwrap();
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_unavailable_location() {
    let directory = scratch();
    let mut config = nfs_config(directory.path());
    config.deadline = Duration::from_secs(3);
    let store = NfsVolumes::new(config, Arc::new(KernelNfs));
    let result = put(&store, "volume://nfs/v", VolumeSpec::default(), None, None).await;
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{result:?}"
    );
    assert!(matches!(
        store.health().await,
        Err(StoreError::Unavailable(_))
    ));
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_tmpfs_volume_is_nothing_but_a_size() {
    let spec = VolumeSpec {
        size_bytes: MIB,
        mode: Some(0o1777),
        ..VolumeSpec::default()
    };
    let (volume, _) = put(&TmpfsVolumes, "volume://tmp/t", spec.clone(), None, None)
        .await
        .unwrap();
    let source = TmpfsVolumes
        .attach(&volume, &id("executor://node/a"))
        .await
        .unwrap();
    assert_eq!(
        source,
        MountSource::Tmpfs {
            size_bytes: MIB,
            mode: 0o1777
        }
    );
    let from = put(&TmpfsVolumes, "volume://tmp/u", spec, Some(&volume), None).await;
    assert!(matches!(from, Err(StoreError::InvalidParent(_))));
    let data = put(
        &TmpfsVolumes,
        "volume://tmp/u",
        VolumeSpec::default(),
        None,
        Some(stream(sample())),
    )
    .await;
    assert!(matches!(data, Err(StoreError::Unsupported(_))));
    let over = TmpfsVolumes.ensure_freespace(&volume, 2 * MIB).await;
    assert!(matches!(over, Err(StoreError::InsufficientSpace { .. })));
}

#[tokio::test]
async fn a_volume_of_the_default_limits_takes_deep_trees() {
    let mut node = Node::start().await;
    let directory = node.directory().to_owned();
    let config = CowConfig {
        location: "vols".to_owned(),
        mounts: directory.join("mounts"),
        space: directory.clone(),
        limits: Limits::default(),
    };
    let store = CowVolumes::new(Connection::new(node.engine().client(), "overlayfs"), config);
    let deep = TarBuilder::new()
        .file(&format!("{}f", "d/".repeat(100)), 0o644, b"x")
        .finish();
    let (volume, _) = put(
        &store,
        "volume://vols/deep",
        VolumeSpec::default(),
        None,
        Some(stream(deep)),
    )
    .await
    .unwrap();
    let exported = super::image::read_all(store.export(&volume).await.unwrap()).await;
    let files = super::image::files(&exported);
    assert_eq!(files[&format!("{}f", "d/".repeat(100))], b"x");
    store.remove(&volume.id, &Default::default()).await.unwrap();
    assert_kernel_is_clean(&directory.join("mounts")).await;
    node.end().await;
}

#[tokio::test]
async fn every_backing_passes_the_checks_for_stores() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let directory = scratch();
    let snapshots = cow(&mut node);
    portlayer::store::suite::check(async || snapshots.clone()).await;
    let files = block(directory.path());
    portlayer::store::suite::check(async || files.clone()).await;
    let export = directory.path().join("export");
    std::fs::create_dir(&export).unwrap();
    let server = NfsVolumes::new(
        nfs_config(directory.path()),
        Arc::new(DirectoryMount(export)),
    );
    portlayer::store::suite::check(async || server.clone()).await;
    server.close().await.unwrap();
    let (subvolumes, pool_at) = pool(directory.path(), 256 * MIB, corpus::limits());
    portlayer::store::suite::check(async || subvolumes.clone()).await;
    mount::unmount(&pool_at).unwrap();
    assert_eq!(holdings(&mut node), before);
    assert_kernel_is_clean(directory.path()).await;
    assert_kernel_is_clean(&node.directory().join("mounts")).await;
    node.end().await;
}

#[tokio::test]
async fn a_put_that_is_dropped_while_its_stream_stalls_can_be_swept() {
    let mut node = Node::start().await;
    let before = holdings(&mut node);
    let directory = scratch();
    let (subvolumes, pool_at) = pool(directory.path(), 256 * MIB, corpus::limits());
    let stores: [Box<dyn Store>; 3] = [
        Box::new(cow(&mut node)),
        Box::new(block(directory.path())),
        Box::new(subvolumes),
    ];
    for store in stores {
        let (mut feed, data) = tokio::io::duplex(64);
        {
            let making = put(
                store.as_ref(),
                "volume://vols/v",
                VolumeSpec::default(),
                None,
                Some(Box::pin(data)),
            );
            tokio::pin!(making);
            let archive = sample();
            let sent = tokio::io::AsyncWriteExt::write_all(&mut feed, &archive[..600]);
            tokio::select! {
                done = &mut making => panic!("the stream has not ended: {done:?}"),
                sent = sent => sent.unwrap(),
            }
        }
        // The stream is still open: nobody feeds it, nobody ends it.
        store
            .sweep(&id("volume://vols/v").digest_hex())
            .await
            .unwrap();
        assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
        drop(feed);
    }
    mount::unmount(&pool_at).unwrap();
    assert_eq!(holdings(&mut node), before);
    assert_kernel_is_clean(directory.path()).await;
    assert_kernel_is_clean(&node.directory().join("mounts")).await;
    node.end().await;
}
