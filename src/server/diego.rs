//! `portlayer.v1.DiegoService`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use portlayer::error::ErrorKind;
use portlayer_client::wire::{Fault, missing, time};
use portlayer_proto::v1;
use portlayer_proto::v1::desire_task_request::Definition;
use portlayer_proto::v1::diego_service_server::DiegoService;
use portlayer_taskdef::diego::{
    DefinitionError, Task, TaskError, TaskEvent, Tasks, desire_from_protobuf, read_json,
};
use portlayer_taskdef::log::LogLine;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::{Answers, Shared, bad};
use crate::diego::Diego as Node;

pub(super) struct Diego(pub(super) Arc<Shared>);

impl Diego {
    fn node(&self) -> Result<&Node, Status> {
        let off = || {
            Fault::new(
                ErrorKind::FailedPrecondition,
                "no_diego",
                "this server has no diego tasks",
            )
        };
        self.0.diego.as_deref().ok_or_else(|| off().into_status())
    }

    async fn tasks(&self) -> Result<&Tasks, Status> {
        let opened = self.node()?.tasks().await;
        opened.map_err(|error| {
            let text = format!("{:#}", anyhow::Error::new(error));
            Fault::new(ErrorKind::FailedPrecondition, "no_diego", text).into_status()
        })
    }
}

/// A refusal with Diego's text and its number of the class.
fn refused(error: &TaskError) -> Status {
    let (kind, reason) = match error {
        TaskError::Request(_) => (ErrorKind::InvalidArgument, "invalid_request"),
        TaskError::Exists { .. } => (ErrorKind::AlreadyExists, "resource_exists"),
        TaskError::NotFound { .. } => (ErrorKind::NotFound, "resource_not_found"),
        TaskError::Transition { .. } => (ErrorKind::FailedPrecondition, "invalid_state_transition"),
        TaskError::Create(_)
        | TaskError::Update(_)
        | TaskError::Delete(_)
        | TaskError::Read(_)
        | TaskError::Damaged { .. } => (ErrorKind::Internal, "unknown_error"),
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let mut fault = Fault::new(kind, reason, text);
    fault.details = BTreeMap::from([("diego_type".to_owned(), error.diego_type().to_string())]);
    fault.into_status()
}

fn invalid(error: &DefinitionError) -> Status {
    let mut fault = Fault::new(
        ErrorKind::InvalidArgument,
        "invalid_request",
        error.to_string(),
    );
    if let DefinitionError::Invalid(invalid) = error {
        let paths: Vec<_> = invalid
            .problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        fault.field = paths.first().map(|path| (*path).to_owned());
        fault.details.insert("paths".to_owned(), paths.join(", "));
    }
    fault
        .details
        .insert("diego_type".to_owned(), "4".to_owned());
    fault.into_status()
}

fn message(task: &Task) -> Result<v1::DiegoTask, Status> {
    let json = serde_json::to_string(task);
    Ok(v1::DiegoTask {
        task_guid: task.task_guid.clone(),
        domain: task.domain.clone(),
        state: task.state.to_string(),
        cell_id: task.cell_id.clone(),
        failed: task.failed,
        failure_reason: task.failure_reason.clone(),
        result: task.result.clone(),
        json: json.map_err(|error| Status::internal(error.to_string()))?,
    })
}

fn change(event: &TaskEvent) -> Result<v1::FollowTasksResponse, Status> {
    let (task, before) = match event {
        TaskEvent::Created(task) | TaskEvent::Removed(task) => (task, None),
        TaskEvent::Changed { before, after } => (after, Some(before)),
    };
    Ok(v1::FollowTasksResponse {
        r#type: event.name().to_owned(),
        task: Some(message(task)?),
        before: before.map(|before| message(before)).transpose()?,
    })
}

fn line(line: LogLine) -> v1::TaskLinesResponse {
    v1::TaskLinesResponse {
        source: line.source.to_string(),
        stderr: line.stderr,
        time: Some(time(line.time)),
        text: line.text,
        tags: (*line.tags).clone(),
    }
}

fn behind<T>(_: T) -> Status {
    let text = "the follower is too slow: look at the tasks and follow again";
    Fault::new(ErrorKind::Aborted, "behind", text).into_status()
}

#[tonic::async_trait]
impl DiegoService for Diego {
    type FollowTasksStream = Answers<v1::FollowTasksResponse>;
    type TaskLinesStream = Answers<v1::TaskLinesResponse>;

    async fn desire_task(
        &self,
        request: Request<v1::DesireTaskRequest>,
    ) -> Result<Response<v1::DesireTaskResponse>, Status> {
        let tasks = self.tasks().await?;
        let desired = match request.into_inner().definition {
            None => return Err(bad(missing("definition"))),
            Some(Definition::Json(json)) => read_json(&json, &tasks.settings().rules),
            Some(Definition::Protobuf(bytes)) => {
                desire_from_protobuf(&bytes).map_err(DefinitionError::from)
            }
        };
        let desired = desired.map_err(|error| invalid(&error))?;
        let done = tasks.desire(desired).await;
        done.map_err(|error| match error {
            TaskError::Request(portlayer_taskdef::diego::tasks::RequestError::Invalid(error)) => {
                invalid(&error.into())
            }
            error => refused(&error),
        })?;
        Ok(Response::new(v1::DesireTaskResponse {}))
    }

    async fn desired_task(
        &self,
        request: Request<v1::DesiredTaskRequest>,
    ) -> Result<Response<v1::DesiredTaskResponse>, Status> {
        let task = self.tasks().await?.get(&request.get_ref().task_guid).await;
        let task = message(&task.map_err(|error| refused(&error))?)?;
        Ok(Response::new(v1::DesiredTaskResponse { task: Some(task) }))
    }

    async fn desired_tasks(
        &self,
        request: Request<v1::DesiredTasksRequest>,
    ) -> Result<Response<v1::DesiredTasksResponse>, Status> {
        let v1::DesiredTasksRequest { domain, cell_id } = request.into_inner();
        let tasks = self.tasks().await?.list(&domain, &cell_id).await;
        let tasks = tasks.iter().map(message).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::DesiredTasksResponse { tasks }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let done = self
            .tasks()
            .await?
            .cancel(&request.get_ref().task_guid)
            .await;
        done.map_err(|error| refused(&error))?;
        Ok(Response::new(v1::CancelTaskResponse {}))
    }

    async fn resolve_task(
        &self,
        request: Request<v1::ResolveTaskRequest>,
    ) -> Result<Response<v1::ResolveTaskResponse>, Status> {
        let done = self
            .tasks()
            .await?
            .resolve(&request.get_ref().task_guid)
            .await;
        done.map_err(|error| refused(&error))?;
        Ok(Response::new(v1::ResolveTaskResponse {}))
    }

    async fn delete_task(
        &self,
        request: Request<v1::DeleteTaskRequest>,
    ) -> Result<Response<v1::DeleteTaskResponse>, Status> {
        let done = self
            .tasks()
            .await?
            .delete(&request.get_ref().task_guid)
            .await;
        done.map_err(|error| refused(&error))?;
        Ok(Response::new(v1::DeleteTaskResponse {}))
    }

    async fn follow_tasks(
        &self,
        _: Request<v1::FollowTasksRequest>,
    ) -> Result<Response<Self::FollowTasksStream>, Status> {
        let events = self.tasks().await?.events();
        let first = stream::iter([Ok(v1::FollowTasksResponse::default())]);
        let changes = stream::unfold(Some(events), |events| async move {
            let mut events = events?;
            match events.recv().await {
                Ok(event) => Some((change(&event), Some(events))),
                Err(RecvError::Lagged(missed)) => Some((Err(behind(missed)), None)),
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Response::new(self.0.until_draining(first.chain(changes))))
    }

    async fn task_lines(
        &self,
        request: Request<v1::TaskLinesRequest>,
    ) -> Result<Response<Self::TaskLinesStream>, Status> {
        let v1::TaskLinesRequest { log_guid, follow } = request.into_inner();
        let (lines, more) = self.node()?.lines().follow(&log_guid);
        let lines = stream::iter(lines).map(|there| Ok(line(there)));
        if !follow {
            return Ok(Response::new(Box::pin(lines)));
        }
        let state = Some((more, log_guid));
        let more = stream::unfold(state, |state| async move {
            let (mut more, log_guid) = state?;
            loop {
                match more.recv().await {
                    Ok(new) if *new.stream == *log_guid => {
                        return Some((Ok(line(new)), Some((more, log_guid))));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => return Some((Err(behind(missed)), None)),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(self.0.until_draining(lines.chain(more))))
    }

    async fn upsert_domain(
        &self,
        request: Request<v1::UpsertDomainRequest>,
    ) -> Result<Response<v1::UpsertDomainResponse>, Status> {
        let v1::UpsertDomainRequest { domain, ttl } = request.into_inner();
        if domain.is_empty() {
            let mut fault = Fault::new(
                ErrorKind::InvalidArgument,
                "invalid_request",
                "Invalid field: domain",
            );
            fault.field = Some("domain".to_owned());
            return Err(fault.into_status());
        }
        let ttl = ttl.map(|ttl| {
            let nanos = u32::try_from(ttl.nanos).unwrap_or(0);
            Duration::new(u64::try_from(ttl.seconds).unwrap_or(0), nanos)
        });
        self.tasks().await?.upsert_domain(&domain, ttl);
        Ok(Response::new(v1::UpsertDomainResponse {}))
    }

    async fn domains(
        &self,
        _: Request<v1::DomainsRequest>,
    ) -> Result<Response<v1::DomainsResponse>, Status> {
        let domains = self.tasks().await?.domains();
        Ok(Response::new(v1::DomainsResponse { domains }))
    }
}
