//! Many short tasks at once. What the front end adds to one is the benchmark's to say.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use portlayer_taskdef::diego::{State, read_json};
use serde_json::json;

use crate::rig::Rig;

/// What is measured.
#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Tasks desired at once.
    #[arg(long, default_value_t = 1000)]
    tasks: usize,
}

/// No task takes longer.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Desires and counts; the last line is JSON.
pub(crate) async fn run(args: &LoadArgs) -> Result<ExitCode> {
    let rig = Rig::open_for(PATIENCE).await?;
    let (completed, failed, seconds) = many(&rig, args.tasks).await?;
    let lost = args.tasks - completed;
    // Says what was left, if anything was.
    let leaked = rig
        .close()
        .await
        .map_err(|error| println!("{error:#}"))
        .is_err();
    println!(
        "{}",
        json!({
            "tasks": args.tasks, "completed": completed, "failed": failed, "lost": lost, "leaked": leaked,
            "seconds": seconds, "tasks_per_second": round(per_second(completed, seconds)),
        })
    );
    let good = lost == 0 && failed == 0 && !leaked;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.001)
}

fn definition(guid: &str) -> String {
    json!({
        "task_guid": guid, "domain": "load", "rootfs": "preloaded:cflinuxfs4",
        "action": { "run": { "path": "/bin/true", "user": "root", "dir": "/" } },
    })
    .to_string()
}

/// Desires all at once and waits for their ends.
async fn many(rig: &Rig, count: usize) -> Result<(usize, usize, f64)> {
    let mut events = rig.tasks.events();
    let begun = Instant::now();
    let mut open = BTreeSet::new();
    for number in 0..count {
        let guid = format!("load-{number}");
        open.insert(guid.clone());
    }
    let desires = open.iter().map(|guid| async move {
        let desired = read_json(definition(guid).as_bytes(), &Default::default())?;
        anyhow::Ok(rig.tasks.desire(desired).await?)
    });
    futures::future::try_join_all(desires).await?;
    let (mut completed, mut failed) = (0, 0);
    while !open.is_empty() {
        // A busy minute makes more events than anyone keeps: the tasks themselves are looked at.
        let _ = tokio::time::timeout(Duration::from_millis(500), events.recv()).await;
        if begun.elapsed() > PATIENCE {
            break;
        }
        for guid in open.clone() {
            let task = rig.tasks.get(&guid).await;
            let task = task.context("its record is gone")?;
            if task.state != State::Completed {
                continue;
            }
            open.remove(&guid);
            completed += 1;
            if task.failed {
                failed += 1;
                println!("{guid}: {}", task.failure_reason);
            }
            rig.tasks.resolve(&guid).await?;
            rig.tasks.delete(&guid).await?;
        }
    }
    Ok((completed, failed, round(begun.elapsed().as_secs_f64())))
}
