//! The image store: [`Store`] over containerd.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, Image as EngineImage, ListImagesRequest,
    UpdateImageRequest,
};
use containerd_client::tonic::Code;
use containerd_client::types::Descriptor;
use portlayer::element::{Body, DataStream, ElementId, ImageBody, Record, Spec, StoreKeys};
use portlayer::store::{
    MountSource, ProgressSink, Put, Store, StoreCapabilities, StoreError, Stored,
};

use super::archive::{self, Image, Parent, Part};
use super::config::ImageConfig;
use super::unpack::{Unpack, Unpacked};
use super::{
    ImageLimits, KEY_MANIFEST, KEY_SNAPSHOT, KEY_SNAPSHOTTER, blocking, content, export, spool,
};
use crate::connection::{Connection, failed};
use crate::mount::available_bytes;
use crate::snapshot::{self, Lease, Snapshots};

/// Settings of an image location.
#[derive(Debug, Clone)]
pub struct ImageStoreConfig {
    /// The location's name.
    pub location: String,
    /// A private directory (0700, ours alone) for data on its way in; on a disk, not in memory.
    pub staging: PathBuf,
    /// A path on the file system that holds containerd's snapshots; asked for free space.
    pub space: PathBuf,
    /// What an image may cost.
    pub limits: ImageLimits,
}

/// Images as containerd snapshots.
#[derive(Debug, Clone)]
pub struct ImageStore {
    connection: Connection,
    config: ImageStoreConfig,
}

impl ImageStore {
    /// A store over a connection. Nothing is called yet.
    pub fn new(connection: Connection, config: ImageStoreConfig) -> ImageStore {
        ImageStore { connection, config }
    }

    fn name(digest_hex: &str) -> String {
        format!("pl-{digest_hex}")
    }

    /// 73 characters; containerd takes 76.
    fn lease_name(digest_hex: &str) -> String {
        format!("pl-image-{digest_hex}")
    }

    fn labels(&self, id: &ElementId) -> HashMap<String, String> {
        snapshot::labels(&self.config.location, id.as_str())
    }

    async fn parent_documents(&self, parent: &ImageBody) -> Result<Option<Parent>, StoreError> {
        // Without a manifest it is the built-in empty image.
        let Some(digest) = parent.keys.get(KEY_MANIFEST) else {
            return Ok(None);
        };
        let manifest = content::read(&self.connection, digest).await?;
        let document: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let config = document["config"]["digest"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let config = content::read(&self.connection, &config).await?;
        Ok(Some(Parent { manifest, config }))
    }

    /// Everything that touches containerd, under a lease that is gone afterwards either way.
    async fn store(
        &self,
        id: &ElementId,
        progress: Option<&ProgressSink>,
        image: Image,
    ) -> Result<Unpacked, StoreError> {
        let digest_hex = id.digest_hex();
        let lease = Lease::create(
            &self.connection,
            &Self::lease_name(&digest_hex),
            self.labels(id),
        )
        .await?;
        let unpack = Unpack {
            connection: &self.connection,
            lease: &lease,
            labels: self.labels(id),
            progress,
        };
        let result = match unpack.run(image).await {
            Ok(unpacked) => self
                .register(id, &unpacked.manifest)
                .await
                .map(|()| unpacked),
            Err(error) => Err(error),
        };
        match (result, lease.delete().await) {
            (Ok(unpacked), Ok(())) => Ok(unpacked),
            (Ok(_), Err(error)) => {
                // Without a record the image is garbage: leave as little of it as we can.
                if let Err(undo) = self.unregister(&digest_hex).await {
                    tracing::warn!(id = %id, %undo, "an image that failed to store could not be removed");
                }
                Err(error)
            }
            (Err(error), undone) => {
                if let Err(undo) = undone {
                    tracing::warn!(id = %id, %undo, "the lease of a failed image could not be deleted");
                }
                Err(error)
            }
        }
    }

    async fn register(&self, id: &ElementId, manifest: &Descriptor) -> Result<(), StoreError> {
        let name = Self::name(&id.digest_hex());
        let image = EngineImage {
            name: name.clone(),
            labels: self.labels(id),
            target: Some(manifest.clone()),
            ..EngineImage::default()
        };
        let mut client = self.connection.client().images();
        let create = CreateImageRequest {
            image: Some(image.clone()),
            source_date_epoch: None,
        };
        match client.create(create).await {
            Ok(_) => Ok(()),
            // Left by a put that crashed before its record.
            Err(status) if status.code() == Code::AlreadyExists => {
                let update = UpdateImageRequest {
                    image: Some(image),
                    ..UpdateImageRequest::default()
                };
                let result = client.update(update).await;
                result
                    .map(drop)
                    .map_err(|status| failed("replace image", &name, status))
            }
            Err(status) => Err(failed("create image", &name, status)),
        }
    }

    async fn unregister(&self, digest_hex: &str) -> Result<(), StoreError> {
        let name = Self::name(digest_hex);
        let message = DeleteImageRequest {
            name: name.clone(),
            sync: true,
            ..DeleteImageRequest::default()
        };
        match self.connection.client().images().delete(message).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(failed("delete image", &name, status)),
        }
    }

    async fn room_for(&self, unpacked: u64, freespace: u64) -> Result<(), StoreError> {
        let path = self.config.space.clone();
        let have_bytes = blocking("look at free space", move || available_bytes(&path)).await??;
        let need_bytes = unpacked.saturating_add(freespace);
        if have_bytes < need_bytes {
            return Err(StoreError::InsufficientSpace {
                need_bytes,
                have_bytes,
            });
        }
        Ok(())
    }
}

fn image_of(record: &Record) -> Result<&ImageBody, StoreError> {
    match &record.body {
        Body::Image(image) => Ok(image),
        _ => Err(StoreError::InvalidParent("not an image")),
    }
}

#[async_trait]
impl Store for ImageStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: true,
            parent_volume: false,
            data: true,
            bounded: false,
            persistent: true,
        }
    }

    fn shares_backing(&self, _parent: &Record) -> bool {
        true
    }

    async fn put(&self, mut put: Put<'_>) -> Result<Stored, StoreError> {
        let parent = put.parent.map(image_of).transpose()?;
        let freespace = match put.spec {
            Spec::Image(spec) => spec.freespace_bytes,
            _ => return Err(StoreError::Unsupported("elements that are not images")),
        };
        let Some(stream) = put.data.take() else {
            let parent = parent.ok_or(StoreError::Unsupported(
                "an image without data and without parent",
            ))?;
            self.room_for(0, freespace).await?;
            return Ok(Stored {
                keys: parent.keys.clone(),
                defaults: Some(parent.defaults.clone()),
                metadata_only: true,
                ..Stored::default()
            });
        };
        let limits = self.config.limits;
        let staging = self.config.staging.clone();
        let spooled = spool(
            stream,
            &staging,
            limits.data_bytes,
            put.checksum,
            put.progress.as_ref(),
        )
        .await?;
        let documents = match parent {
            Some(parent) => self.parent_documents(parent).await?,
            None => None,
        };
        let part = Part {
            file: spooled.file,
            offset: 0,
            size: spooled.size,
        };
        let image = blocking("check image", move || {
            archive::read(&part, documents.as_ref(), &staging, &limits)
        })
        .await??;
        let defaults =
            ImageConfig::parse("configuration", &image.config)?.defaults("configuration")?;
        self.room_for(image.file_bytes, freespace).await?;
        let unpacked = self.store(put.id, put.progress.as_ref(), image).await?;
        if freespace > 0
            && let Err(error) = self.room_for(0, freespace).await
        {
            self.unregister(&put.id.digest_hex()).await?;
            return Err(error);
        }
        let mut keys = StoreKeys::from([
            (KEY_MANIFEST.to_owned(), unpacked.manifest.digest),
            (
                KEY_SNAPSHOTTER.to_owned(),
                self.connection.snapshotter().to_owned(),
            ),
        ]);
        // An image without layers stands on nothing, as containerd spells it.
        keys.insert(
            KEY_SNAPSHOT.to_owned(),
            unpacked.snapshot.unwrap_or_default(),
        );
        Ok(Stored {
            keys,
            checksum: Some(spooled.checksum),
            size: spooled.size,
            defaults: Some(defaults),
            metadata_only: false,
        })
    }

    async fn remove(&self, id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        // A metadata-only image has no record in the engine: nothing is found, and that is fine.
        self.unregister(&id.digest_hex()).await
    }

    async fn export(&self, record: &Record) -> Result<DataStream, StoreError> {
        let keys = &image_of(record)?.keys;
        let digest = keys.get(KEY_MANIFEST).ok_or(StoreError::Unsupported(
            "export of an image without content",
        ))?;
        export::oci_archive(&self.connection, digest).await
    }

    async fn export_tree(&self, record: &Record) -> Result<DataStream, StoreError> {
        let keys = &image_of(record)?.keys;
        let mounts = self.config.staging.clone();
        export::tree(
            &self.connection,
            &self.config.location,
            keys.get(KEY_SNAPSHOT)
                .filter(|name| !name.is_empty())
                .map(String::as_str),
            mounts,
        )
        .await
    }

    async fn attach(
        &self,
        _record: &Record,
        _executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        Err(StoreError::Unsupported(
            "attaching an image; the runtime makes root file systems from its keys",
        ))
    }

    async fn detach(
        &self,
        _id: &ElementId,
        _keys: &StoreKeys,
        _executor: &ElementId,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ensure_freespace(
        &self,
        _record: &Record,
        freespace_bytes: u64,
    ) -> Result<(), StoreError> {
        self.room_for(0, freespace_bytes).await
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        let location = &self.config.location;
        let message = ListImagesRequest {
            filters: vec![format!("labels.\"{}\"=={location}", snapshot::LOCATION)],
        };
        let response = self.connection.client().images().list(message).await;
        let images = response
            .map_err(|status| failed("list images of", location, status))?
            .into_inner()
            .images;
        let images = images
            .into_iter()
            .filter_map(|i| i.name.strip_prefix("pl-").map(str::to_owned));
        // A put that crashed half-way left its lease and whatever that holds.
        let leases = snapshot::leases_of_location(&self.connection, location).await?;
        let leases = leases
            .into_iter()
            .filter_map(|l| l.strip_prefix("pl-image-").map(str::to_owned));
        let mut names: Vec<String> = images.chain(leases).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn sweep(&self, digest_hex: &str) -> Result<(), StoreError> {
        self.unregister(digest_hex).await?;
        snapshot::delete_lease(&self.connection, &Self::lease_name(digest_hex)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let check = async { Snapshots(&self.connection).exists("portlayer-health").await };
        match tokio::time::timeout(Duration::from_secs(3), check).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(StoreError::Unavailable(
                "containerd does not answer".to_owned(),
            )),
        }
    }
}
