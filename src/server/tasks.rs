//! `portlayer.v1.TasksService`.

use std::sync::Arc;

use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::compose::{Attached, CommitResult, Interrupt};
use portlayer::element::{ElementId, NewElement};
use portlayer::runtime::LogReader;
use portlayer_client::Edit;
use portlayer_client::wire::{self, Fault, Wire, status_of};
use portlayer_proto::v1;
use portlayer_proto::v1::attach_request::Message as Ask;
use portlayer_proto::v1::attach_response::Message as Answer;
use portlayer_proto::v1::tasks_service_server::TasksService;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::compositions::committed;
use super::{Answers, Shared, bad, elements, id_in, layer_of, optional_id_in};

/// Chunks of output in one message at most.
const CHUNKS: usize = 64;

pub(super) struct Tasks(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl TasksService for Tasks {
    type LogsStream = Answers<v1::LogsResponse>;
    type AttachStream = Answers<v1::AttachResponse>;

    async fn run(
        &self,
        request: Request<v1::RunRequest>,
    ) -> Result<Response<v1::RunResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        // All of it is read before any of it is done.
        let creates = message.create.into_iter().enumerate();
        let creates = creates
            .map(|(at, create)| elements::create(&format!("create[{at}]."), create))
            .collect::<Result<Vec<_>, _>>()?;
        let edits = wire::all("edits", message.edits).map_err(bad)?;
        let executor = id_in("executor", &message.executor)?;
        // In a task of its own: a caller that goes away must not leave half of it.
        let run = run(layer, creates, executor, edits);
        let run = tokio::spawn(run.instrument(tracing::Span::current()));
        let result = run
            .await
            .map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(v1::RunResponse {
            committed: Some(committed(result)),
        }))
    }

    async fn wait(
        &self,
        request: Request<v1::WaitRequest>,
    ) -> Result<Response<v1::WaitResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = id_in("task", &message.task)?;
        let wait = async {
            let exit = layer.wait(&executor, &task, message.run).await;
            exit.map_err(status_of)
        };
        let exit = self.0.unless_draining(wait).await?;
        Ok(Response::new(v1::WaitResponse {
            exit: Some(exit.into_wire()),
        }))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let layer = layer_of(&request)?;
        let query = wire::log_query(request.into_inner()).map_err(bad)?;
        tracing::Span::current().record("id", query.executor.as_str());
        let reader = layer.logs(&query).await.map_err(status_of)?;
        Ok(Response::new(self.0.until_draining(output(reader))))
    }

    async fn log_progress(
        &self,
        request: Request<v1::LogProgressRequest>,
    ) -> Result<Response<v1::LogProgressResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = id_in("task", &message.task)?;
        let progress = layer.log_progress(&executor, &task).await;
        let logs = progress.map_err(status_of)?.into_iter();
        Ok(Response::new(v1::LogProgressResponse {
            logs: logs.map(Wire::into_wire).collect(),
        }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let layer = layer_of(&request)?;
        let mut asks = request.into_inner();
        let Some(Ask::Open(open)) = asks.message().await?.and_then(|first| first.message) else {
            return Err(bad(wire::missing("open")));
        };
        let executor = id_in("open.executor", &open.executor)?;
        let task = id_in("open.task", &open.task)?;
        let attached = layer
            .attach(&executor, &task, open.replay, open.stdin)
            .await;
        let Attached {
            output: reader,
            input,
            input_ended,
        } = attached.map_err(status_of)?;
        let answer = |message| {
            Ok(v1::AttachResponse {
                message: Some(message),
            })
        };
        let started = answer(Answer::Started(v1::AttachStarted {
            stdin: input.is_some(),
        }));
        let talk = Talk {
            layer,
            executor,
            task,
        };
        // Ends with the caller's stream, with the answers or with the daemon, whichever is first.
        let over = self.0.drain.child_token();
        let answering = over.clone().drop_guard();
        tokio::spawn(over.run_until_cancelled_owned(talk.listen(asks, input)));
        let ended = async move {
            match input_ended {
                Some(ended) => ended.await.ok(),
                None => None,
            }
        };
        let ended = futures::stream::once(ended).filter_map(|ended| async move { ended });
        let ended = ended.map(move |ended| {
            let fault = ended.err().map(|error| Fault::of(error).into_wire());
            answer(Answer::StdinEnded(v1::StdinEnded { fault }))
        });
        let output = output(reader).map(move |chunks| answer(Answer::Output(chunks?)));
        // The output's end is the end, whatever became of the input.
        let output = output.map(Some).chain(futures::stream::iter([None]));
        let both = futures::stream::select(output, ended.map(Some));
        let both = both
            .take_while(|message| std::future::ready(message.is_some()))
            .filter_map(std::future::ready);
        let all = futures::stream::iter([started]).chain(both);
        let all = all.map(move |answer| {
            // Lives as long as the answers.
            let _answering = &answering;
            answer
        });
        Ok(Response::new(self.0.until_draining(all)))
    }

    async fn exec(
        &self,
        request: Request<v1::ExecRequest>,
    ) -> Result<Response<v1::ExecResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = id_in("task", &message.task)?;
        let bind = wire::or_default("bind", message.bind).map_err(bad)?;
        let run = layer.exec(&executor, &task, bind).await;
        let run = run.map_err(status_of)?;
        Ok(Response::new(v1::ExecResponse {
            run: Some(run.into_wire()),
        }))
    }

    async fn interrupt(
        &self,
        request: Request<v1::InterruptRequest>,
    ) -> Result<Response<v1::InterruptResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = optional_id_in("task", message.task.as_deref())?;
        let how = message.how.ok_or_else(|| bad(wire::missing("how")))?;
        let how = Interrupt::from_wire(how).map_err(bad)?;
        let done = layer.interrupt(&executor, task.as_ref(), how).await;
        Ok(Response::new(done.map_err(status_of)?.into_wire()))
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let layer = layer_of(&request)?;
        let message = request.into_inner();
        let executor = id_in("executor", &message.executor)?;
        let task = id_in("task", &message.task)?;
        let (columns, rows) = wire::required("size", message.size).map_err(bad)?;
        let resized = layer.resize(&executor, &task, columns, rows).await;
        resized.map_err(status_of)?;
        Ok(Response::new(v1::ResizeResponse {}))
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let layer = layer_of(&request)?;
        let executor = id_in("executor", &request.get_ref().executor)?;
        let stats = layer.stats(&executor).await.map_err(status_of)?;
        Ok(Response::new(stats.into_wire()))
    }
}

/// Makes, composes, commits; takes back what it made when that fails.
async fn run(
    layer: PortLayer,
    creates: Vec<NewElement>,
    executor: ElementId,
    edits: Vec<Edit>,
) -> Result<CommitResult, Status> {
    let mut made = Vec::new();
    let result = async {
        for new in creates {
            let created = layer.create(new).await.map_err(status_of)?;
            made.push(created.id);
        }
        compose(&layer, &executor, edits).await
    };
    let result = result.await;
    if result.is_err() {
        for id in made.iter().rev() {
            if let Err(error) = layer.delete(id).await {
                tracing::warn!(%id, %error, "an element of a failed run is left");
            }
        }
    }
    result
}

async fn compose(
    layer: &PortLayer,
    executor: &ElementId,
    edits: Vec<Edit>,
) -> Result<CommitResult, Status> {
    let mut handle = layer.compose(executor).await.map_err(status_of)?;
    for edit in edits {
        let edited = match edit {
            Edit::Join { id, how } => layer.join(handle, &id, how).await,
            Edit::Bind { id, how } => layer.bind(handle, id.as_ref(), how).await,
            Edit::Unbind { id } => layer.unbind(handle, id.as_ref()).await,
            Edit::Leave { id } => layer.leave(handle, &id).await,
        };
        handle = edited.map_err(status_of)?;
    }
    layer.commit(handle).await.map_err(status_of)
}

/// Stored output as messages: as many chunks in one as are there.
fn output(
    reader: LogReader,
) -> impl futures::Stream<Item = Result<v1::LogsResponse, Status>> + Send {
    reader.ready_chunks(CHUNKS).flat_map(|chunks| {
        let mut response = v1::LogsResponse::default();
        let mut failure = None;
        for chunk in chunks {
            match chunk {
                Ok(chunk) => response.chunks.push(chunk.into_wire()),
                Err(error) => failure = Some(Err(status_of(error))),
            }
        }
        let output = (!response.chunks.is_empty()).then_some(Ok(response));
        futures::stream::iter(output.into_iter().chain(failure))
    })
}

/// What a caller says to an attached task.
struct Talk {
    layer: PortLayer,
    executor: ElementId,
    task: ElementId,
}

impl Talk {
    /// Until the caller goes away; then the input is closed.
    async fn listen(self, mut asks: Streaming<v1::AttachRequest>, input: Option<DuplexStream>) {
        let mut input = input;
        while let Ok(Some(ask)) = asks.message().await {
            match ask.message {
                Some(Ask::Stdin(bytes)) => {
                    if let Some(open) = &mut input
                        && open.write_all(&bytes).await.is_err()
                    {
                        // The task reads no more; the caller was told how its input ended.
                        input = None;
                    }
                }
                Some(Ask::CloseStdin(_)) => input = None,
                Some(Ask::Resize(size)) => self.resize(size).await,
                Some(Ask::Open(_)) | None => {}
            }
        }
    }

    async fn resize(&self, size: v1::TerminalSize) {
        let Ok((columns, rows)) = <(u16, u16)>::from_wire(size) else {
            return;
        };
        let resized = self.layer.resize(&self.executor, &self.task, columns, rows);
        if let Err(error) = resized.await {
            tracing::debug!(task = %self.task, %error, "a terminal kept its size");
        }
    }
}
