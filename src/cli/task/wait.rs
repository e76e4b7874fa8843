//! `portlayer wait`: until a task ended.

use clap::Args;

use super::TaskArg;
use crate::cli::context::Context;
use crate::cli::exit_code;
use crate::cli::failure::Outcome;
use crate::cli::output::OutputArgs;
use crate::cli::rows;

/// Wait until a task ended and show how; the exit code is the task's, as for run
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    task: TaskArg,
    /// This run of the task [default: the newest]
    #[arg(long)]
    run: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: WaitArgs, context: &Context) -> Outcome {
    context
        .with_client(async |client| {
            let (executor, task) = args.task.resolve(client, context).await?;
            let exit = client.wait(&executor, &task, args.run).await?;
            context
                .out(args.output)
                .one(&exit, task.as_str(), &rows::exit_details(&exit))?;
            Ok(exit_code::of(&exit))
        })
        .await
}
