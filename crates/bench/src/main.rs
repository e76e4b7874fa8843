//! `./dev bench`: the port layer beside `ctr run --rm`, `runc run` and a minimal containerd client, on one private
//! containerd in one run, and the elements on a ledger on disk. Prints tables, ends with one line of JSON, keeps
//! results and a picture below `target/bench`.
//!
//! Figures of shared machines are worth little; ratios of one run hold (performance.md 3.6).

#![allow(
    clippy::print_stdout,
    reason = "a program for people: its tables go to standard output"
)]

mod busybox;
mod command;
mod elements;
mod machine;
mod report;
mod sample;
mod serve;
mod tasks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use report::{Group, Results, compare, svg, table};
use tasks::{Pace, names};

// As the daemon's.
portlayer_node::allocator!();

/// Measures the port layer side by side with what it stands on.
#[derive(Debug, Parser)]
#[command(name = "portlayer-bench", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    probe: Option<Probe>,
    /// A few rounds only, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Rounds of each latency figure [default: 25, quick: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Elements with 1,000,000 records too (takes minutes)
    #[arg(long)]
    large: bool,
    /// Earlier results to compare with [default: the newest of another commit in the output directory]
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where results and picture go
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Where containerd and the ledger live while measuring: a disk, not memory
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
}

/// What the benchmark starts itself for.
#[derive(Debug, Subcommand)]
enum Probe {
    /// Opens a ledger in a process of its own
    #[command(name = elements::probe::COMMAND, hide = true)]
    Open {
        /// The ledger
        directory: PathBuf,
    },
    /// Serves a node in a process of its own
    #[command(name = serve::daemon::COMMAND, hide = true)]
    Serve {
        /// The node
        directory: PathBuf,
    },
}

/// Parts of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One task, start to end
    Tasks,
    /// Tasks per second
    Throughput,
    /// A Diego task beside the same steps through the port layer
    Diego,
    /// The ledger
    Elements,
    /// The daemon's interface: reads and events over its socket
    Serve,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    fn extent(&self) -> elements::Extent {
        let (sizes, creates, rounds, reads): (&[u64], _, _, _) = match (self.quick, self.large) {
            (true, _) => (&[1_000, 2_000], 100, 1, 500),
            (false, false) => (&[1_000, 100_000], 4_000, 5, 20_000),
            (false, true) => (&[1_000, 100_000, 1_000_000], 4_000, 5, 20_000),
        };
        elements::Extent {
            sizes,
            creates,
            rounds,
            reads,
        }
    }

    fn serving(&self) -> serve::Extent {
        let (reads, events) = match self.quick {
            true => (1_000, 20_000),
            false => (20_000, 1_000_000),
        };
        serve::Extent { reads, events }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 25 })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match &options.probe {
        Some(Probe::Open { directory }) => {
            let opened = elements::probe::open_here(directory).await?;
            println!("{}", serde_json::to_string(&opened)?);
            return Ok(());
        }
        Some(Probe::Serve { directory }) => return serve::daemon::serve_here(directory).await,
        None => {}
    }
    ensure!(options.rounds() > 0, "--rounds must be at least 1");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "must be run as root: it starts a private containerd"
    );
    std::fs::create_dir_all(&options.output)
        .with_context(|| format!("cannot create {}", options.output.display()))?;
    let baseline = options.baseline.as_deref().map(compare::read).transpose()?;
    let directory = tempfile::Builder::new()
        .prefix("portlayer-bench-")
        .tempdir_in(&options.directory)?;
    let mut results = Results {
        commit: machine::commit()?,
        time: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        machine: machine::Machine::look(directory.path())?,
        groups: Vec::new(),
        targets: Vec::new(),
    };
    println!(
        "commit {}, {}",
        results.commit,
        table::machine(&results.machine)
    );
    if cfg!(debug_assertions) {
        println!("CAUTION: a debug build; its figures say nothing");
    }
    measure(&options, directory.path(), &mut results).await?;
    directory.close()?;
    results.targets = report::targets::of(&results.groups);
    show(&options, baseline, &results)
}

/// Runs the wanted parts; each prints its tables as soon as it has them.
async fn measure(options: &Options, directory: &Path, results: &mut Results) -> Result<()> {
    let on_a_node = [Part::Tasks, Part::Throughput, Part::Diego];
    if on_a_node.iter().any(|part| options.wants(*part)) {
        let node = Arc::new(tasks::Node::start(directory).await?);
        let measured = tokio::select! {
            measured = measure_on(options, &node, results) => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        };
        let node = Arc::into_inner(node).context("a variant still holds the node")?;
        let stopped = node.stop().await;
        measured?;
        stopped.context("the node is not clean after the run")?;
    }
    if options.wants(Part::Elements) {
        for group in elements::measure(directory, options.extent()).await? {
            println!("{}", table::group(&group, &[]));
            results.groups.push(group);
        }
    }
    if options.wants(Part::Serve) {
        for group in serve::measure(directory, options.serving()).await? {
            println!("{}", table::group(&group, &[]));
            results.groups.push(group);
        }
    }
    Ok(())
}

async fn measure_on(
    options: &Options,
    node: &Arc<tasks::Node>,
    results: &mut Results,
) -> Result<()> {
    if options.wants(Part::Tasks) || options.wants(Part::Throughput) {
        measure_tasks(options, node, results).await?;
    }
    if options.wants(Part::Diego) {
        measure_diego(options, node, results).await?;
    }
    Ok(())
}

async fn measure_diego(
    options: &Options,
    node: &Arc<tasks::Node>,
    results: &mut Results,
) -> Result<()> {
    let variants = tasks::diego_variants(node).await?;
    let measured = tasks::latency(&variants, Pace::Spaced, options.rounds(), &mut 0).await;
    for variant in &variants {
        variant.end().await;
    }
    let mut group = measured?.exit;
    "diego_exit".clone_into(&mut group.key);
    "A Diego task of one run action, desired to completed".clone_into(&mut group.title);
    println!("{}", table::group(&group, &[]));
    results.groups.push(group);
    Ok(())
}

async fn measure_tasks(
    options: &Options,
    node: &Arc<tasks::Node>,
    results: &mut Results,
) -> Result<()> {
    let variants = tasks::variants(node).await?;
    let mut next = 0;
    if options.wants(Part::Tasks) {
        for pace in [Pace::Spaced, Pace::BackToBack] {
            let latency = tasks::latency(&variants, pace, options.rounds(), &mut next).await?;
            for group in [latency.exit, latency.gone] {
                println!(
                    "{}",
                    table::group(&group, &[names::CTR, names::RUNC, names::DIRECT])
                );
                results.groups.push(group);
            }
            println!("{}", table::group(&latency.phases, &[]));
            results.groups.push(latency.phases);
        }
    }
    if options.wants(Part::Throughput) {
        let (widths, tasks, rounds): (&[usize], _, _) = match options.quick {
            true => (&[1, 4], 4, 1),
            false => (&[1, 2, 4, 8, 16], 32, 3),
        };
        let group = tasks::throughput(&variants, widths, tasks, rounds, &mut next).await?;
        println!("{}", throughput_table(&group, widths));
        results.groups.push(group);
    }
    Ok(())
}

/// One row per variant, one column per width, each with its multiple of `ctr`.
fn throughput_table(group: &Group, widths: &[usize]) -> String {
    let mut header = vec![String::new()];
    header.extend(widths.iter().map(|width| format!("{width} at once")));
    let mut names: Vec<&str> = Vec::new();
    for figure in &group.figures {
        let name = figure.name.rsplit_once(" @").map_or("", |(name, _)| name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |name: &str, width: &usize| {
        let value = group.median(&format!("{name} @{width}"));
        let ctr = group.median(&format!("{} @{width}", names::CTR));
        match (value, ctr) {
            (Some(value), Some(ctr)) => format!("{} ({:.1}x)", report::number(value), value / ctr),
            _ => String::new(),
        }
    };
    let rows = names.iter().map(|name| {
        let mut row = vec![(*name).to_owned()];
        row.extend(widths.iter().map(|width| cell(name, width)));
        row
    });
    let title = format!("{} (multiple of {})", group.title, names::CTR);
    table::titled(&title, &group.note, header, rows)
}

/// Targets, comparison, files, and the line of JSON.
fn show(options: &Options, baseline: Option<Results>, results: &Results) -> Result<()> {
    if !results.targets.is_empty() {
        println!("{}", table::targets(results));
    }
    let baseline = match baseline {
        Some(baseline) => Some(baseline),
        None => compare::newest_older(&options.output, &results.commit)?,
    };
    if let Some(table) = baseline.and_then(|baseline| compare::table(&baseline, results)) {
        println!("{table}");
    }
    let shown = [
        ("task_exit_spaced", Some(names::CTR)),
        ("task_exit_back_to_back", Some(names::CTR)),
        ("task_gone_spaced", Some(names::CTR)),
        ("element_writes", Some("create @1")),
        ("element_access", None),
    ];
    let picture = options.output.join("latest.svg");
    std::fs::write(&picture, svg::draw(results, &shown, "throughput"))?;
    // A few rounds or unoptimised code are nothing to compare a later run with.
    let keep = !options.quick && options.only.is_none() && !cfg!(debug_assertions);
    for path in compare::write(&options.output, results, keep)? {
        println!("kept in {}", path.display());
    }
    println!("drawn in {}", picture.display());
    println!("{}", serde_json::to_string(results)?);
    Ok(())
}
