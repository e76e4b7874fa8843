//! `portlayer completion SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::{Exit, Outcome};
use super::output;

/// Print shell completions
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell; put the output where it looks for completions, e.g. `source <(portlayer completion bash)`
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "portlayer", &mut script);
    output::raw(false, &script)?;
    Ok(Exit::OK)
}
