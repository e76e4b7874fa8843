//! Running tasks over the wire.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use portlayer::compose::{BindHow, Interrupt, Interrupted, JoinHow, RunId, TaskBind};
use portlayer::element::{ElementId, NewElement};
use portlayer::runtime::{ContainerStats, LogChunk, LogProgress, LogQuery};
use portlayer::task::ExitRecord;
use portlayer_proto::v1;
use portlayer_proto::v1::tasks_service_client::TasksServiceClient;
use tonic::transport::Channel;

use crate::compose::{Committed, Edit};
use crate::connection::{ANSWER_BYTES, request};
use crate::wire::{self, Fault, Wire};
use crate::{Client, Error};

/// Stored output as it comes.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogChunk, Error>> + Send>>;

pub(crate) fn service(channel: Channel) -> TasksServiceClient<Channel> {
    TasksServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

/// What is made, composed and committed in one call.
#[derive(Debug)]
pub struct RunPlan {
    /// Elements to make first, in order, without data: tasks, the executor. Made by this call, they are removed again
    /// when it fails.
    pub create: Vec<NewElement>,
    /// The executor to compose: one of those or one that is there.
    pub executor: ElementId,
    /// The edits, in order.
    pub edits: Vec<Edit>,
}

impl RunPlan {
    /// Of an executor, with nothing to make or do yet.
    pub fn new(executor: ElementId) -> Self {
        Self {
            create: Vec::new(),
            executor,
            edits: Vec::new(),
        }
    }

    /// Makes this one too.
    #[must_use]
    pub fn create(mut self, new: NewElement) -> Self {
        self.create.push(new);
        self
    }

    /// Lets an element take part in a role.
    #[must_use]
    pub fn join(mut self, id: &ElementId, how: JoinHow) -> Self {
        let id = id.clone();
        self.edits.push(Edit::Join { id, how });
        self
    }

    /// Activates everything that takes part.
    #[must_use]
    pub fn bind(mut self, how: BindHow) -> Self {
        self.edits.push(Edit::Bind { id: None, how });
        self
    }
}

impl Client {
    /// Makes elements, composes an executor of them and commits it, in one call: what would be create, compose, join,
    /// bind and commit. Errors: those of the call that failed.
    pub async fn run(&self, plan: RunPlan) -> Result<Committed, Error> {
        let mut create = Vec::with_capacity(plan.create.len());
        for new in plan.create {
            let (element, _) = wire::new_element(new).map_err(Fault::of)?;
            create.push(v1::CreateRequest {
                element: Some(element),
                data: None,
            });
        }
        let message = v1::RunRequest {
            create,
            executor: plan.executor.to_string(),
            edits: wire::all_into(plan.edits),
        };
        let mut service = service(self.channel());
        let answer = self.act("run", service.run(message)).await?;
        Ok(wire::required("committed", answer.committed)?)
    }

    /// Waits for the end of a run; `None` = the newest. See [`portlayer::PortLayer::wait`]. Goes on waiting when the
    /// daemon was away for a moment.
    pub async fn wait(
        &self,
        executor: &ElementId,
        task: &ElementId,
        run: Option<u32>,
    ) -> Result<ExitRecord, Error> {
        let message = v1::WaitRequest {
            executor: executor.to_string(),
            task: task.to_string(),
            run,
        };
        let call = |channel| {
            let request = request(message.clone(), self.long());
            async move { service(channel).wait(request).await }
        };
        let answer = self.watch("wait", call).await?;
        Ok(wire::required("exit", answer.exit)?)
    }

    /// Stored output. See [`portlayer::PortLayer::logs`].
    pub async fn logs(&self, query: &LogQuery) -> Result<LogStream, Error> {
        let message = wire::logs_request(query.clone());
        let call = |channel| {
            let request = request(message.clone(), self.long());
            async move { service(channel).logs(request).await }
        };
        let answers = self.watch("logs", call).await?;
        Ok(Box::pin(answers.flat_map(|answer| {
            stream::iter(match answer {
                Ok(answer) => chunks(answer),
                Err(status) => vec![Err(status.into())],
            })
        })))
    }

    /// Starts one more task in an executor. See [`portlayer::PortLayer::exec`].
    pub async fn exec(
        &self,
        executor: &ElementId,
        task: &ElementId,
        bind: TaskBind,
    ) -> Result<RunId, Error> {
        let message = v1::ExecRequest {
            executor: executor.to_string(),
            task: task.to_string(),
            bind: Some(bind.into_wire()),
        };
        let mut service = service(self.channel());
        let answer = self.act("exec", service.exec(message)).await?;
        Ok(wire::required("run", answer.run)?)
    }

    /// Disturbs one task of an executor, or the executor with all its tasks. See [`portlayer::PortLayer::interrupt`].
    pub async fn interrupt(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
        how: Interrupt,
    ) -> Result<Interrupted, Error> {
        let message = v1::InterruptRequest {
            executor: executor.to_string(),
            task: task.map(ToString::to_string),
            how: Some(how.into_wire()),
        };
        let mut service = service(self.channel());
        let answer = self.change("interrupt", service.interrupt(message)).await?;
        Ok(Interrupted::from_wire(answer)?)
    }

    /// Sets the size of a running task's terminal. See [`portlayer::PortLayer::resize`].
    pub async fn resize(
        &self,
        executor: &ElementId,
        task: &ElementId,
        columns: u16,
        rows: u16,
    ) -> Result<(), Error> {
        let message = v1::ResizeRequest {
            executor: executor.to_string(),
            task: task.to_string(),
            size: Some((columns, rows).into_wire()),
        };
        let mut service = service(self.channel());
        self.change("resize", service.resize(message)).await?;
        Ok(())
    }

    /// How far the logs have got that a task's output is sent on to. See [`portlayer::PortLayer::log_progress`].
    pub async fn log_progress(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> Result<Vec<LogProgress>, Error> {
        let message = v1::LogProgressRequest {
            executor: executor.to_string(),
            task: task.to_string(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).log_progress(message).await }
        };
        let logs = self.look("log_progress", call).await?.logs.into_iter();
        logs.map(|log| Ok(LogProgress::from_wire(log)?)).collect()
    }

    /// What a running executor uses now. See [`portlayer::PortLayer::stats`].
    pub async fn stats(&self, executor: &ElementId) -> Result<ContainerStats, Error> {
        let message = v1::StatsRequest {
            executor: executor.to_string(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).stats(message).await }
        };
        Ok(ContainerStats::from_wire(self.look("stats", call).await?)?)
    }
}

/// The chunks of an answer, or why it cannot be read.
pub(crate) fn chunks(answer: v1::LogsResponse) -> Vec<Result<LogChunk, Error>> {
    let chunks = answer.chunks.into_iter();
    chunks
        .map(|chunk| Ok(LogChunk::from_wire(chunk)?))
        .collect()
}
