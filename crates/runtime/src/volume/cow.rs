//! Volumes as containerd snapshots: copy-on-write from an image, empty, or a copy of another volume.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::types::Mount;
use portlayer::archive::{ExtractOptions, Limits};
use portlayer::element::{Body, DataStream, ElementId, Record, StoreKeys};
use portlayer::store::{MountSource, Put, Store, StoreCapabilities, StoreError, Stored};

use super::populate::{Filled, fill, read_out, set_root};
use super::{spec_in, spec_of};
use crate::connection::Connection;
use crate::image::{KEY_SNAPSHOT, KEY_SNAPSHOTTER, blocking};
use crate::mount::{Attachments, available_bytes, mount_all};
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
}

impl CowVolumes {
    /// A store over a connection. Nothing is called yet.
    pub fn new(connection: Connection, config: CowConfig) -> CowVolumes {
        let attachments = Attachments::new(&config.mounts);
        CowVolumes {
            connection,
            config,
            attachments,
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
    async fn attach_for(&self, digest_hex: &str, user: &str) -> Result<PathBuf, StoreError> {
        let mounts = self.mounts(digest_hex).await?;
        let (attachments, volume, user) = (
            self.attachments.clone(),
            digest_hex.to_owned(),
            user.to_owned(),
        );
        blocking("mount volume", move || {
            attachments.attach(&volume, &user, |target| mount_all(&mounts, target))
        })
        .await?
    }

    async fn detach_for(&self, digest_hex: &str, user: &str) -> Result<(), StoreError> {
        let (attachments, volume, user) = (
            self.attachments.clone(),
            digest_hex.to_owned(),
            user.to_owned(),
        );
        blocking("unmount volume", move || attachments.detach(&volume, &user)).await?
    }

    async fn destroy(&self, digest_hex: &str) -> Result<(), StoreError> {
        let (attachments, volume) = (self.attachments.clone(), digest_hex.to_owned());
        blocking("unmount volume", move || attachments.release(&volume)).await??;
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

    /// The committed snapshot to start from, and the volume to copy.
    fn origin(&self, parent: Option<&Record>) -> Result<(String, Option<String>), StoreError> {
        let Some(parent) = parent else {
            return Ok((String::new(), None));
        };
        match &parent.body {
            Body::Image(image) => {
                let same = image
                    .keys
                    .get(KEY_SNAPSHOTTER)
                    .is_none_or(|s| s == self.connection.snapshotter());
                if !same {
                    return Err(StoreError::InvalidParent(
                        "its snapshots are in another snapshotter",
                    ));
                }
                Ok((
                    image.keys.get(KEY_SNAPSHOT).cloned().unwrap_or_default(),
                    None,
                ))
            }
            Body::Volume(_) => Ok((String::new(), Some(parent.id.digest_hex()))),
            _ => Err(StoreError::InvalidParent("neither an image nor a volume")),
        }
    }

    async fn populate(
        &self,
        put: &mut Put<'_>,
        copy_of: Option<String>,
        based: bool,
    ) -> Result<Filled, StoreError> {
        let spec = spec_of(put.spec)?.clone();
        let digest_hex = put.id.digest_hex();
        let path = self.attach_for(&digest_hex, "put").await?;
        let mut filled = Filled::default();
        if let Some(source) = &copy_of {
            let user = format!("copy-{}", &digest_hex[..16]);
            let from = self.attach_for(source, &user).await?;
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
            };
            let stream = read_out(from, || Ok(()));
            let copied = fill(&path, stream, None, options, None).await;
            let released = self.detach_for(source, &user).await;
            copied?;
            released?;
        }
        if let Some(data) = put.data.take() {
            let options = ExtractOptions {
                limits: self.config.limits,
                keep_setid: false,
            };
            filled = fill(&path, data, put.checksum, options, put.progress.clone()).await?;
        }
        let has_content = based || copy_of.is_some() || filled.checksum.is_some();
        blocking("set owner and mode", move || {
            set_root(&path, &spec, has_content)
        })
        .await??;
        self.detach_for(&digest_hex, "put").await?;
        Ok(filled)
    }
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
        self.origin(Some(parent)).is_ok()
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        let spec = spec_of(put.spec)?;
        if spec.size_bytes > 0 {
            return Err(StoreError::Unsupported("a bound on a copy-on-write volume"));
        }
        let freespace = spec.freespace_bytes;
        self.room_for(freespace).await?;
        let (parent, copy_of) = self.origin(put.parent)?;
        let digest_hex = put.id.digest_hex();
        let key = Self::key(&digest_hex);
        self.destroy(&digest_hex).await?;
        let mut labels: HashMap<String, String> =
            snapshot::labels(&self.config.location, put.id.as_str());
        labels.insert(GC_ROOT.to_owned(), jiff::Timestamp::now().to_string());
        match Snapshots(&self.connection)
            .prepare(None, &key, &parent, labels)
            .await?
        {
            Made::New(_) => {}
            Made::Exists => return Err(StoreError::InUse("another put makes the same volume")),
        }
        let result = match self.populate(&mut put, copy_of, !parent.is_empty()).await {
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
                if let Err(undo) = self.destroy(&digest_hex).await {
                    tracing::warn!(id = %put.id, %undo, "a volume that failed to fill could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        self.destroy(&id.digest_hex()).await
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        spec_in(record)?;
        let digest_hex = record.id.digest_hex();
        let path = self.attach_for(&digest_hex, "export").await?;
        let attachments = self.attachments.clone();
        Ok(read_out(path, move || {
            attachments.detach(&digest_hex, "export")
        }))
    }

    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        let path = self
            .attach_for(&record.id.digest_hex(), &executor.digest_hex())
            .await?;
        Ok(MountSource::Path(path))
    }

    async fn detach(
        &self,
        id: &ElementId,
        _keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError> {
        self.detach_for(&id.digest_hex(), &executor.digest_hex())
            .await
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
        self.destroy(digest_hex).await
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
