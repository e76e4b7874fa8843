//! Runs a folder of acceptance cases against a real node: `portlayer-cases DIR [--only TEXT] [--verbose]`; `load` and
//! `kill` desire many tasks at once, and kill the process that runs one everywhere.
//!
//! A line per case, `N passed, N failed`, and as the last line the same as JSON. Expectations are read from the prose of
//! `*.expect.md`, clause by clause; a clause that cannot be read is counted and shown, and a case of which nothing could
//! be checked has failed. Needs root, containerd and a static busybox.
#![allow(clippy::print_stdout, reason = "it is a command")]

mod diego;
mod expect;
mod fixtures;
mod kill;
mod load;
mod observed;
mod rig;
mod server;
mod table;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;

#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    cases: Option<Arguments>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Desires many short tasks at once and counts what became of them; measures what the front end adds to one
    Load(load::LoadArgs),
    /// Kills the process that runs a task at every point of the task's life and looks what the next one makes of it
    Kill,
    /// The process that is killed
    #[command(hide = true)]
    Worker(kill::WorkerArgs),
}

#[derive(clap::Args)]
struct Arguments {
    /// Folder of cases: `NN-name.json` beside `NN-name.expect.md`.
    directory: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Show every clause and the log of every case.
    #[arg(long)]
    verbose: bool,
}

/// What became of one case.
pub(crate) struct Verdict {
    name: String,
    checked: usize,
    failures: Vec<String>,
    unread: Vec<String>,
    /// What the case says of itself that cannot be true, and what was checked instead.
    disputed: Vec<String>,
    details: Vec<String>,
}

impl Verdict {
    fn take(&mut self, clause: String, answer: expect::Answer) {
        match answer {
            expect::Answer::Yes => self.checked += 1,
            expect::Answer::No(why) => {
                self.checked += 1;
                self.failures.push(format!("{clause}: {why}"));
            }
            expect::Answer::NotRead => self.unread.push(clause),
        }
    }

    fn passed(&self) -> bool {
        self.failures.is_empty() && self.checked > 0
    }

    fn print(&self, verbose: bool) {
        let word = if self.passed() { "ok  " } else { "FAIL" };
        let unread = match self.unread.len() {
            0 => String::new(),
            count => format!(", {count} not read"),
        };
        println!("{word} {} ({} checked{unread})", self.name, self.checked);
        for failure in &self.failures {
            println!("       {failure}");
        }
        if self.failures.is_empty() && self.checked == 0 {
            println!("       nothing of the expectation could be checked");
        }
        self.disputed
            .iter()
            .for_each(|told| println!("       disputed: {told}"));
        if verbose {
            self.unread
                .iter()
                .for_each(|clause| println!("       not read: {clause}"));
            self.details
                .iter()
                .for_each(|line| println!("       | {line}"));
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.verb {
        Some(Verb::Load(args)) => return load::run(&args).await,
        Some(Verb::Kill) => return kill::run().await,
        Some(Verb::Worker(args)) => return kill::work(&args).await,
        None => {}
    }
    let arguments = cli.cases.context("which folder of cases? (--help)")?;
    let names = names(&arguments)?;
    ensure!(
        !names.is_empty(),
        "{} has no case that fits",
        arguments.directory.display()
    );
    let rig = rig::Rig::open().await?;
    println!(
        "not enforced by this node yet, and allowed to be missing: {}",
        rig.unenforced()
    );
    let mut verdicts = Vec::new();
    for name in names {
        let verdict = one(&rig, &arguments.directory, &name)
            .await
            .unwrap_or_else(|error| Verdict {
                name: name.clone(),
                checked: 0,
                failures: vec![format!("{error:#}")],
                unread: Vec::new(),
                disputed: Vec::new(),
                details: Vec::new(),
            });
        verdict.print(arguments.verbose);
        verdicts.push(verdict);
    }
    rig.close().await?;
    let failed: Vec<_> = verdicts
        .iter()
        .filter(|verdict| !verdict.passed())
        .map(|verdict| &verdict.name)
        .collect();
    let passed = verdicts.len() - failed.len();
    let disputed: usize = verdicts.iter().map(|verdict| verdict.disputed.len()).sum();
    let unread: usize = verdicts.iter().map(|verdict| verdict.unread.len()).sum();
    println!("{passed} passed, {} failed", failed.len());
    println!(
        "{}",
        json!({ "passed": passed, "failed": failed.len(), "clauses_not_read": unread, "disputed": disputed, "failures": failed })
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn names(arguments: &Arguments) -> Result<Vec<String>> {
    let listed = std::fs::read_dir(&arguments.directory);
    let listed = listed.with_context(|| format!("reading {}", arguments.directory.display()))?;
    let mut names = Vec::new();
    for entry in listed {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".expect.md")
            && arguments
                .only
                .as_ref()
                .is_none_or(|only| name.contains(only.as_str()))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

async fn one(rig: &rig::Rig, directory: &Path, name: &str) -> Result<Verdict> {
    let definition = std::fs::read_to_string(directory.join(format!("{name}.json")))?;
    let expectation = std::fs::read_to_string(directory.join(format!("{name}.expect.md")))?;
    let value: serde_json::Value = serde_json::from_str(&definition)?;
    if value.is_array() {
        return table::check(name, &value);
    }
    ensure!(
        value.get("task_guid").is_some(),
        "the case is neither a task nor a table of tasks"
    );
    diego::run(rig, name, &definition, &expectation).await
}
