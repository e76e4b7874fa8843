//! containerd's content store: blobs in and out.

use std::collections::HashMap;
use std::io::Read;

use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::tonic::{Code, Status};
use portlayer::store::StoreError;
use tokio_stream::wrappers::ReceiverStream;

use super::archive::Part;
use crate::connection::{Connection, failed};
use crate::snapshot::Lease;

/// Bytes of one message; gRPC's default bound is 4 MiB.
const CHUNK: usize = 1 << 20;

/// Where a blob's bytes are.
pub(super) enum Source {
    Bytes(Vec<u8>),
    Part(Part),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Part(part) => part.size,
        }
    }
}

/// Makes sure a blob is in the content store and held by the lease, with these labels.
pub(super) async fn ingest(
    connection: &Connection,
    lease: &Lease,
    digest: &str,
    source: Source,
    labels: HashMap<String, String>,
) -> Result<(), StoreError> {
    lease.add("content", digest).await?;
    let mut client = connection.client().content();
    match client
        .info(InfoRequest {
            digest: digest.to_owned(),
        })
        .await
    {
        Ok(_) => return relabel(connection, digest, labels).await,
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(failed("look at content", digest, status)),
    }
    // The lease's name makes the ingest ours: two puts never share one.
    let reference = format!("{}-{digest}", lease.id());
    abort(connection, &reference).await?;
    match write(
        connection,
        lease,
        &reference,
        digest,
        source,
        labels.clone(),
    )
    .await
    {
        Ok(()) => Ok(()),
        // Another put of the same blob was faster; ours may still be open.
        Err(status) if status.code() == Code::AlreadyExists => {
            abort(connection, &reference).await?;
            relabel(connection, digest, labels).await
        }
        Err(status) => {
            // A failed ingest stays open until somebody aborts it. The first error is the one to tell.
            if let Err(error) = abort(connection, &reference).await {
                tracing::warn!(%reference, %error, "a failed content ingest could not be aborted");
            }
            Err(failed("write content", digest, status))
        }
    }
}

async fn write(
    connection: &Connection,
    lease: &Lease,
    reference: &str,
    digest: &str,
    source: Source,
    labels: HashMap<String, String>,
) -> Result<(), Status> {
    let total = i64::try_from(source.size()).map_err(|_| Status::out_of_range("blob too large"))?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<WriteContentRequest>(4);
    let blank = WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: reference.to_owned(),
        total,
        expected: digest.to_owned(),
        ..WriteContentRequest::default()
    };
    let feeder = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let mut reader: Box<dyn Read> = match source {
            Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Source::Part(part) => Box::new(part.reader()),
        };
        let mut offset = 0;
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            reader.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
            if data.is_empty() {
                break;
            }
            let message = WriteContentRequest {
                offset,
                data,
                ..blank.clone()
            };
            offset += i64::try_from(message.data.len()).unwrap_or(0);
            if sender.blocking_send(message).is_err() {
                // The engine ended the call; its answer says why.
                return Ok(());
            }
        }
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset,
            labels,
            ..blank
        };
        drop(sender.blocking_send(commit));
        Ok(())
    });
    // As long as it takes: the blob's size is bounded, the disk's speed is not.
    let client = connection
        .leased(lease.id())
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    let mut client = client.with_deadline(None).content();
    let result = async {
        let mut responses = client
            .write(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut committed = false;
        while let Some(response) = responses.message().await? {
            committed |= response.action == i32::from(WriteAction::Commit);
        }
        if committed {
            Ok(())
        } else {
            Err(Status::aborted(
                "the engine ended the write before the commit",
            ))
        }
    }
    .await;
    match feeder.await {
        Ok(Ok(())) => result,
        Ok(Err(error)) => Err(Status::data_loss(format!("staged data: {error}"))),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

async fn abort(connection: &Connection, reference: &str) -> Result<(), StoreError> {
    let message = AbortRequest {
        r#ref: reference.to_owned(),
    };
    match connection.client().content().abort(message).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed("abort ingest", reference, status)),
    }
}

/// A blob that was there already may have come without our references.
async fn relabel(
    connection: &Connection,
    digest: &str,
    labels: HashMap<String, String>,
) -> Result<(), StoreError> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let message = UpdateRequest {
        info: Some(Info {
            digest: digest.to_owned(),
            labels,
            ..Info::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let result = connection.client().content().update(message).await;
    result
        .map(drop)
        .map_err(|status| failed("label content", digest, status))
}

/// A whole small blob.
pub(super) async fn read(connection: &Connection, digest: &str) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let message = ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let response = connection.client().content().read(message).await;
    let gone = |status: Status| match status.code() {
        Code::NotFound => StoreError::Missing(digest.to_owned()),
        _ => failed("read content", digest, status),
    };
    let mut stream = response.map_err(gone)?.into_inner();
    while let Some(chunk) = stream.message().await.map_err(gone)? {
        bytes.extend(chunk.data);
        if bytes.len() > 8 << 20 {
            return Err(StoreError::Missing(format!("{digest} is no document")));
        }
    }
    Ok(bytes)
}
