//! From a checked image to content and snapshots, under a lease.

use std::collections::HashMap;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::types::{Descriptor, Mount};
use portlayer::element::Checksum;
use portlayer::store::{Progress, ProgressSink, StoreError};

use super::archive::{Image, Layer};
use super::content::{Source, ingest};
use super::digest::chain_ids;
use super::fault::{ImageRule, refuse};
use crate::connection::{Connection, failed};
use crate::snapshot::{Lease, Made, Snapshots};

/// What an unpack made.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) manifest: Descriptor,
    /// Chain id of the top layer.
    pub(super) snapshot: Option<String>,
}

/// Everything an unpack works with.
pub(super) struct Unpack<'a> {
    pub(super) connection: &'a Connection,
    pub(super) lease: &'a Lease,
    pub(super) labels: HashMap<String, String>,
    pub(super) progress: Option<&'a ProgressSink>,
}

impl Unpack<'_> {
    /// Writes content and snapshots. On an error the caller deletes the lease and all of it is collected.
    pub(super) async fn run(&self, image: Image) -> Result<Unpacked, StoreError> {
        let chain = chain_ids(&image.diff_ids);
        for layer in &image.layers {
            let source = Source::Part(layer.part.clone());
            ingest(
                self.connection,
                self.lease,
                &layer.digest,
                source,
                HashMap::new(),
            )
            .await?;
        }
        let mut config_labels = HashMap::new();
        if let Some(top) = chain.last() {
            let key = format!(
                "containerd.io/gc.ref.snapshot.{}",
                self.connection.snapshotter()
            );
            config_labels.insert(key, top.clone());
        }
        // Layers below ours are the parent's: leased first, so that they stay whatever happens to the parent.
        let below = image.diff_ids.len() - image.layers.len();
        for (i, name) in chain.iter().enumerate() {
            let parent = i.checked_sub(1).map_or("", |i| chain[i].as_str());
            match i.checked_sub(below) {
                None => self.hold(name).await?,
                Some(own) => self.layer(&image.layers[own], name, parent).await?,
            }
            if let (Some(progress), Some(own)) = (self.progress, i.checked_sub(below)) {
                let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                progress(Progress::Unpacked {
                    layers: count(own + 1),
                    of: count(image.layers.len()),
                });
            }
        }
        let config = Source::Bytes(image.config);
        ingest(
            self.connection,
            self.lease,
            &image.config_digest,
            config,
            config_labels,
        )
        .await?;
        let manifest = Descriptor {
            media_type: image.manifest_type,
            digest: Checksum::of(&image.manifest).to_string(),
            size: i64::try_from(image.manifest.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let references = references(&image.manifest, &image.config_digest);
        ingest(
            self.connection,
            self.lease,
            &manifest.digest,
            Source::Bytes(image.manifest),
            references,
        )
        .await?;
        Ok(Unpacked {
            manifest,
            snapshot: chain.last().cloned(),
        })
    }

    async fn hold(&self, snapshot: &str) -> Result<(), StoreError> {
        let kind = format!("snapshots/{}", self.connection.snapshotter());
        self.lease.add(&kind, snapshot).await?;
        match Snapshots(self.connection).exists(snapshot).await? {
            true => Ok(()),
            false => Err(StoreError::Missing(format!(
                "the parent's snapshot {snapshot}"
            ))),
        }
    }

    async fn layer(&self, layer: &Layer, name: &str, parent: &str) -> Result<(), StoreError> {
        let snapshots = Snapshots(self.connection);
        let kind = format!("snapshots/{}", self.connection.snapshotter());
        self.lease.add(&kind, name).await?;
        if snapshots.exists(name).await? {
            return Ok(());
        }
        let key = format!("{}-{name}", self.lease.id());
        let mounts = match snapshots
            .prepare(Some(self.lease.id()), &key, parent, self.labels.clone())
            .await?
        {
            Made::New(mounts) => mounts,
            Made::Exists => {
                // Left by a put that crashed after its lease expired: may be half unpacked.
                snapshots.remove(&key).await?;
                match snapshots
                    .prepare(Some(self.lease.id()), &key, parent, self.labels.clone())
                    .await?
                {
                    Made::New(mounts) => mounts,
                    Made::Exists => {
                        return Err(StoreError::InUse("another put unpacks the same layer"));
                    }
                }
            }
        };
        self.apply(layer, mounts).await?;
        // Another image with the same layers may have been faster; then ours is not needed.
        if !snapshots
            .commit(self.lease.id(), name, &key, HashMap::new())
            .await?
        {
            snapshots.remove(&key).await?;
        }
        Ok(())
    }

    async fn apply(&self, layer: &Layer, mounts: Vec<Mount>) -> Result<(), StoreError> {
        let diff = Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: i64::try_from(layer.part.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let message = ApplyRequest {
            diff: Some(diff),
            mounts,
            ..ApplyRequest::default()
        };
        // As long as it takes: the layers' size is bounded, the disk's speed is not.
        let client = self.connection.leased(self.lease.id())?.with_deadline(None);
        let response = client.diff().apply(message).await;
        let applied = response
            .map_err(|status| failed("unpack layer", &layer.digest, status))?
            .into_inner()
            .applied;
        match applied {
            Some(applied) if applied.digest == layer.diff_id => Ok(()),
            _ => Err(refuse(
                &layer.digest,
                ImageRule::DiffId(layer.diff_id.clone()),
            )),
        }
    }
}

/// The labels by which the collector finds what a manifest refers to.
fn references(manifest: &[u8], config: &str) -> HashMap<String, String> {
    let mut labels = HashMap::from([(
        "containerd.io/gc.ref.content.config".to_owned(),
        config.to_owned(),
    )]);
    let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    for (i, layer) in document["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Some(digest) = layer["digest"].as_str() {
            labels.insert(
                format!("containerd.io/gc.ref.content.l.{i}"),
                digest.to_owned(),
            );
        }
    }
    labels
}
