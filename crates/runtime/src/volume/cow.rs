//! Volumes as containerd snapshots: copy-on-write from an image, empty, or a copy of another volume.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::types::Mount;
use portlayer::archive::{ExtractOptions, Limits};
use portlayer::element::{Body, DataStream, ElementId, Record, StoreKeys};
use portlayer::store::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};

use super::locks::{Held, Locks};
use super::populate::{Filled, fill, read_out, set_root};
use super::{spec_in, spec_of};
use crate::connection::Connection;
use crate::image::{KEY_SNAPSHOT, KEY_SNAPSHOTTER, blocking};
use crate::mount::{Attachments, User, available_bytes, mount_all};
use crate::snapshot::{self, GC_ROOT, Made, Snapshots};

/// Record key: the volume's snapshot.
const KEY_VOLUME: &str = "volume_snapshot";

/// Settings of a copy-on-write location.
#[derive(Debug, Clone)]
pub struct CowConfig {
    /// The location's name.
    pub location: String,
    /// Where volumes are mounted, below our state directory.
    pub mounts: PathBuf,
    /// A path on the file system that holds containerd's snapshots; asked for free space.
    pub space: PathBuf,
    /// What a data stream may cost.
    pub limits: Limits,
}

/// Volumes over containerd's snapshotter.
#[derive(Debug, Clone)]
pub struct CowVolumes {
    connection: Connection,
    config: CowConfig,
    attachments: Attachments,
    locks: Locks,
    /// Tells exports of one volume apart.
    exports: Arc<AtomicU64>,
}

impl CowVolumes {
    /// A store over a connection. Nothing is called yet.
    pub fn new(connection: Connection, config: CowConfig) -> CowVolumes {
        let attachments = Attachments::new(&config.mounts);
        CowVolumes {
            connection,
            config,
            attachments,
            locks: Locks::default(),
            exports: Arc::default(),
        }
    }

    fn key(digest_hex: &str) -> String {
        format!("pl-vol-{digest_hex}")
    }

    async fn mounts(&self, digest_hex: &str) -> Result<Vec<Mount>, StoreError> {
        let key = Self::key(digest_hex);
        let mounts = Snapshots(&self.connection).mounts(&key).await?;
        mounts.ok_or(StoreError::Missing(format!("snapshot {key}")))
    }

    /// Mounts for one user (an executor, or a job of ours).
    async fn attach_for(
        &self,
        digest_hex: &str,
        user: &User,
        held: Held,
    ) -> Result<PathBuf, StoreError> {
        let mounts = self.mounts(digest_hex).await?;
        let (attachments, volume, user) = (
            self.attachments.clone(),
            digest_hex.to_owned(),
            user.clone(),
        );
        blocking("mount volume", move || {
            let _held = held;
            attachments.attach(&volume, &user, |target| mount_all(&mounts, target))
        })
        .await?
    }

    async fn detach_for(
        &self,
        digest_hex: &str,
        user: &User,
        held: Held,
    ) -> Result<(), StoreError> {
        let (attachments, volume, user) = (
            self.attachments.clone(),
            digest_hex.to_owned(),
            user.clone(),
        );
        blocking("unmount volume", move || {
            let _held = held;
            attachments.detach(&volume, &user)
        })
        .await?
    }

    async fn destroy(&self, digest_hex: &str, held: Held) -> Result<(), StoreError> {
        let (attachments, volume) = (self.attachments.clone(), digest_hex.to_owned());
        blocking("unmount volume", move || {
            let _held = held;
            attachments.release(&volume)
        })
        .await??;
        Snapshots(&self.connection)
            .remove(&Self::key(digest_hex))
            .await
    }

    async fn room_for(&self, need_bytes: u64) -> Result<(), StoreError> {
        let path = self.config.space.clone();
        let have_bytes = blocking("look at free space", move || available_bytes(&path)).await??;
        if have_bytes < need_bytes {
            return Err(StoreError::InsufficientSpace {
                need_bytes,
                have_bytes,
            });
        }
        Ok(())
    }

    /// What a child of this parent starts from; `None` when our backing has nothing of it.
    fn origin(&self, parent: &Record) -> Option<Origin> {
        match &parent.body {
            Body::Image(image) => {
                let ours = image
                    .keys
                    .get(KEY_SNAPSHOTTER)
                    .is_none_or(|s| s == self.connection.snapshotter());
                ours.then(|| {
                    Origin::Snapshot(image.keys.get(KEY_SNAPSHOT).cloned().unwrap_or_default())
                })
            }
            Body::Volume(volume) => {
                let digest_hex = parent.id.digest_hex();
                (volume.keys.get(KEY_VOLUME) == Some(&Self::key(&digest_hex)))
                    .then_some(Origin::Copy(digest_hex))
            }
            _ => None,
        }
    }

    async fn copy(
        &self,
        source: &str,
        digest_hex: &str,
        path: &Path,
        held: &Held,
    ) -> Result<(), StoreError> {
        let user = User::Job(format!("copy to {digest_hex}"));
        let source_held = self.locks.hold(source).await;
        let from = self.attach_for(source, &user, source_held.clone()).await?;
        // Our own archive of a tree that is there already: no limits, and setuid files stay what they are.
        let limits = Limits {
            bytes: u64::MAX,
            entries: u64::MAX,
            depth: usize::MAX,
            ..self.config.limits
        };
        let options = ExtractOptions {
            limits,
            keep_setid: true,
            ..ExtractOptions::default()
        };
        let stream = read_out(from, || Ok(()));
        let copied = fill(path, stream, None, options, None, held.clone()).await;
        let released = self.detach_for(source, &user, source_held).await;
        copied?;
        released
    }

    async fn populate(
        &self,
        put: &mut Put<'_>,
        origin: &Origin,
        held: &Held,
    ) -> Result<Filled, StoreError> {
        let spec = spec_of(put.spec)?.clone();
        let digest_hex = put.id.digest_hex();
        let path = self
            .attach_for(&digest_hex, &job("put"), held.clone())
            .await?;
        let mut filled = Filled::default();
        if let Origin::Copy(source) = origin {
            self.copy(source, &digest_hex, &path, held).await?;
        }
        if let Some(data) = put.data.take() {
            // What is copied from a parent keeps its setuid files; a caller's archive does not bring any.
            let options = ExtractOptions {
                limits: self.config.limits,
                keep_setid: put.parent.is_some(),
                ..ExtractOptions::default()
            };
            filled = fill(
                &path,
                data,
                put.checksum,
                options,
                put.progress.clone(),
                held.clone(),
            )
            .await?;
        }
        let has_content = *origin != Origin::Snapshot(String::new()) || filled.checksum.is_some();
        blocking("set owner and mode", move || {
            set_root(&path, &spec, has_content)
        })
        .await??;
        self.detach_for(&digest_hex, &job("put"), held.clone())
            .await?;
        Ok(filled)
    }
}

fn job(name: &str) -> User {
    User::Job(name.to_owned())
}

/// What a new volume starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A committed snapshot; empty text = nothing.
    Snapshot(String),
    /// A copy of the volume with this digest.
    Copy(String),
}

#[async_trait]
impl Store for CowVolumes {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: true,
            parent_volume: true,
            data: true,
            bounded: false,
            persistent: true,
        }
    }

    fn shares_backing(&self, parent: &Record) -> bool {
        self.origin(parent).is_some()
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        let spec = spec_of(put.spec)?;
        if spec.size_bytes > 0 {
            return Err(StoreError::Unsupported("a bound on a copy-on-write volume"));
        }
        let freespace = spec.freespace_bytes;
        self.room_for(freespace).await?;
        let origin = match put.parent {
            None => Origin::Snapshot(String::new()),
            Some(parent) => match self.origin(parent) {
                Some(origin) => origin,
                None if put.data.is_some() => Origin::Snapshot(String::new()),
                None => {
                    return Err(StoreError::InvalidParent(
                        "its file system is neither here nor was it given",
                    ));
                }
            },
        };
        let digest_hex = put.id.digest_hex();
        let held = self.locks.hold(&digest_hex).await;
        let key = Self::key(&digest_hex);
        self.destroy(&digest_hex, held.clone()).await?;
        let mut labels: HashMap<String, String> =
            snapshot::labels(&self.config.location, put.id.as_str());
        labels.insert(GC_ROOT.to_owned(), jiff::Timestamp::now().to_string());
        let parent = match &origin {
            Origin::Snapshot(name) => name,
            Origin::Copy(_) => "",
        };
        match Snapshots(&self.connection)
            .prepare(None, &key, parent, labels)
            .await?
        {
            Made::New(_) => {}
            Made::Exists => return Err(StoreError::InUse("another put makes the same volume")),
        }
        let result = match self.populate(&mut put, &origin, &held).await {
            Ok(filled) => self.room_for(freespace).await.map(|()| filled),
            Err(error) => Err(error),
        };
        match result {
            Ok(filled) => Ok(Stored {
                keys: StoreKeys::from([
                    (KEY_VOLUME.to_owned(), key),
                    (
                        KEY_SNAPSHOTTER.to_owned(),
                        self.connection.snapshotter().to_owned(),
                    ),
                ]),
                checksum: filled.checksum,
                size: filled.size,
                ..Stored::default()
            }),
            Err(error) => {
                if let Err(undo) = self.destroy(&digest_hex, held).await {
                    tracing::warn!(id = %put.id, %undo, "a volume that failed to fill could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        self.sweep(&id.digest_hex()).await
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        spec_in(record)?;
        let digest_hex = record.id.digest_hex();
        let held = self.locks.hold(&digest_hex).await;
        let user = User::Job(format!(
            "export {}",
            self.exports.fetch_add(1, Ordering::Relaxed)
        ));
        let path = self.attach_for(&digest_hex, &user, held).await?;
        let attachments = self.attachments.clone();
        Ok(read_out(path, move || {
            attachments.detach(&digest_hex, &user)
        }))
    }

    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let digest_hex = record.id.digest_hex();
        let held = self.locks.hold(&digest_hex).await;
        let user = User::Executor(executor.digest_hex());
        let path = self.attach_for(&digest_hex, &user, held).await?;
        Ok(MountSource::Path(path))
    }

    async fn detach(
        &self,
        id: &ElementId,
        _keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError> {
        let digest_hex = id.digest_hex();
        let held = self.locks.hold(&digest_hex).await;
        self.detach_for(&digest_hex, &User::Executor(executor.digest_hex()), held)
            .await
    }

    async fn detach_leftovers(&self, used: &BTreeSet<(String, String)>) -> Result<(), StoreError> {
        let (attachments, used) = (self.attachments.clone(), used.clone());
        blocking("unmount volumes", move || {
            attachments.release_leftovers(&used)
        })
        .await?
    }

    async fn ensure_freespace(
        &self,
        _record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        self.room_for(freespace_bytes).await
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        let keys = Snapshots(&self.connection)
            .of_location(&self.config.location)
            .await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| key.strip_prefix("pl-vol-").map(str::to_owned))
            .collect())
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        let held = self.locks.hold(digest_hex).await;
        self.destroy(digest_hex, held).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let snapshots = Snapshots(&self.connection);
        match tokio::time::timeout(Duration::from_secs(3), snapshots.exists("portlayer-health"))
            .await
        {
            Ok(result) => result.map(drop),
            Err(_) => Err(StoreError::Unavailable(
                "containerd does not answer".to_owned(),
            )),
        }
    }
}
