//! Attacks a node of its own and prints what held. The last line of every run is one JSON object; the exit code is 1 when
//! something did not hold. Needs root.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

mod cost;
mod limits;
mod node;

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
