//! `./dev torture`: kills, starves and floods a node and counts what it lost. Prints its figures for people and, as its last
//! line, one JSON object; ends with 1 when a figure is not reached.
//!
//! The driver keeps a model of everything that was acknowledged. A *worker*, this same program, opens the real node, does what
//! it is told and answers; the driver kills it, starts the next one and compares what that one finds with the model.

#![allow(
    clippy::print_stdout,
    reason = "a program for people: its figures go to standard output"
)]

mod engine;
mod full;
mod hand;
mod kill;
mod logs;
mod model;
mod place;
mod power;
mod protocol;
mod report;
mod scale;
mod tasks;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Kills, starves and floods a node, and counts what it lost.
#[derive(Debug, Parser)]
#[command(name = "portlayer-torture")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// How many rounds
    #[arg(long)]
    rounds: Option<u32>,
    /// Chooses what happens; the same seed chooses the same
    #[arg(long)]
    seed: Option<u64>,
    /// Where the node lives: a disk, not memory
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
    /// Leaves the node's directory for a look when something was wrong
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// kill -9 of the port layer at named points and random moments, with tasks running
    Kill {
        #[command(flatten)]
        common: Common,
        /// Only at points whose name begins so
        #[arg(long)]
        point: Option<String>,
    },
    /// Power cuts while the ledger is written: every state the disk may be left in
    Power {
        #[command(flatten)]
        common: Common,
    },
    /// kill -9 of the reader of a task's output while the task writes
    Logs {
        #[command(flatten)]
        common: Common,
    },
    /// Full disks: of the ledger, of volumes, of logs, of the engine
    Full {
        #[command(flatten)]
        common: Common,
    },
    /// kill -9 of containerd and of shims under a node that goes on, with tasks running
    Engine {
        #[command(flatten)]
        common: Common,
        /// How many shims, half of them while containerd is away; two for each five rounds unless told
        #[arg(long)]
        shims: Option<u32>,
    },
    /// How long an open takes with many tasks, many leaked snapshots and many elements to find
    Scale {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        sizes: scale::Sizes,
    },
    /// Removes what a run left that was kept or killed
    Clean {
        /// The directories
        directories: Vec<PathBuf>,
    },
    /// What the driver starts itself for
    #[command(name = worker::COMMAND, hide = true)]
    Worker {
        /// The node's directory
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Kill { common, point } => kill::run(&common, point.as_deref()),
        Command::Power { common } => power::run(&common),
        Command::Logs { common } => logs::run(&common),
        Command::Full { common } => full::run(&common),
        Command::Engine { common, shims } => engine::run(&common, shims),
        Command::Scale { common, sizes } => scale::run(&common, &sizes),
        Command::Clean { directories } => {
            // Dropping a place cleans it.
            directories.into_iter().map(place::Place::at).for_each(drop);
            Ok(true)
        }
        Command::Worker { directory } => worker::run(&directory).map(|()| true),
    }
}

impl Common {
    /// The seed that was asked for, or one of the clock.
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32))
    }
}
