//! `kill`, `stop`, `pause`, `resume`: disturbing what runs.

use std::time::Duration;

use clap::Args;
use portlayer::compose::{Interrupt, Interrupted};
use portlayer::element::{ElementId, Kind};
use portlayer::runtime::SignalScope;
use portlayer::task::StopSpec;

use crate::cli::context::{Context, usage};
use crate::cli::exit_code;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::{output, parse};

/// Which executor, or which one of its tasks.
#[derive(Debug, Args)]
struct Target {
    /// The executor
    executor: String,
    /// Only this task [default: all of them]
    task: Option<String>,
}

impl Target {
    async fn ids(&self, context: &Context) -> Result<(ElementId, Option<ElementId>), Failure> {
        let names = context.names().await?;
        let executor = usage(names.of_kind(Kind::Executor, &self.executor))?;
        let task = self
            .task
            .as_deref()
            .map(|text| usage(names.of_kind(Kind::Task, text)));
        Ok((executor, task.transpose()?))
    }
}

/// Send a signal
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    target: Target,
    /// Name or number
    #[arg(short, long, value_name = "SIGNAL", value_parser = parse::signal, default_value = "KILL")]
    signal: i32,
    /// To every process of the container, not only the task's first
    #[arg(long)]
    all: bool,
}

/// Stop in stages: the stop signal, after the grace KILL. Returns when it has ended
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    target: Target,
    /// Time between the signals [default: the task's]
    #[arg(short, long, visible_alias = "timeout", value_name = "TIME", value_parser = parse::duration)]
    time: Option<Duration>,
    /// First signal [default: the task's]
    #[arg(short, long, value_name = "SIGNAL", value_parser = parse::signal)]
    signal: Option<i32>,
}

/// Freeze or thaw an executor
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The executor
    executor: String,
}

pub(crate) async fn kill(args: KillArgs, context: &Context) -> Outcome {
    let (executor, task) = args.target.ids(context).await?;
    let how = Interrupt::Signal {
        signal: args.signal,
        scope: if args.all {
            SignalScope::All
        } else {
            SignalScope::Process
        },
    };
    context
        .with_client(async |client| {
            let told = client.interrupt(&executor, task.as_ref(), how).await?;
            Ok(say(&executor, task.as_ref(), &told))
        })
        .await
}

pub(crate) async fn stop(args: StopArgs, context: &Context) -> Outcome {
    let (executor, task) = args.target.ids(context).await?;
    let how = (args.time.is_some() || args.signal.is_some()).then(|| StopSpec {
        signal: args.signal,
        grace_ms: args.time.map_or(StopSpec::default().grace_ms, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        }),
    });
    context
        .with_client(async |client| {
            let told = client
                .interrupt(&executor, task.as_ref(), Interrupt::Stop { how })
                .await?;
            if told == Interrupted::Delivered {
                let stopped = match &task {
                    Some(task) => vec![task.clone()],
                    None => super::tasks(client, &executor).await?,
                };
                for task in stopped {
                    match client.wait(&executor, &task, None).await {
                        Ok(_) => {}
                        Err(error) if error.reason() == "never_started" => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(say(&executor, task.as_ref(), &told))
        })
        .await
}

pub(crate) async fn pause(args: PauseArgs, context: &Context) -> Outcome {
    set_paused(&args, Interrupt::Pause, context).await
}

pub(crate) async fn resume(args: PauseArgs, context: &Context) -> Outcome {
    set_paused(&args, Interrupt::Resume, context).await
}

async fn set_paused(args: &PauseArgs, how: Interrupt, context: &Context) -> Outcome {
    let executor = usage(
        context
            .names()
            .await?
            .of_kind(Kind::Executor, &args.executor),
    )?;
    context
        .with_client(async |client| {
            let told = client.interrupt(&executor, None, how).await?;
            Ok(say(&executor, None, &told))
        })
        .await
}

/// Says what became of it, where it did not simply arrive. 0 = it is as wanted or gone, 5 = it never ran.
fn say(executor: &ElementId, task: Option<&ElementId>, told: &Interrupted) -> Exit {
    let what = task.unwrap_or(executor);
    match told {
        Interrupted::Delivered => Exit::OK,
        Interrupted::AlreadyExited(Some(exit)) => {
            output::note(&format!("{what} had ended: {}", exit_code::describe(exit)));
            Exit::OK
        }
        Interrupted::AlreadyExited(None) => {
            output::note(&format!("{what} had ended"));
            Exit::OK
        }
        Interrupted::NotRunning => {
            output::note(&format!("{what} does not run"));
            Exit(5)
        }
    }
}
