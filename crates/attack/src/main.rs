//! Attacks a node of its own and prints what held. The last line of every run is one JSON object; the exit code is 1 when
//! something did not hold. Needs root.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

mod cost;
mod inputs;
mod limits;
mod node;
mod race;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Attack a node of its own and print what held
#[derive(Debug, Parser)]
#[command(name = "attack")]
struct Arguments {
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Debug, Subcommand)]
enum Attack {
    /// Go beyond every limit and look at the verdicts: memory, processes, disk, inodes, open files
    Limits {
        /// Percent of the full numbers (200 out of memory, 50 fork bombs, 100 disks, 25 inodes, 25 open files)
        #[arg(long, default_value_t = 100)]
        percent: u32,
    },
    /// Hostile archives, paths, ids, texts, images, tasks, and what a task tries from inside
    Inputs {
        /// Try only one in so many of the large classes
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Print every input with what was seen
        #[arg(long)]
        verbose: bool,
    },
    /// Swap links in while files are extracted and collected
    Race {
        /// Operations, over all kinds
        #[arg(long, default_value_t = 5000)]
        count: u32,
    },
    /// Measure what user ids of its own, the seccomp filter and a network name space add to a task
    Cost {
        /// Tasks of each kind
        #[arg(long, default_value_t = 40)]
        rounds: u32,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let held = match Arguments::parse().attack {
        Attack::Limits { percent } => limits::run(percent).await,
        Attack::Inputs { every, verbose } => inputs::run(every, verbose).await,
        Attack::Race { count } => race::run(count),
        Attack::Cost { rounds } => cost::run(rounds).await,
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{}", serde_json::json!({ "error": format!("{error:#}") }));
            ExitCode::from(2)
        }
    }
}
