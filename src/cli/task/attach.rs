//! `portlayer attach`: go to a running task and stay until it ends.

use clap::Args;
use portlayer::element::{Body, ElementId};
use portlayer_client::Client;

use super::TaskArg;
use super::session::{Ended, Session};
use super::signals::Signals;
use crate::cli::context::Context;
use crate::cli::exit_code;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::cli::terminal::DetachKeys;

/// Show a running task's output and pass input and signals on; the exit code is the task's, as for run
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Output only
    #[arg(long)]
    no_stdin: bool,
    /// Output from its beginning
    #[arg(long)]
    replay: bool,
    /// Do not pass signals on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Keys that leave the task
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

pub(crate) async fn run(args: AttachArgs, context: &Context) -> Outcome {
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let (executor, task) = args.task.resolve(client, context).await?;
            let (interactive, tty) = abilities(client, &executor, &task).await?;
            let session = Session {
                client,
                executor: &executor,
                task: &task,
                run: None,
                replay: args.replay,
                stdin: interactive && !args.no_stdin,
                tty,
                sig_proxy: args.sig_proxy,
                detach: args.detach_keys.clone(),
            };
            match session.stay(&mut signals).await? {
                Ended::Exit(exit) => {
                    if let Some(why) = exit_code::explain(&exit) {
                        output::note(&why);
                    }
                    Ok(exit_code::of(&exit))
                }
                Ended::Detached => Ok(Exit::OK),
            }
        })
        .await
}

/// Whether the task takes input and whether it has a terminal.
async fn abilities(
    client: &Client,
    executor: &ElementId,
    task: &ElementId,
) -> Result<(bool, bool), Failure> {
    let element = client.read(executor).await?;
    let Body::Executor(body) = element.body else {
        return Ok((false, false));
    };
    Ok(
        match body.composition.joined.get(task).map(|joined| &joined.role) {
            Some(portlayer::compose::Role::Task { spec, .. }) => {
                (spec.interaction.stdin, spec.terminal)
            }
            _ => (false, false),
        },
    )
}
