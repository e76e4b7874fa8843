//! Attaching to a running task over the wire: one stream out, one stream in.

use futures::StreamExt;
use portlayer::element::ElementId;
use portlayer_proto::v1;
use portlayer_proto::v1::attach_request::Message as Ask;
use portlayer_proto::v1::attach_response::Message as Answer;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::Streaming;

use crate::connection::request;
use crate::tasks::{LogStream, chunks, service};
use crate::wire::{Fault, Wire};
use crate::{Client, Error};

/// Bytes of input on the way.
const INPUT: usize = 64 << 10;
/// Messages on the way in each direction.
const MESSAGES: usize = 16;

/// A running task's streams; see [`portlayer::compose::Attached`].
pub struct Attached {
    /// Its output as it is stored; ends when the task ended and all is read.
    pub output: LogStream,
    /// Its standard input; dropping it closes the input. `None` when the task has none or it was not asked for.
    pub input: Option<DuplexStream>,
    /// Tells how feeding the input ended; an error of reason `busy` when someone else feeds it.
    pub input_ended: Option<oneshot::Receiver<Result<(), Error>>>,
}

impl Client {
    /// Attaches to a running task. See [`portlayer::PortLayer::attach`].
    pub async fn attach(
        &self,
        executor: &ElementId,
        task: &ElementId,
        replay: bool,
        stdin: bool,
    ) -> Result<Attached, Error> {
        let (asks, asked) = mpsc::channel(MESSAGES);
        let open = Ask::Open(v1::AttachOpen {
            executor: executor.to_string(),
            task: task.to_string(),
            replay,
            stdin,
        });
        // There is room: it is the first.
        let _ = asks.try_send(message(open));
        let mut service = service(self.channel());
        let call = service.attach(request(ReceiverStream::new(asked), self.long()));
        let mut answers = self.act("attach", call).await?;
        let Some(Answer::Started(started)) = answers.message().await?.and_then(|m| m.message)
        else {
            return Err(Error::Short("attach"));
        };
        let (chunk, output) = mpsc::channel(MESSAGES);
        let (ended, input_ended) = oneshot::channel();
        // Lives as long as somebody reads the output.
        tokio::spawn(deliver(answers, chunk, ended));
        let output = ReceiverStream::new(output);
        let output = output.flat_map(|answer: Result<_, Error>| {
            futures::stream::iter(match answer {
                Ok(answer) => chunks(answer),
                Err(error) => vec![Err(error)],
            })
        });
        let mut attached = Attached {
            output: Box::pin(output),
            input: None,
            input_ended: None,
        };
        if started.stdin {
            let (input, fed) = tokio::io::duplex(INPUT);
            tokio::spawn(feed(fed, asks));
            attached.input = Some(input);
            attached.input_ended = Some(input_ended);
        }
        Ok(attached)
    }
}

fn message(ask: Ask) -> v1::AttachRequest {
    v1::AttachRequest { message: Some(ask) }
}

/// Sends what is written until its end.
async fn feed(input: DuplexStream, asks: mpsc::Sender<v1::AttachRequest>) {
    let mut pieces = ReaderStream::with_capacity(input, INPUT);
    while let Some(Ok(piece)) = pieces.next().await {
        if asks.send(message(Ask::Stdin(piece))).await.is_err() {
            return;
        }
    }
    // The call may be over.
    let _ = asks.send(message(Ask::CloseStdin(v1::CloseStdin {}))).await;
}

/// Parts the answers into output and the end of the input.
async fn deliver(
    mut answers: Streaming<v1::AttachResponse>,
    output: mpsc::Sender<Result<v1::LogsResponse, Error>>,
    ended: oneshot::Sender<Result<(), Error>>,
) {
    let mut ended = Some(ended);
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(status) => {
                // Nobody reads any more only when nobody wants to know.
                let _ = output.send(Err(status.into())).await;
                return;
            }
        };
        match answer.message {
            Some(Answer::Output(chunks)) => {
                if output.send(Ok(chunks)).await.is_err() {
                    return;
                }
            }
            Some(Answer::StdinEnded(end)) => {
                let how = match end.fault.map(Fault::from_wire) {
                    None => Ok(()),
                    Some(Ok(fault)) => Err(fault.into()),
                    Some(Err(error)) => Err(error.into()),
                };
                if let Some(ended) = ended.take() {
                    let _ = ended.send(how);
                }
            }
            Some(Answer::Started(_)) | None => {}
        }
    }
}
