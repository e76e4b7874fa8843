//! `portlayer diego`: Diego's tasks with the verbs and the output of its own tool, one JSON object per line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output;
use super::task::signals::Signals;

/// Tasks in the form of Cloud Foundry's Diego
///
/// The verbs and the output are those of Diego's own tool: one JSON object per line. Without a daemon the node is opened
/// in this process, and create-task waits until the task ended, for nobody else would run it.
#[derive(Debug, Args)]
pub(crate) struct DiegoArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    CreateTask(CreateArgs),
    /// Show a task
    Task(GuidArgs),
    Tasks(ListArgs),
    /// Cancel a pending or running task: it is completed at once
    CancelTask(GuidArgs),
    /// Take a completed task for resolving
    ResolveTask(GuidArgs),
    /// Resolve a completed task and delete it
    DeleteTask(GuidArgs),
    /// Follow changes of tasks
    TaskEvents,
    TaskLogs(LogsArgs),
    SetDomain(DomainArgs),
    /// List the domains somebody vouches for
    Domains,
}

/// Desire a task
#[derive(Debug, Args)]
struct CreateArgs {
    /// The definition as JSON, or @FILE
    #[arg(value_name = "SPEC|@FILE", required_unless_present = "file")]
    spec: Option<String>,
    /// File with the definition; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "spec")]
    file: Option<PathBuf>,
    /// Wait until the task is completed, show it, and exit with 1 when it failed
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct GuidArgs {
    /// Guid of the task
    #[arg(value_name = "TASK_GUID")]
    guid: String,
}

/// List tasks
#[derive(Debug, Args)]
struct ListArgs {
    /// Only those of this domain
    #[arg(short, long, default_value = "", hide_default_value = true)]
    domain: String,
    /// Only those that run on this cell
    #[arg(short, long, default_value = "", hide_default_value = true)]
    cell_id: String,
}

/// Show the newest lines of a log stream
#[derive(Debug, Args)]
struct LogsArgs {
    /// Name of the stream: the log_guid of tasks
    #[arg(value_name = "LOG_GUID")]
    log_guid: String,
    /// Go on with the lines to come, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// One JSON object per line, with source, time and tags
    #[arg(long)]
    json: bool,
}

/// Vouch for a domain
#[derive(Debug, Args)]
struct DomainArgs {
    /// The domain
    domain: String,
    /// For how many seconds; without it for ever
    #[arg(short, long, value_name = "SECONDS")]
    ttl: Option<u64>,
}

pub(crate) async fn run(args: DiegoArgs, context: &Context) -> Outcome {
    match args.verb {
        Verb::CreateTask(args) => create(args, context).await,
        Verb::Task(args) => {
            context
                .with_client(async |client| line(&client.desired_task(&args.guid).await?.json))
                .await
        }
        Verb::Tasks(args) => {
            context
                .with_client(async |client| {
                    for task in client.desired_tasks(&args.domain, &args.cell_id).await? {
                        line(&task.json)?;
                    }
                    Ok(Exit::OK)
                })
                .await
        }
        Verb::CancelTask(args) => {
            context
                .with_client(async |client| {
                    Ok(client.cancel_task(&args.guid).await.map(|()| Exit::OK)?)
                })
                .await
        }
        Verb::ResolveTask(args) => {
            context
                .with_client(async |client| {
                    Ok(client.resolve_task(&args.guid).await.map(|()| Exit::OK)?)
                })
                .await
        }
        Verb::DeleteTask(args) => {
            context
                .with_client(async |client| {
                    client.resolve_task(&args.guid).await?;
                    client.delete_task(&args.guid).await?;
                    Ok(Exit::OK)
                })
                .await
        }
        Verb::TaskEvents => events(context).await,
        Verb::TaskLogs(args) => logs(args, context).await,
        Verb::SetDomain(args) => {
            let ttl = args.ttl.map(Duration::from_secs);
            context
                .with_client(async |client| {
                    client.upsert_domain(&args.domain, ttl).await?;
                    Ok(Exit::OK)
                })
                .await
        }
        Verb::Domains => {
            context
                .with_client(async |client| {
                    for domain in client.domains().await? {
                        output::write_json_line(&domain)?;
                    }
                    Ok(Exit::OK)
                })
                .await
        }
    }
}

fn line(json: &str) -> Outcome {
    output::write_out(&format!("{json}\n"))?;
    Ok(Exit::OK)
}

async fn create(args: CreateArgs, context: &Context) -> Outcome {
    let CreateArgs { spec, file, wait } = args;
    let spec = tokio::task::spawn_blocking(move || definition(spec, file)).await;
    let spec = spec.map_err(|error| Failure::usage(error.to_string()))??;
    context
        .with_client(async |client| {
            if !wait {
                client.desire_task(spec).await?;
                return Ok(Exit::OK);
            }
            let guid = guid(&spec)?;
            let mut changes = client.follow_tasks().await?;
            client.desire_task(spec).await?;
            while let Some(change) = changes.next().await {
                let task = change?.task.unwrap_or_default();
                if task.task_guid == guid && task.state == "Completed" {
                    line(&task.json)?;
                    return Ok(Exit(u8::from(task.failed)));
                }
            }
            line(&client.desired_task(&guid).await?.json)
        })
        .await
}

fn definition(spec: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let path = match (spec, file) {
        (_, Some(file)) => file,
        (Some(spec), None) => match spec.strip_prefix('@') {
            Some(path) => PathBuf::from(path),
            None => return Ok(spec.into_bytes()),
        },
        (None, None) => return Err(Failure::usage("a definition is needed")),
    };
    let read = match path.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        }
        false => std::fs::read(&path),
    };
    read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))
}

fn guid(spec: &[u8]) -> Result<String, Failure> {
    let read: Value = serde_json::from_slice(spec)
        .map_err(|error| Failure::usage(format!("the definition is not JSON: {error}")))?;
    Ok(read["task_guid"].as_str().unwrap_or_default().to_owned())
}

async fn events(context: &Context) -> Outcome {
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let mut changes = client.follow_tasks().await?;
            loop {
                let change = tokio::select! {
                    biased;
                    number = signals.ending() => return Ok(Exit::of_signal(number)),
                    change = changes.next() => change,
                };
                let Some(change) = change else {
                    return Ok(Exit::OK);
                };
                let change = change?;
                let task = |task: Option<portlayer_proto::v1::DiegoTask>| {
                    let json = task.map(|task| task.json).unwrap_or_default();
                    serde_json::from_str::<Value>(&json).unwrap_or_default()
                };
                let data = match change.before {
                    Some(before) => json!({
                        "task_before": task(Some(before)),
                        "task_after": task(change.task),
                    }),
                    None => json!({ "task": task(change.task) }),
                };
                output::write_json_line(&json!({ "type": change.r#type, "data": data }))?;
            }
        })
        .await
}

async fn logs(args: LogsArgs, context: &Context) -> Outcome {
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let mut lines = client.task_lines(&args.log_guid, args.follow).await?;
            loop {
                let line = tokio::select! {
                    biased;
                    number = signals.ending() => return Ok(Exit::of_signal(number)),
                    line = lines.next() => line,
                };
                let Some(line) = line else {
                    return Ok(Exit::OK);
                };
                let line = line?;
                match args.json {
                    true => {
                        let time = line.time.unwrap_or_default();
                        output::write_json_line(&json!({
                            "source": line.source,
                            "stderr": line.stderr,
                            "timestamp": time.seconds.saturating_mul(1_000_000_000) + i64::from(time.nanos),
                            "text": line.text,
                            "tags": line.tags,
                        }))?;
                    }
                    false => {
                        let text = output::escape::escape_message(&line.text);
                        output::write_out(&format!("[{}] {text}\n", line.source))?;
                    }
                }
            }
        })
        .await
}
