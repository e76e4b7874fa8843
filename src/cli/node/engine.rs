//! `portlayer engine`: the private containerd.

use std::os::unix::net::UnixStream;

use clap::{Args, Subcommand};

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{self, OutputArgs};

/// The private containerd: without a daemon it runs while something runs in it. These verbs speak to no daemon and need
/// its data directory; while a daemon has that, only status works
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Whether it runs; 0 = yes, 5 = no
    Status {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// End it; elements, images, volumes and logs stay
    Stop {
        /// Although executors run: their tasks are killed
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the whole data directory: engine, tasks, mounts, cgroups, elements, all data
    Clean {
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(args: EngineArgs, context: &Context) -> Outcome {
    let config = context.config();
    match args.verb {
        Verb::Status { output } => {
            let socket = config.data_dir.join("containerd.sock");
            let running = UnixStream::connect(&socket).is_ok();
            let state = if running { "running" } else { "stopped" };
            let value = serde_json::json!({"state": state, "socket": socket});
            let lines: [(String, Vec<u8>); 2] = [
                ("state".to_owned(), state.into()),
                ("socket".to_owned(), socket.display().to_string().into()),
            ];
            context.out(output).one(&value, state, &lines)?;
            Ok(if running { Exit::OK } else { Exit(5) })
        }
        Verb::Stop { force } => context.stop_engine(force).await,
        Verb::Clean { yes } => {
            let directory = config.data_dir.clone();
            if !yes {
                return Err(Failure::usage(format!(
                    "this removes everything in {}; say --yes",
                    directory.display()
                )));
            }
            let shown = directory.display().to_string();
            tokio::task::spawn_blocking(move || portlayer_node::clean(&directory))
                .await
                .map_err(std::io::Error::other)?
                .map_err(|error| context.not_ours(error.into()))?;
            output::note(&format!("removed {shown}"));
            Ok(Exit::OK)
        }
    }
}
