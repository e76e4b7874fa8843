//! `portlayer exec`: one more command in a running executor.

use clap::Args;
use portlayer::compose::TaskBind;
use portlayer::element::{ElementId, Kind, NewElement, Spec};
use portlayer_client::Client;

use super::session::{Ended, Session};
use super::signals::Signals;
use super::start_failure;
use super::temporary::Temporary;
use crate::cli::context::{Context, usage};
use crate::cli::exit_code;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::cli::task_flags::TaskFlags;
use crate::cli::terminal::DetachKeys;

/// Run one more command in a running executor; the exit code is the command's, as for run
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The executor
    executor: String,
    /// Program and arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARGV"
    )]
    argv: Vec<String>,
    #[command(flatten)]
    task: TaskFlags,
    /// Keys that leave a terminal and let the command go on
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) async fn run(args: ExecArgs, context: &Context) -> Outcome {
    let names = context.names().await?;
    let executor = usage(names.of_kind(Kind::Executor, &args.executor))?;
    let task = usage(names.fresh(Kind::Task, "exec"))?;
    let spec = args.task.spec(&args.argv)?;
    let (stdin, tty) = (spec.interaction.stdin, spec.terminal);
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let mut made = Temporary::default();
            let mut new = NewElement::new(task.clone(), Spec::Task(Box::new(spec)));
            new.hidden = true;
            made.create(client, new, None).await?;
            let started = client.exec(&executor, &task, TaskBind::default()).await;
            let ended = match started {
                Ok(run) => {
                    let session = Session {
                        client,
                        executor: &executor,
                        task: &task,
                        run: Some(run.run),
                        replay: true,
                        stdin,
                        tty,
                        sig_proxy: true,
                        detach: args.detach_keys.clone(),
                    };
                    session.stay(&mut signals).await
                }
                Err(error) => Err(start_failure::of(error)),
            };
            if let Ok(Ended::Detached) = ended {
                output::note(&format!("left {task} running in {executor}"));
                return Ok(Exit::OK);
            }
            let left = leave(client, &executor, &task).await;
            let removed = made.remove(client).await;
            let Ended::Exit(exit) = ended? else {
                return Ok(Exit::OK);
            };
            left.and(removed)?;
            if let Some(why) = exit_code::explain(&exit) {
                output::note(&why);
            }
            Ok(exit_code::of(&exit))
        })
        .await
}

/// Takes the command's task out of the composition again.
async fn leave(client: &Client, executor: &ElementId, task: &ElementId) -> Result<(), Failure> {
    let handle = client.compose(executor).await?;
    let handle = client.unbind(handle, Some(task)).await;
    let handle = match handle {
        Ok(handle) => client.leave(handle, task).await?,
        // A start that failed was undone and the task takes no part.
        Err(_) => return Ok(()),
    };
    match client.commit(handle).await {
        Ok(_) => Ok(()),
        // Somebody else changed the executor: the task stays in its composition, as it would after any exec.
        Err(error) if error.reason() == "stale" => Ok(()),
        Err(error) => Err(error.into()),
    }
}
