//! Volumes in a pool: bounds that hold, copies that share, and what a pool is after the host was away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use portlayer::archive::{Limits, TarBuilder};
use portlayer::element::{Checksum, VolumeSpec};
use portlayer::store::dir::DirStore;
use portlayer::store::{Store, StoreError};
use portlayer_runtime::mount;
use portlayer_runtime::pool::{Pool, PoolConfig};

use super::volume::{MIB, assert_kernel_is_clean, attach, detach, names, put, scratch, stream};

/// A store in a pool of so many bytes, and where that is mounted.
pub(super) fn pool(directory: &Path, bytes: u64, limits: Limits) -> (DirStore, PathBuf) {
    let pool = Pool::new(PoolConfig {
        file: directory.join("pool.btrfs"),
        mount: directory.join("pool"),
        bytes,
    });
    let at = pool.directory().to_owned();
    let store = DirStore::over(at.clone(), limits, Arc::new(pool));
    (store, at)
}

fn bound(size_bytes: u64) -> VolumeSpec {
    VolumeSpec {
        size_bytes,
        ..VolumeSpec::default()
    }
}

/// Writes until it is refused: by what, and what there was then.
fn fill(path: &Path) -> (Option<i32>, u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path.join("big")).unwrap();
    // What cannot be compressed or shared, so that it takes what it is.
    let mut piece = vec![0u8; 64 << 10];
    for _ in 0..1000 {
        fastrand::fill(&mut piece);
        let written = file.write_all(&piece).and_then(|()| file.sync_data());
        if let Err(error) = written {
            let size = path.join("big").metadata().unwrap().len();
            return (error.raw_os_error(), size);
        }
    }
    (None, 64_000 << 10)
}

fn content(bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    fastrand::fill(&mut content);
    TarBuilder::new().file("content", 0o644, &content).finish()
}

#[tokio::test]
async fn a_bound_holds_and_more_data_than_it_makes_no_volume() {
    let directory = scratch();
    let (store, at) = pool(directory.path(), 256 * MIB, Limits::default());
    let quota = Some(Errno::EDQUOT as i32);
    let (volume, _) = put(&store, "volume://pool/v", bound(8 * MIB), None, None)
        .await
        .unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    let (refused, size) = fill(&path);
    assert_eq!(refused, quota);
    assert!((6 * MIB..=8 * MIB).contains(&size), "{size}");
    // Others have what they had, and one without a bound has all of the pool.
    let (free, _) = put(&store, "volume://pool/free", bound(0), None, None)
        .await
        .unwrap();
    let other = attach(&store, &free, "executor://node/a").await;
    assert_eq!(fill(&other), (None, 64_000 << 10));
    // Room that was freed can be used again.
    std::fs::remove_file(path.join("big")).unwrap();
    assert!(fill(&path).1 >= 6 * MIB);
    for wanted in [2 * MIB, 4096] {
        let data = stream(content(4 << 20));
        let refused = put(&store, "volume://pool/w", bound(wanted), None, Some(data)).await;
        assert!(
            matches!(refused, Err(StoreError::InsufficientSpace { .. })),
            "{refused:?}"
        );
    }
    for (volume, user) in [(&volume, "executor://node/a"), (&free, "executor://node/a")] {
        detach(&store, volume, user).await;
        store.remove(&volume.id, &Default::default()).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(names(&at.join("init")), Vec::<String>::new());
    mount::unmount(&at).unwrap();
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_volume_from_another_shares_it_and_has_a_bound_of_its_own() {
    let directory = scratch();
    let (store, at) = pool(directory.path(), 256 * MIB, Limits::default());
    let data = content(32 << 20);
    let sum = Checksum::of(&data);
    let made = put(
        &store,
        "volume://pool/a",
        bound(0),
        None,
        Some(stream(data)),
    )
    .await;
    let (parent, stored) = made.unwrap();
    assert_eq!(stored.checksum, Some(sum));
    let free = || mount::available_bytes(&at).unwrap();
    let before = free();
    let made = put(
        &store,
        "volume://pool/b",
        bound(40 * MIB),
        Some(&parent),
        None,
    )
    .await;
    let (child, _) = made.unwrap();
    assert!(before - free() < MIB, "its blocks are the parent's");
    let (old, new) = (
        attach(&store, &parent, "executor://node/a").await,
        attach(&store, &child, "executor://node/a").await,
    );
    let read = |path: &Path| std::fs::read(path.join("content")).unwrap();
    assert!(read(&old) == read(&new));
    std::fs::write(new.join("content"), "changed").unwrap();
    assert_eq!(read(&old).len(), 32 << 20);
    let refused = put(
        &store,
        "volume://pool/c",
        bound(8 * MIB),
        Some(&parent),
        None,
    )
    .await;
    assert!(
        matches!(refused, Err(StoreError::InsufficientSpace { need_bytes, .. }) if need_bytes >= 32 * MIB),
        "{refused:?}"
    );
    let room = |bytes| store.ensure_freespace(&child, bytes);
    assert!(room(MIB).await.is_ok());
    assert!(matches!(
        room(64 * MIB).await,
        Err(StoreError::InsufficientSpace { .. })
    ));
    for volume in [&parent, &child] {
        store.remove(&volume.id, &Default::default()).await.unwrap();
    }
    mount::unmount(&at).unwrap();
    assert_kernel_is_clean(directory.path()).await;
}

#[tokio::test]
async fn a_pool_is_found_again_and_grows() {
    let directory = scratch();
    let (store, at) = pool(directory.path(), 256 * MIB, Limits::default());
    let made = put(&store, "volume://pool/v", bound(8 * MIB), None, None).await;
    let (volume, _) = made.unwrap();
    let path = attach(&store, &volume, "executor://node/a").await;
    std::fs::write(path.join("kept"), "kept").unwrap();
    drop(store);
    // As after a start of the host.
    mount::unmount(&at).unwrap();
    assert_kernel_is_clean(directory.path()).await;
    let (store, _) = pool(directory.path(), 512 * MIB, Limits::default());
    let path = attach(&store, &volume, "executor://node/b").await;
    assert_eq!(std::fs::read(path.join("kept")).unwrap(), b"kept");
    assert_eq!(fill(&path).0, Some(Errno::EDQUOT as i32));
    assert!(mount::available_bytes(&at).unwrap() > 300 * MIB);
    store.remove(&volume.id, &Default::default()).await.unwrap();
    mount::unmount(&at).unwrap();
    let (small, _) = pool(&directory.path().join("small"), MIB, Limits::default());
    assert!(
        matches!(small.health().await, Err(StoreError::Unavailable(why)) if why.contains("insufficient space"))
    );
    assert_kernel_is_clean(directory.path()).await;
}
