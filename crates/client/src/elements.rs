//! Create, read, update, delete, list, import and export over the wire.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use portlayer::element::{
    Checksum, DataStream, Descriptor, ElementId, ListQuery, NewElement, Page, Patch, Projection,
    ReadData, Updated,
};
use portlayer::ledger::AuditRow;
use portlayer::store::ProgressSink;
use portlayer_proto::v1;
use portlayer_proto::v1::elements_service_client::ElementsServiceClient;
use tokio::sync::oneshot;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::transport::Channel;

use crate::connection::{ANSWER_BYTES, request};
use crate::wire::{self, Fault, Wire};
use crate::{Client, Error};

/// Bytes of data in one message.
const PIECE: usize = 256 << 10;

pub(crate) fn service(channel: Channel) -> ElementsServiceClient<Channel> {
    ElementsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

impl Client {
    /// Makes an element. See [`portlayer::PortLayer::create`].
    pub async fn create(&self, new: NewElement) -> Result<Descriptor, Error> {
        self.make(new, None).await
    }

    /// Makes an element and tells how far it is. See [`portlayer::PortLayer::create_with_progress`].
    pub async fn create_with_progress(
        &self,
        new: NewElement,
        progress: ProgressSink,
    ) -> Result<Descriptor, Error> {
        self.make(new, Some(progress)).await
    }

    async fn make(
        &self,
        new: NewElement,
        progress: Option<ProgressSink>,
    ) -> Result<Descriptor, Error> {
        let (element, data) = wire::new_element(new).map_err(Fault::of)?;
        if let Some(data) = data {
            return self.import(element, data, progress).await;
        }
        let message = v1::CreateRequest {
            element: Some(element),
            data: None,
        };
        let mut service = service(self.channel());
        let answer = self.change("create", service.create(message)).await?;
        Ok(wire::required("element", answer.element)?)
    }

    async fn import(
        &self,
        element: v1::NewElement,
        data: DataStream,
        progress: Option<ProgressSink>,
    ) -> Result<Descriptor, Error> {
        let header = v1::ImportHeader {
            element: Some(element),
            progress: progress.is_some(),
        };
        let (failed, failure) = oneshot::channel();
        let parts = parts(header, data, failed);
        let imported = async {
            let mut service = service(self.channel());
            let call = service.import(request(parts, self.long()));
            let mut answers = self.act("import", call).await?;
            while let Some(answer) = answers.message().await? {
                match answer.part {
                    Some(v1::import_response::Part::Progress(told)) => {
                        if let Some(sink) = &progress {
                            sink(portlayer::store::Progress::from_wire(told)?);
                        }
                    }
                    Some(v1::import_response::Part::Element(element)) => {
                        return Ok(Descriptor::from_wire(element)?);
                    }
                    None => {}
                }
            }
            Err(Error::Short("import"))
        };
        tokio::select! {
            biased;
            // Gives the call up before the end of the data: nothing is made.
            Ok(error) = failure => Err(Error::Data(error)),
            done = imported => done,
        }
    }

    /// Everything known of an element except its data. See [`portlayer::PortLayer::read`].
    pub async fn read(&self, id: &ElementId) -> Result<Descriptor, Error> {
        self.read_part(id, &Projection::default()).await
    }

    async fn read_part(
        &self,
        id: &ElementId,
        projection: &Projection,
    ) -> Result<Descriptor, Error> {
        let message = v1::ReadRequest {
            id: id.to_string(),
            projection: wire::projection_message(projection),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).read(message).await }
        };
        let answer = self.look("read", call).await?;
        Ok(wire::required("element", answer.element)?)
    }

    /// Reads a part of an element, and its data if asked for. See [`portlayer::PortLayer::read_with`].
    pub async fn read_with(
        &self,
        id: &ElementId,
        projection: &Projection,
        data: ReadData,
    ) -> Result<(Descriptor, Option<DataStream>), Error> {
        match data {
            ReadData::Never => Ok((self.read_part(id, projection).await?, None)),
            ReadData::Always => self.export_part(id, projection, None).await,
            ReadData::UnlessChecksum(sum) => self.export_part(id, projection, Some(sum)).await,
        }
    }

    /// The data of an element. See [`portlayer::PortLayer::export`].
    pub async fn export(&self, id: &ElementId) -> Result<DataStream, Error> {
        let projection = Projection::without_metadata();
        let (_, data) = self.export_part(id, &projection, None).await?;
        data.ok_or(Error::Short("export"))
    }

    async fn export_part(
        &self,
        id: &ElementId,
        projection: &Projection,
        unless: Option<Checksum>,
    ) -> Result<(Descriptor, Option<DataStream>), Error> {
        use v1::export_response::Part;
        let message = v1::ExportRequest {
            id: id.to_string(),
            projection: wire::projection_message(projection),
            unless_checksum: unless.map(|sum| sum.to_string()),
        };
        let call = |channel| {
            let request = request(message.clone(), self.long());
            async move { service(channel).export(request).await }
        };
        let mut answers = self.watch("export", call).await?;
        let Some(Part::Header(header)) = answers.message().await?.and_then(|answer| answer.part)
        else {
            return Err(Error::Short("export"));
        };
        let descriptor = wire::required("header.element", header.element)?;
        if !header.data {
            return Ok((descriptor, None));
        }
        let pieces = answers.map(|answer| match answer {
            Ok(v1::ExportResponse {
                part: Some(Part::Data(data)),
            }) => Ok(data),
            Ok(_) => Ok(bytes::Bytes::new()),
            Err(status) => Err(std::io::Error::from(Error::from(status))),
        });
        // An empty piece would read as the end.
        let pieces = pieces.try_filter(|piece| std::future::ready(!piece.is_empty()));
        Ok((descriptor, Some(Box::pin(StreamReader::new(pieces)))))
    }

    /// Patches the mutable metadata. See [`portlayer::PortLayer::update`].
    pub async fn update(
        &self,
        id: &ElementId,
        patch: Patch,
        expected_revision: Option<u64>,
    ) -> Result<Updated, Error> {
        let message = wire::update_request(id, patch, expected_revision);
        let mut service = service(self.channel());
        let answer = self.change("update", service.update(message)).await?;
        Ok(Updated::from_wire(answer)?)
    }

    /// Deletes an element nothing uses. See [`portlayer::PortLayer::delete`]. A large one takes its time: there is no
    /// deadline but that of [`Client::with_deadline`].
    pub async fn delete(&self, id: &ElementId) -> Result<(), Error> {
        self.remove(id, false).await
    }

    /// Deletes an element whose record is damaged. See [`portlayer::PortLayer::delete_damaged`].
    pub async fn delete_damaged(&self, id: &ElementId) -> Result<(), Error> {
        self.remove(id, true).await
    }

    async fn remove(&self, id: &ElementId, damaged: bool) -> Result<(), Error> {
        let message = v1::DeleteRequest {
            id: id.to_string(),
            damaged,
        };
        let mut service = service(self.channel());
        let call = service.delete(request(message, self.long()));
        self.act("delete", call).await?;
        Ok(())
    }

    /// One page of the elements a query selects. See [`portlayer::PortLayer::list`].
    pub async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let message = wire::list_request(query);
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).list(message).await }
        };
        Ok(Page::from_wire(self.look("list", call).await?)?)
    }

    /// Grows a volume or image so that `bytes` are free in it. See [`portlayer::PortLayer::ensure_freespace`].
    pub async fn ensure_freespace(&self, id: &ElementId, bytes: u64) -> Result<Descriptor, Error> {
        let message = v1::EnsureFreespaceRequest {
            id: id.to_string(),
            freespace_bytes: bytes,
        };
        let mut service = service(self.channel());
        let call = service.ensure_freespace(message);
        let answer = self.act("ensure_freespace", call).await?;
        Ok(wire::required("element", answer.element)?)
    }

    /// The audit rows of an element, oldest first. See [`portlayer::PortLayer::audit_log`].
    pub async fn audit_log(&self, id: &ElementId) -> Result<Vec<AuditRow>, Error> {
        let message = v1::HistoryRequest { id: id.to_string() };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).history(message).await }
        };
        let answer = self.look("history", call).await?;
        Ok(wire::all("rows", answer.rows)?)
    }
}

/// The parts of an import. When the data fail there is no end: the caller of this gives the call up.
fn parts(
    header: v1::ImportHeader,
    data: DataStream,
    failed: oneshot::Sender<std::io::Error>,
) -> impl Stream<Item = v1::ImportRequest> + Send + 'static {
    use v1::import_request::Part;
    let part = |part| v1::ImportRequest { part: Some(part) };
    let first = stream::once(std::future::ready(part(Part::Header(header))));
    let pieces = ReaderStream::with_capacity(data, PIECE);
    let state = Some((pieces, failed));
    let rest = stream::unfold(state, move |state| async move {
        let (mut pieces, failed) = state?;
        match pieces.next().await {
            Some(Ok(piece)) => Some((part(Part::Data(piece)), Some((pieces, failed)))),
            None => Some((part(Part::End(v1::ImportEnd {})), None)),
            Some(Err(error)) => {
                // Nobody listens only when the call is over. A stream that ends without its end is broken to the server too,
                // also when it never hears that the call was given up.
                let _ = failed.send(error);
                None
            }
        }
    });
    first.chain(rest)
}
