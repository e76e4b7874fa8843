//! Images out again: the OCI archive, and the file system as one tar.

use std::path::PathBuf;

use containerd_client::services::v1::ReadContentRequest;
use portlayer::archive::{Root, TarBuilder, write_tree};
use portlayer::element::{DataStream, Summing};
use portlayer::store::StoreError;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::SyncIoBridge;

use super::archive::MANIFEST;
use super::{blocking, content};
use crate::connection::Connection;
use crate::mount::{mount_all, private_directory, unmount};
use crate::snapshot::{Lease, Snapshots, labels};
use portlayer::element::stream;

/// The image as an OCI archive. A failure half-way ends the stream with an error, never with a short archive.
pub(super) async fn oci_archive(
    connection: &Connection,
    digest: &str,
) -> Result<DataStream, StoreError> {
    let manifest = content::read(connection, digest).await?;
    let document: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let mut descriptor = json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() });
    if let Some(media_type) = document.get("mediaType") {
        descriptor["mediaType"] = media_type.clone();
    }
    let mut blobs = vec![(digest.to_owned(), manifest.len() as u64)];
    let layers = document["layers"].as_array().into_iter().flatten();
    for blob in std::iter::once(&document["config"]).chain(layers) {
        if let (Some(digest), Some(size)) = (blob["digest"].as_str(), blob["size"].as_u64()) {
            let blob = (digest.to_owned(), size);
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string();
    let connection = connection.clone();
    Ok(stream::produce(move |mut out| async move {
        let head = TarBuilder::new()
            .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", 0o644, index.as_bytes())
            .dir("blobs", 0o755)
            .dir("blobs/sha256", 0o755);
        out.write_all(&head.unfinished()).await?;
        for (digest, size) in blobs {
            copy_blob(&connection, &digest, size, &mut out).await?;
        }
        out.write_all(&TarBuilder::new().finish()).await?;
        out.shutdown().await
    }))
}

async fn copy_blob(
    connection: &Connection,
    digest: &str,
    size: u64,
    out: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let name = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    let header = TarBuilder::new().raw_sized(b'0', name.as_bytes(), b"", 0o644, size, b"");
    out.write_all(&header.unfinished()).await?;
    let message = ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let response = connection.client().content().read(message).await;
    let mut chunks = response.map_err(std::io::Error::other)?.into_inner();
    let mut summing = Summing::default();
    while let Some(chunk) = chunks.message().await.map_err(std::io::Error::other)? {
        summing.update(&chunk.data);
        out.write_all(&chunk.data).await?;
    }
    let padding = usize::try_from(size.wrapping_neg() % 512).unwrap_or(0);
    let whole = summing.bytes() == size;
    if !whole || summing.finish().to_string() != digest {
        return Err(std::io::Error::other(format!(
            "stored content of {digest} is damaged"
        )));
    }
    out.write_all(&[0; 512][..padding]).await
}

/// The file system of a snapshot as a tar, read through a view that is gone afterwards. `None`: an empty one.
pub(super) async fn tree(
    connection: &Connection,
    location: &str,
    snapshot: Option<&str>,
    staging: PathBuf,
) -> Result<DataStream, StoreError> {
    let Some(snapshot) = snapshot.map(str::to_owned) else {
        return Ok(Box::pin(std::io::Cursor::new(TarBuilder::new().finish())));
    };
    let unique = tempfile::Builder::new()
        .prefix("export-")
        .tempdir_in(&staging);
    let directory = unique
        .map_err(|e| super::io_failed("make directory", &staging, e))?
        .keep();
    let key = format!(
        "pl-{}",
        directory.file_name().unwrap_or_default().to_string_lossy()
    );
    let lease = Lease::create(connection, &key, labels(location, "export")).await?;
    let target = directory.join("fs");
    let prepared = async {
        let mounts = Snapshots(connection)
            .view(lease.id(), &key, &snapshot)
            .await?;
        let target = target.clone();
        blocking("mount view", move || {
            private_directory(&target)?;
            mount_all(&mounts, &target)
        })
        .await?
    };
    if let Err(error) = prepared.await {
        if let Err(undo) = done(&lease, connection, &key, directory).await {
            tracing::warn!(%undo, "a failed export could not be cleaned up");
        }
        return Err(error);
    }
    let connection = connection.clone();
    Ok(stream::produce(move |out| async move {
        let bridge = SyncIoBridge::new(out);
        let root = target.clone();
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut bridge = bridge;
            let root = Root::open(&root)?;
            write_tree(&root, &mut bridge).map_err(std::io::Error::other)?;
            bridge.shutdown()
        });
        let written = written.await.map_err(std::io::Error::other)?;
        let cleaned = done(&lease, &connection, &key, directory).await;
        written.and(cleaned.map_err(std::io::Error::other))
    }))
}

async fn done(
    lease: &Lease,
    connection: &Connection,
    key: &str,
    directory: PathBuf,
) -> Result<(), StoreError> {
    blocking("unmount view", move || {
        unmount(&directory.join("fs"))?;
        std::fs::remove_dir_all(&directory).map_err(|e| super::io_failed("remove", &directory, e))
    })
    .await??;
    Snapshots(connection).remove(key).await?;
    lease.delete().await
}
