//! The command line: one file per subcommand, each thin: parse, call the port layer, show.

mod completion;
mod config;
mod context;
mod failure;
mod output;
mod parse;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use portlayer_node::config::{self as settings, EngineMode, Environment, Flags};

use context::Context;
use failure::{Failure, Outcome};
use output::{ColorChoice, ProgressMode};

/// Runs other people's task definitions on one node, on containerd.
#[derive(Debug, Parser)]
#[command(
    name = "portlayer",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file [env: PORTLAYER_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    config: Option<PathBuf>,
    /// Directory of everything persistent [env: PORTLAYER_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Node")]
    data_dir: Option<PathBuf>,
    /// private = our own containerd below the data directory, system = the one at --address [env: PORTLAYER_ENGINE]
    #[arg(long, global = true, value_name = "MODE", help_heading = "Node")]
    engine: Option<EngineMode>,
    /// Socket of the system's containerd [env: PORTLAYER_ADDRESS, CONTAINERD_ADDRESS]
    #[arg(long, global = true, value_name = "SOCKET", help_heading = "Node")]
    address: Option<PathBuf>,
    /// containerd namespace [env: PORTLAYER_NAMESPACE, CONTAINERD_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Node")]
    namespace: Option<String>,
    /// Open the port layer in this process (the only way until there is a daemon)
    #[arg(long, global = true, help_heading = "Node")]
    embedded: bool,
    /// Show the causes of errors and log what happens (RUST_LOG has the last word)
    #[arg(long, global = true, help_heading = "Display")]
    debug: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Display"
    )]
    color: ColorChoice,
    /// How to show progress
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "HOW",
        help_heading = "Display"
    )]
    progress: ProgressMode,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(config::ConfigArgs),
    Completion(completion::CompletionArgs),
}

/// Parses the arguments, runs the command and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let debug = cli.global.debug;
    match execute(cli) {
        Ok(exit) => exit.into(),
        // As if the signal had ended us: 128 + SIGPIPE.
        Err(failure) if failure.is_broken_pipe() => ExitCode::from(128 + 13),
        Err(failure) => {
            output::failure(&failure.text(debug));
            ExitCode::from(failure.code())
        }
    }
}

fn execute(cli: Cli) -> Outcome {
    let global = cli.global;
    let flags = Flags {
        config: global.config,
        data_dir: global.data_dir,
        engine: global.engine,
        address: global.address,
        namespace: global.namespace,
    };
    let color = global.color.decide(
        |name| std::env::var(name).ok(),
        std::io::stdout().is_terminal(),
    );
    let context = || -> Result<Context, Failure> {
        let loaded = settings::load(&flags, &Environment::of_process())?;
        Ok(Context::new(loaded, color, global.progress))
    };
    match cli.command {
        Command::Config(args) => config::run(&args, &context()?),
        Command::Completion(args) => completion::run(&args),
    }
}
