//! Diego's tasks over the wire. A definition is Diego's own JSON; a task is [`v1::DiegoTask`], whose `json` is all of it.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use portlayer_proto::v1;
use portlayer_proto::v1::diego_service_client::DiegoServiceClient;
use tonic::transport::Channel;

use crate::connection::{ANSWER_BYTES, request};
use crate::{Client, Error};

/// Changes of tasks, in order. Ends with an error when the daemon goes away: what changed meanwhile must be looked up.
pub type TaskChanges = Pin<Box<dyn Stream<Item = Result<v1::FollowTasksResponse, Error>> + Send>>;

/// Lines of a log stream.
pub type TaskLines = Pin<Box<dyn Stream<Item = Result<v1::TaskLinesResponse, Error>> + Send>>;

fn service(channel: Channel) -> DiegoServiceClient<Channel> {
    DiegoServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}

impl Client {
    /// Desires a task of Diego's JSON, flat or nested. Refusals have Diego's texts.
    pub async fn desire_task(&self, json: Vec<u8>) -> Result<(), Error> {
        let message = v1::DesireTaskRequest {
            definition: Some(v1::desire_task_request::Definition::Json(json.into())),
        };
        let mut service = service(self.channel());
        self.change("desire_task", service.desire_task(message))
            .await?;
        Ok(())
    }

    /// One of Diego's tasks.
    pub async fn desired_task(&self, guid: &str) -> Result<v1::DiegoTask, Error> {
        let message = v1::DesiredTaskRequest {
            task_guid: guid.to_owned(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).desired_task(message).await }
        };
        let answer = self.look("desired_task", call).await?;
        answer.task.ok_or(Error::Short("desired_task"))
    }

    /// Diego's tasks of a domain and a cell, in the order of guids; an empty name stands for all.
    pub async fn desired_tasks(
        &self,
        domain: &str,
        cell: &str,
    ) -> Result<Vec<v1::DiegoTask>, Error> {
        let message = v1::DesiredTasksRequest {
            domain: domain.to_owned(),
            cell_id: cell.to_owned(),
        };
        let call = |channel| {
            let message = message.clone();
            async move { service(channel).desired_tasks(message).await }
        };
        Ok(self.look("desired_tasks", call).await?.tasks)
    }

    /// Cancels a pending or running task of Diego's.
    pub async fn cancel_task(&self, guid: &str) -> Result<(), Error> {
        let message = v1::CancelTaskRequest {
            task_guid: guid.to_owned(),
        };
        let mut service = service(self.channel());
        self.change("cancel_task", service.cancel_task(message))
            .await?;
        Ok(())
    }

    /// Takes a completed task of Diego's for resolving.
    pub async fn resolve_task(&self, guid: &str) -> Result<(), Error> {
        let message = v1::ResolveTaskRequest {
            task_guid: guid.to_owned(),
        };
        let mut service = service(self.channel());
        self.change("resolve_task", service.resolve_task(message))
            .await?;
        Ok(())
    }

    /// Removes a task of Diego's that is being resolved.
    pub async fn delete_task(&self, guid: &str) -> Result<(), Error> {
        let message = v1::DeleteTaskRequest {
            task_guid: guid.to_owned(),
        };
        let mut service = service(self.channel());
        self.change("delete_task", service.delete_task(message))
            .await?;
        Ok(())
    }

    /// Follows changes of Diego's tasks. When this returns the subscription stands.
    pub async fn follow_tasks(&self) -> Result<TaskChanges, Error> {
        let limit = self.long();
        let call = |channel| {
            let message = request(v1::FollowTasksRequest {}, limit);
            async move { service(channel).follow_tasks(message).await }
        };
        let mut answers = self.watch("follow_tasks", call).await?;
        if answers.message().await?.is_none() {
            return Err(Error::Short("follow_tasks"));
        }
        Ok(Box::pin(answers.map(|answer| answer.map_err(Error::from))))
    }

    /// The newest lines of a log stream of Diego's tasks, with `follow` also those to come.
    pub async fn task_lines(&self, log_guid: &str, follow: bool) -> Result<TaskLines, Error> {
        let limit = self.long();
        let call = |channel| {
            let message = v1::TaskLinesRequest {
                log_guid: log_guid.to_owned(),
                follow,
            };
            let message = request(message, limit);
            async move { service(channel).task_lines(message).await }
        };
        let answers = self.watch("task_lines", call).await?;
        Ok(Box::pin(answers.map(|answer| answer.map_err(Error::from))))
    }

    /// Vouches for a domain of Diego's for so long; `None` = for ever.
    pub async fn upsert_domain(&self, domain: &str, ttl: Option<Duration>) -> Result<(), Error> {
        let ttl = ttl.map(|ttl| prost_types::Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or(0),
        });
        let message = v1::UpsertDomainRequest {
            domain: domain.to_owned(),
            ttl,
        };
        let mut service = service(self.channel());
        self.change("upsert_domain", service.upsert_domain(message))
            .await?;
        Ok(())
    }

    /// The domains of Diego's that somebody vouches for.
    pub async fn domains(&self) -> Result<Vec<String>, Error> {
        let call = |channel| async move { service(channel).domains(v1::DomainsRequest {}).await };
        Ok(self.look("domains", call).await?.domains)
    }
}
