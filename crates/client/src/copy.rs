//! Copies in and out over the wire.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use portlayer::archive::{Extracted, Packing};
use portlayer::copy::CopyOptions;
use portlayer::element::{DataStream, ElementId};
use portlayer_proto::v1;
use portlayer_proto::v1::elements_service_client::ElementsServiceClient;
use tokio::sync::oneshot;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::connection::request;
use crate::wire::Wire;
use crate::{Client, Error};

/// Bytes of data in one message.
const PIECE: usize = 256 << 10;

impl Client {
    /// What is at a path of a running executor or of a volume, as an archive. See [`portlayer::PortLayer::copy_out`].
    pub async fn copy_out(
        &self,
        from: &ElementId,
        path: &str,
        packing: Packing,
        options: &CopyOptions,
    ) -> Result<DataStream, Error> {
        let message = v1::CopyOutRequest {
            id: from.to_string(),
            path: path.to_owned(),
            options: Some(options.into_wire()),
            archive: packing.to_string(),
        };
        let mut service = ElementsServiceClient::new(self.channel());
        let call = service.copy_out(request(message, self.long()));
        let mut answers = self.act("copy out", call).await?;
        // The first piece too: an error before it is the call's, not the stream's.
        let first = answers.message().await?;
        let rest = answers.map_err(|status| std::io::Error::from(Error::from(status)));
        let pieces = stream::iter(first.map(Ok))
            .chain(rest)
            .map_ok(|answer| answer.data);
        // An empty piece would read as the end.
        let pieces = pieces.try_filter(|piece| std::future::ready(!piece.is_empty()));
        Ok(Box::pin(StreamReader::new(Box::pin(pieces))))
    }

    /// Extracts an archive at a path of a running executor or of a volume. See [`portlayer::PortLayer::copy_in`].
    pub async fn copy_in(
        &self,
        to: &ElementId,
        path: &str,
        data: DataStream,
        options: &CopyOptions,
    ) -> Result<Extracted, Error> {
        let header = v1::CopyInHeader {
            id: to.to_string(),
            path: path.to_owned(),
            options: Some(options.into_wire()),
        };
        let (failed, failure) = oneshot::channel();
        let parts = parts(header, data, failed);
        let copied = async {
            let mut service = ElementsServiceClient::new(self.channel());
            let answer = self
                .act("copy in", service.copy_in(request(parts, self.long())))
                .await?;
            Ok(Extracted {
                entries: answer.entries,
                file_bytes: answer.file_bytes,
                ..Extracted::default()
            })
        };
        tokio::select! {
            biased;
            // Gives the call up before the end of the data: nothing is changed.
            Ok(error) = failure => Err(Error::Data(error)),
            done = copied => done,
        }
    }
}

fn parts(
    header: v1::CopyInHeader,
    data: DataStream,
    failed: oneshot::Sender<std::io::Error>,
) -> impl Stream<Item = v1::CopyInRequest> + Send + 'static {
    use v1::copy_in_request::Part;
    let part = |part| v1::CopyInRequest { part: Some(part) };
    let first = stream::once(std::future::ready(part(Part::Header(header))));
    let state = Some((ReaderStream::with_capacity(data, PIECE), failed));
    let rest = stream::unfold(state, move |state| async move {
        let (mut pieces, failed) = state?;
        match pieces.next().await {
            Some(Ok(piece)) => Some((part(Part::Data(piece)), Some((pieces, failed)))),
            None => Some((part(Part::End(v1::CopyInEnd {})), None)),
            Some(Err(error)) => {
                // Nobody listens only when the call is over. Without its end the stream is broken to the server too.
                let _ = failed.send(error);
                None
            }
        }
    });
    first.chain(rest)
}
