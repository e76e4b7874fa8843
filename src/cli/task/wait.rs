//! `portlayer wait`: until a task ended.

use clap::Args;

use super::TaskArg;
use crate::cli::context::Context;
use crate::cli::exit_code;
use crate::cli::failure::{Outcome, fail};
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
        .with_node(async |node| {
            let (executor, task) = args.task.resolve(node, context).await?;
            let exit = node
                .layer()
                .wait(&executor, &task, args.run)
                .await
                .map_err(fail)?;
            context
                .out(args.output)
                .one(&exit, task.as_str(), &rows::exit_details(&exit))?;
            Ok(exit_code::of(&exit))
        })
        .await
}
