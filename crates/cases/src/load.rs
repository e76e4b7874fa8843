//! Many short tasks at once, and what the front end adds to one.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use portlayer::compose::JoinHow;
use portlayer::element::{ElementId, NewElement, Spec};
use portlayer::task::{ExecutorSpec, TaskSpec};
use portlayer_taskdef::diego::{State, TaskEvent, read_json};
use serde_json::json;

use crate::rig::Rig;

/// What is measured.
#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Tasks desired at once.
    #[arg(long, default_value_t = 1000)]
    tasks: usize,
    /// Tasks one after the other, each way, for the median of what the front end adds.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
}

/// No task takes longer.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Desires and counts; the last line is JSON.
pub(crate) async fn run(args: &LoadArgs) -> Result<ExitCode> {
    let rig = Rig::open_for(PATIENCE).await?;
    let (direct, through, phases) = overhead(&rig, args.pairs).await?;
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
            "core_ms": round(direct), "diego_ms": round(through), "added_ms": round(through - direct),
            "waited_for": phases,
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

/// Medians in milliseconds of the same process, through the port layer alone and as a task of the front end: from the
/// request to its end, and what both waited for.
async fn overhead(rig: &Rig, pairs: usize) -> Result<(f64, f64, &'static str)> {
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for number in 0..pairs {
        direct.push(core(rig, number).await?);
        through.push(task(rig, number).await?);
    }
    Ok((
        median(&mut direct),
        median(&mut through),
        "from the request until the end is told: container, one process in it, container gone",
    ))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// What the front end does for a task, by hand: an executor that waits, one process in it, and its removal.
async fn core(rig: &Rig, number: usize) -> Result<f64> {
    let layer = &rig.node.port_layer;
    let image: ElementId = "image://images/cflinuxfs4".parse()?;
    let executor: ElementId = format!("executor://executors/core-{number}").parse()?;
    let hold: ElementId = format!("task://tasks/core-{number}/hold").parse()?;
    let task: ElementId = format!("task://tasks/core-{number}/run").parse()?;
    let program = |argv: &[&str]| TaskSpec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        user: Some("0:0".to_owned()),
        cwd: Some("/".to_owned()),
        ..TaskSpec::default()
    };
    let begun = Instant::now();
    let spec = Spec::Executor(Box::<ExecutorSpec>::default());
    layer
        .create(NewElement::new(executor.clone(), spec))
        .await?;
    for (id, argv) in [
        (&hold, &["/dev/.portlayer/init"][..]),
        (&task, &["/bin/true"]),
    ] {
        let spec = Spec::Task(Box::new(program(argv)));
        layer.create(NewElement::new(id.clone(), spec)).await?;
    }
    let network: ElementId = "network://node/tasks".parse()?;
    let use_of = portlayer::network::NetworkUse {
        egress: Some(Vec::new()),
        ..portlayer::network::NetworkUse::default()
    };
    let joins = [
        (&image, JoinHow::root()),
        (&network, JoinHow::Network(use_of)),
        (&hold, JoinHow::Task),
    ];
    let handle = layer.composed(&executor, joins).await?;
    layer.commit(handle).await?;
    let run = layer.exec(&executor, &task, Default::default()).await?;
    let exit = layer.wait(&executor, &task, Some(run.run)).await?;
    if exit.code != Some(0) {
        bail!("the process ended with {exit:?}");
    }
    let stop = portlayer::compose::Interrupt::Stop { how: None };
    layer.interrupt(&executor, None, stop).await?;
    layer.wait(&executor, &hold, None).await?;
    loop {
        match layer.delete(&executor).await {
            Ok(_) => break,
            Err(
                portlayer::error::DeleteError::InvalidState { .. }
                | portlayer::error::DeleteError::InUse { .. },
            ) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
    for id in [&task, &hold] {
        layer.delete(id).await?;
    }
    Ok(ms(begun))
}

async fn task(rig: &Rig, number: usize) -> Result<f64> {
    let guid = format!("pair-{number}");
    let mut events = rig.tasks.events();
    let begun = Instant::now();
    let desired = read_json(definition(&guid).as_bytes(), &Default::default())?;
    rig.tasks.desire(desired).await?;
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        let event = event.context("it did not end")??;
        if let TaskEvent::Changed { after, .. } = event
            && after.task_guid == guid
            && after.state == State::Completed
        {
            let took = ms(begun);
            if after.failed {
                bail!("the task failed: {}", after.failure_reason);
            }
            rig.tasks.resolve(&guid).await?;
            rig.tasks.delete(&guid).await?;
            return Ok(took);
        }
    }
}
