//! Commands about running tasks: `run`, `exec`, `attach`, `logs`, `wait`, `ps`, `kill`, `stop`, `pause`, `resume`.

pub(crate) mod attach;
pub(crate) mod exec;
pub(crate) mod interrupt;
pub(crate) mod logs;
pub(crate) mod ps;
mod remove;
pub(crate) mod run;
mod session;
pub(crate) mod signals;
mod start_failure;
mod temporary;
pub(crate) mod wait;

use clap::Args;
use portlayer::compose::Composition;
use portlayer::element::{Body, ElementId, Kind};
use portlayer_client::Client;

use super::context::{Context, usage};
use super::failure::Failure;
pub(crate) use remove::executor as remove_executor;

/// Which task of which executor.
#[derive(Debug, Clone, Args)]
pub(crate) struct TaskArg {
    /// The executor
    executor: String,
    /// The task; may be left out when the executor has only one
    task: Option<String>,
}

impl TaskArg {
    /// The ids.
    async fn resolve(
        &self,
        client: &Client,
        context: &Context,
    ) -> Result<(ElementId, ElementId), Failure> {
        let names = context.names().await?;
        let executor = usage(names.of_kind(Kind::Executor, &self.executor))?;
        let task = match &self.task {
            Some(text) => usage(names.of_kind(Kind::Task, text))?,
            None => only_task(client, &executor).await?,
        };
        Ok((executor, task))
    }
}

/// The task of an executor that has one; tasks that took part once count only when none does now.
async fn only_task(client: &Client, executor: &ElementId) -> Result<ElementId, Failure> {
    let composition = composition(client, executor).await?;
    let joined = composition.joined.into_keys();
    let mut tasks: Vec<_> = joined.filter(|id| id.kind() == Kind::Task).collect();
    if tasks.is_empty() {
        tasks = composition.runs.into_keys().collect();
    }
    match tasks.as_slice() {
        [task] => Ok(task.clone()),
        [] => Err(Failure::usage(format!("{executor} has no task"))),
        several => {
            let names: Vec<_> = several.iter().map(ElementId::as_str).collect();
            Err(Failure::usage(format!(
                "{executor} has several tasks, say which: {}",
                names.join(", ")
            )))
        }
    }
}

/// The tasks that take or took part in an executor.
async fn tasks(client: &Client, executor: &ElementId) -> Result<Vec<ElementId>, Failure> {
    let composition = composition(client, executor).await?;
    let mut tasks: Vec<ElementId> = composition
        .joined
        .into_keys()
        .filter(|id| id.kind() == Kind::Task)
        .chain(composition.runs.into_keys())
        .collect();
    tasks.sort();
    tasks.dedup();
    Ok(tasks)
}

async fn composition(client: &Client, executor: &ElementId) -> Result<Composition, Failure> {
    let element = client.read(executor).await?;
    match element.body {
        Body::Executor(body) => Ok(body.composition),
        _ => Err(Failure::usage(format!("{executor} is no executor"))),
    }
}
