//! `portlayer.v1.ElementsService`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use portlayer::PortLayer;
use portlayer::element::{Descriptor, MAX_DEFINITION_BYTES, NewElement, ReadData};
use portlayer::error::ErrorKind;
use portlayer::store::ProgressSink;
use portlayer_client::wire::{self, Fault, Wire, WireError, status_of};
use portlayer_proto::v1;
use portlayer_proto::v1::elements_service_server::ElementsService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::{Answers, PIECE, Shared, bad, copies, id_in, layer_of, pull, tell_revision};

/// Messages of progress on the way; what does not fit is dropped.
pub(super) const PROGRESS: usize = 16;

pub(super) struct Elements(pub(super) Arc<Shared>);

/// The answer about an element, without the values of its secrets.
pub(super) fn element(mut descriptor: Descriptor) -> Option<v1::Element> {
    wire::hide_secrets(&mut descriptor);
    Some(descriptor.into_wire())
}

/// The element a request wants made.
pub(super) fn new_element(
    field: &str,
    message: Option<v1::NewElement>,
) -> Result<NewElement, Status> {
    let message = message.ok_or_else(|| bad(wire::missing(field)))?;
    let new = wire::read_new_element(message).map_err(|error| bad(error.within(field)))?;
    tracing::Span::current().record("id", new.id.as_str());
    Ok(new)
}

/// The element of a create, with the little data it may bring.
pub(super) fn create(field: &str, message: v1::CreateRequest) -> Result<NewElement, Status> {
    let mut new = new_element(&format!("{field}element"), message.element)?;
    if let Some(data) = message.data {
        if data.len() as u64 > MAX_DEFINITION_BYTES {
            return Err(bad(WireError::Invalid {
                field: format!("{field}data"),
                rule: "more than 1 MiB: use Import",
            }));
        }
        new = new.data(std::io::Cursor::new(data));
    }
    Ok(new)
}

#[tonic::async_trait]
impl ElementsService for Elements {
    type ImportStream = Answers<v1::ImportResponse>;
    type ExportStream = Answers<v1::ExportResponse>;
    type CopyOutStream = Answers<v1::CopyOutResponse>;
    type PullStream = Answers<v1::PullResponse>;

    async fn create(
        &self,
        request: Request<v1::CreateRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let layer = layer_of(&request)?;
        let new = create("", request.into_inner())?;
        let created = layer.create(new).await.map_err(status_of)?;
        tell_revision(created.revision);
        Ok(Response::new(v1::CreateResponse {
            element: element(created),
        }))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        use v1::import_request::Part;
        let layer = layer_of(&request)?;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|first| first.part) else {
            return Err(bad(wire::missing("header")));
        };
        let new = new_element("header.element", header.element)?;
        let pieces = Box::pin(stream::unfold(Some(parts), |parts| async move {
            let mut parts = parts?;
            match piece(parts.message().await) {
                Ok(Some(data)) => Some((Ok(data), Some(parts))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }));
        let new = new.data(StreamReader::new(pieces));
        let (answers, answered) = mpsc::channel(PROGRESS);
        let made = import(layer, new, header.progress, answers);
        tokio::spawn(made.instrument(tracing::Span::current()));
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    async fn pull(
        &self,
        request: Request<v1::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let layer = layer_of(&request)?;
        let pulls = self.0.facts.pulls.clone();
        let answers = pull::answers(layer, pulls, request.into_inner())?;
        Ok(Response::new(self.0.until_draining(answers)))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<v1::ReadResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let id = id_in("id", &message.id)?;
        let projection = wire::projection(message.projection);
        let read = layer.read_with(&id, &projection, ReadData::Never).await;
        let (read, _) = read.map_err(status_of)?;
        tell_revision(read.revision);
        Ok(Response::new(v1::ReadResponse {
            element: element(read),
        }))
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        use v1::export_response::Part;
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let id = id_in("id", &message.id)?;
        let projection = wire::projection(message.projection);
        let have = message.unless_checksum.as_deref();
        let wanted = match wire::optional_checksum("unless_checksum", have).map_err(bad)? {
            Some(sum) => ReadData::UnlessChecksum(sum),
            None => ReadData::Always,
        };
        let read = layer.read_with(&id, &projection, wanted).await;
        let (read, data) = read.map_err(status_of)?;
        tell_revision(read.revision);
        let part = |part| v1::ExportResponse { part: Some(part) };
        let header = part(Part::Header(v1::ExportHeader {
            element: element(read),
            data: data.is_some(),
        }));
        let first = stream::iter([Ok(header)]);
        let Some(data) = data else {
            return Ok(Response::new(Box::pin(first)));
        };
        let pieces = ReaderStream::with_capacity(data, PIECE);
        let pieces = pieces
            .map_ok(move |piece| part(Part::Data(piece)))
            .map_err(move |error| {
                let mut fault = Fault::new(
                    ErrorKind::Unavailable,
                    "data_stream",
                    format!("reading the data of {id} failed: {error}"),
                );
                fault.element = Some(id.clone());
                fault.into_status()
            });
        Ok(Response::new(self.0.until_draining(first.chain(pieces))))
    }

    async fn copy_out(
        &self,
        request: Request<v1::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        let layer = layer_of(&request)?;
        copies::out(&self.0, layer, request.into_inner()).await
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<v1::CopyInRequest>>,
    ) -> Result<Response<v1::CopyInResponse>, Status> {
        let layer = layer_of(&request)?;
        copies::into(layer, request.into_inner()).await
    }

    async fn update(
        &self,
        request: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        let layer = layer_of(&request)?;
        let mut message = request.into_inner();
        let id = id_in("id", &message.id)?;
        let patch = wire::patch(&mut message).map_err(bad)?;
        let updated = layer.update(&id, patch, message.expected_revision).await;
        let updated = updated.map_err(status_of)?;
        tell_revision(updated.descriptor.revision);
        Ok(Response::new(v1::UpdateResponse {
            element: element(updated.descriptor),
            changed: updated.changed,
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let layer = layer_of(&request)?;
        let id = id_in("id", &request.get_ref().id)?;
        match request.get_ref().damaged {
            true => layer.delete_damaged(&id).await,
            false => layer.delete(&id).await,
        }
        .map_err(status_of)?;
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let layer = layer_of(&request)?;
        let query = wire::list_query(request.into_inner()).map_err(bad)?;
        let mut page = layer.list(query).await.map_err(status_of)?;
        page.items.iter_mut().for_each(wire::hide_secrets);
        Ok(Response::new(page.into_wire()))
    }

    async fn ensure_freespace(
        &self,
        request: Request<v1::EnsureFreespaceRequest>,
    ) -> Result<Response<v1::EnsureFreespaceResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let id = id_in("id", &message.id)?;
        let grown = layer.ensure_freespace(&id, message.freespace_bytes).await;
        let grown = grown.map_err(status_of)?;
        tell_revision(grown.revision);
        Ok(Response::new(v1::EnsureFreespaceResponse {
            element: element(grown),
        }))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let layer = layer_of(&request)?;
        let id = id_in("id", &request.get_ref().id)?;
        let rows = layer.audit_log(&id).await.map_err(status_of)?;
        Ok(Response::new(v1::HistoryResponse {
            rows: wire::all_into(rows),
        }))
    }
}

/// The data in a message; `None` = they are whole. A caller that gives up, or goes away, sends no end: to us it looks
/// like the end of its stream.
fn piece(
    part: Result<Option<v1::ImportRequest>, Status>,
) -> Result<Option<bytes::Bytes>, std::io::Error> {
    use v1::import_request::Part;
    match part.map_err(std::io::Error::other)? {
        Some(v1::ImportRequest {
            part: Some(Part::Data(data)),
        }) => Ok(Some(data)),
        Some(v1::ImportRequest {
            part: Some(Part::End(_)),
        }) => Ok(None),
        Some(_) => Err(std::io::Error::other(
            "only data and their end may follow the header",
        )),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Makes the element and answers. A caller that goes away breaks the data stream, and with it the create.
async fn import(
    layer: PortLayer,
    new: NewElement,
    progress: bool,
    answers: mpsc::Sender<Result<v1::ImportResponse, Status>>,
) {
    use v1::import_response::Part;
    let part = |part| v1::ImportResponse { part: Some(part) };
    let made = if progress {
        let answers = answers.clone();
        let sink: ProgressSink = Arc::new(move |progress| {
            // What nobody has read yet is old news already.
            let _ = answers.try_send(Ok(part(Part::Progress(progress.into_wire()))));
        });
        layer.create_with_progress(new, Some(sink)).await
    } else {
        layer.create(new).await
    };
    let answer = match made {
        Ok(created) => {
            tell_revision(created.revision);
            element(created).map(|element| Ok(part(Part::Element(element))))
        }
        Err(error) => Some(Err(status_of(error))),
    };
    if let Some(answer) = answer {
        // The caller may have gone; the element is made all the same.
        let _ = answers.send(answer).await;
    }
}
