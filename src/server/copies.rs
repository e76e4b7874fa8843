//! The copies of `portlayer.v1.ElementsService`: archives out of and into executors and volumes.

use std::io;

use futures::{StreamExt, TryStreamExt, stream};
use portlayer::PortLayer;
use portlayer::archive::{Compression, Packing};
use portlayer::copy::CopyOptions;
use portlayer::element::ElementId;
use portlayer::error::ErrorKind;
use portlayer_client::wire::{self, Fault, Wire, WireError, status_of};
use portlayer_proto::v1;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Response, Status, Streaming};

use super::{Answers, PIECE, Shared, bad, id_in};

fn options(field: &str, message: Option<v1::CopyOptions>) -> Result<CopyOptions, Status> {
    let read = CopyOptions::from_wire(message.unwrap_or_default());
    read.map_err(|error| bad(error.within(field)))
}

/// The pieces of the archive.
pub(super) async fn out(
    shared: &Shared,
    layer: PortLayer,
    message: v1::CopyOutRequest,
) -> Result<Response<Answers<v1::CopyOutResponse>>, Status> {
    let id = id_in("id", &message.id)?;
    let options = options("options", message.options)?;
    let packing = match message.archive.as_str() {
        "" => Packing::Tar(Compression::None),
        name => name.parse().map_err(|_| {
            bad(WireError::Invalid {
                field: "archive".to_owned(),
                rule: "none of tar, tar.gz, tar.bz2, tar.xz, tar.zst and zip",
            })
        })?,
    };
    let copied = layer.copy_out(&id, &message.path, packing, &options).await;
    let data = copied.map_err(status_of)?;
    let pieces = ReaderStream::with_capacity(data, PIECE);
    let pieces = pieces
        .map_ok(|data| v1::CopyOutResponse { data })
        .map_err(move |error| broken(&id, &error));
    Ok(Response::new(shared.until_draining(pieces)))
}

/// A copy that fails when its beginning is with the caller already.
fn broken(id: &ElementId, error: &io::Error) -> Status {
    let text = format!("copying from {id} failed: {error}");
    let mut fault = Fault::new(ErrorKind::FailedPrecondition, "files", text);
    fault.element = Some(id.clone());
    fault.into_status()
}

/// Extracts what the caller sends.
pub(super) async fn into(
    layer: PortLayer,
    mut parts: Streaming<v1::CopyInRequest>,
) -> Result<Response<v1::CopyInResponse>, Status> {
    use v1::copy_in_request::Part;
    let Some(Part::Header(header)) = parts.message().await?.and_then(|first| first.part) else {
        return Err(bad(wire::missing("header")));
    };
    let id = id_in("header.id", &header.id)?;
    let options = options("header.options", header.options)?;
    let pieces = stream::unfold(Some(parts), |parts| async move {
        let mut parts = parts?;
        match piece(parts.message().await) {
            Ok(Some(data)) => Some((Ok(data), Some(parts))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let data = Box::pin(StreamReader::new(pieces.boxed()));
    let copied = layer.copy_in(&id, &header.path, data, &options).await;
    let copied = copied.map_err(status_of)?;
    Ok(Response::new(v1::CopyInResponse {
        entries: copied.entries,
        file_bytes: copied.file_bytes,
    }))
}

/// The data in a message; `None` = they are whole. A caller that gives up, or goes away, sends no end.
fn piece(part: Result<Option<v1::CopyInRequest>, Status>) -> io::Result<Option<bytes::Bytes>> {
    use v1::copy_in_request::Part;
    match part.map_err(io::Error::other)? {
        Some(v1::CopyInRequest {
            part: Some(Part::Data(data)),
        }) => Ok(Some(data)),
        Some(v1::CopyInRequest {
            part: Some(Part::End(_)),
        }) => Ok(None),
        Some(_) => Err(io::Error::other(
            "only data and their end may follow the header",
        )),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
