//! Tasks that go beyond their limits. Each has exactly one right end; every other is a wrong verdict.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt;
use portlayer::{
    PortLayer,
    compose::Interrupt,
    task::{ExecutorSpec, ExitReason, ExitRecord, Limits, Rlimit, StopSpec, TaskSpec},
};
use serde::Serialize;

use crate::node::{Started, finish, on_a_node, script, start};

/// How many tasks are there at once.
const AT_ONCE: usize = 4;
/// A fork bomb is ended in this time, and the API answers in it meanwhile.
const BOMB_LIMIT: Duration = Duration::from_secs(1);
/// What a script returns that was stopped by the limit in the right way.
const STOPPED: i32 = 42;

/// What one kind of attack came to.
#[derive(Debug, Default, Serialize)]
struct Figures {
    tried: u32,
    wrong: u32,
    /// Longest end of a fork bomb, from the stop to the exit record, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_end_ms: Option<u128>,
    /// Longest answer of the API while a fork bomb ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_answer_ms: Option<u128>,
}

/// Runs them all. True: no verdict was wrong.
pub(crate) async fn run(percent: u32) -> Result<bool> {
    let part = |count: u32| (count * percent / 100).max(1);
    let figures = on_a_node(async |layer| {
        Ok([
            (
                "memory",
                verdicts(layer, "memory", part(200), memory, is_oom).await?,
            ),
            ("processes", bombs(layer, part(50)).await?),
            (
                "disk",
                verdicts(layer, "disk", part(100), disk, is_stopped).await?,
            ),
            (
                "inodes",
                verdicts(layer, "inodes", part(25), inodes, is_stopped).await?,
            ),
            (
                "open_files",
                verdicts(layer, "files", part(25), open_files, is_stopped).await?,
            ),
        ])
    })
    .await?;
    for (name, figures) in &figures {
        println!(
            "{name:<10} {:>4} tried, {} wrong verdicts",
            figures.tried, figures.wrong
        );
        if let (Some(end), Some(answer)) = (figures.longest_end_ms, figures.longest_answer_ms) {
            println!(
                "{:<10} longest end {end} ms, longest answer of the API meanwhile {answer} ms",
                ""
            );
        }
    }
    let held = figures.iter().all(|(_, figures)| figures.wrong == 0);
    let all: serde_json::Map<_, _> = figures
        .iter()
        .map(|(name, figures)| Ok((name.to_string(), serde_json::to_value(figures)?)))
        .collect::<Result<_>>()?;
    println!(
        "{}",
        serde_json::json!({ "attack": "limits", "held": held, "kinds": all })
    );
    Ok(held)
}

type Plan = (ExecutorSpec, TaskSpec);

fn limited(limits: Limits) -> ExecutorSpec {
    ExecutorSpec {
        limits,
        ..ExecutorSpec::default()
    }
}

/// Fills memory without end.
fn memory() -> Plan {
    let limits = Limits {
        memory_bytes: Some(16 << 20),
        ..Limits::default()
    };
    let task = TaskSpec {
        argv: ["/bin/busybox", "tail", "/dev/zero"]
            .map(str::to_owned)
            .to_vec(),
        ..TaskSpec::default()
    };
    (limited(limits), task)
}

fn is_oom(exit: &ExitRecord) -> bool {
    exit.reason == ExitReason::Oom && exit.code != Some(0)
}

/// Fills the writable layer.
fn disk() -> Plan {
    let limits = Limits {
        disk_bytes: Some(8 << 20),
        ..Limits::default()
    };
    let text = "said=$(dd if=/dev/zero of=/big bs=64k count=1000 2>&1); case \"$said\" in *'No space left'*) ;; *) exit 1;; esac; \
                [ $(stat -c %s /big) -lt 8388608 ] && [ $(stat -c %s /big) -gt 4194304 ] && exit 42; exit 2";
    (limited(limits), script(text))
}

/// Makes more files than the writable layer holds.
fn inodes() -> Plan {
    let limits = Limits {
        disk_bytes: Some(8 << 20),
        disk_inodes: Some(100),
        ..Limits::default()
    };
    let text = "i=0; while touch /tmp/f$i 2>/dev/null; do i=$((i+1)); [ $i -gt 300 ] && exit 1; done; [ $i -gt 50 ] && exit 42; exit 2";
    (limited(limits), script(text))
}

/// Opens more files than a process may have.
fn open_files() -> Plan {
    let text = "(exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null) 2>/dev/null || exit 1; \
                (exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null 7</dev/null 8</dev/null) 2>/dev/null && exit 2; exit 42";
    let task = TaskSpec {
        rlimits: vec![Rlimit {
            name: "nofile".to_owned(),
            soft: 8,
            hard: 8,
        }],
        ..script(text)
    };
    (ExecutorSpec::default(), task)
}

fn is_stopped(exit: &ExitRecord) -> bool {
    exit.reason == ExitReason::Exited && exit.code == Some(STOPPED)
}

async fn verdicts(
    layer: &PortLayer,
    kind: &str,
    count: u32,
    plan: fn() -> Plan,
    is_right: fn(&ExitRecord) -> bool,
) -> Result<Figures> {
    let mut figures = Figures::default();
    let runs = (0..count).map(async |number| {
        let started = start(layer, &format!("{kind}-{number}"), plan(), "busybox", None).await?;
        finish(layer, &started).await
    });
    let mut exits = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(exit) = exits.next().await {
        let exit = exit?;
        figures.tried += 1;
        if !is_right(&exit) {
            figures.wrong += 1;
            println!("wrong verdict on {kind}: {exit:?}");
        }
    }
    Ok(figures)
}

/// Fork bombs, one at a time: each is stopped, and must end in time while the API answers.
async fn bombs(layer: &PortLayer, count: u32) -> Result<Figures> {
    let mut figures = Figures::default();
    let (mut longest_end, mut longest_answer) = (Duration::ZERO, Duration::ZERO);
    for number in 0..count {
        let limits = Limits {
            pids: Some(128),
            ..Limits::default()
        };
        let plan = (
            limited(limits),
            script("b() { while :; do b & done; }; b 2>/dev/null & exec sleep 1000"),
        );
        let started = start(layer, &format!("bomb-{number}"), plan, "busybox", None).await?;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let asked = Instant::now();
        layer.read(&started.executor).await?;
        let answer = asked.elapsed();
        let (end, exit) = stop(layer, &started).await?;
        figures.tried += 1;
        let right = exit.reason == ExitReason::Cancelled;
        if !right || end > BOMB_LIMIT || answer > BOMB_LIMIT {
            figures.wrong += 1;
            println!(
                "wrong verdict on a fork bomb: ended after {end:?}, answer after {answer:?}: {exit:?}"
            );
        }
        (longest_end, longest_answer) = (longest_end.max(end), longest_answer.max(answer));
    }
    figures.longest_end_ms = Some(longest_end.as_millis());
    figures.longest_answer_ms = Some(longest_answer.as_millis());
    Ok(figures)
}

async fn stop(layer: &PortLayer, started: &Started) -> Result<(Duration, ExitRecord)> {
    let begun = Instant::now();
    let how = StopSpec {
        signal: Some(9),
        grace_ms: 0,
    };
    let interrupt = Interrupt::Stop { how: Some(how) };
    layer
        .interrupt(&started.executor, Some(&started.task), interrupt)
        .await?;
    layer.wait(&started.executor, &started.task, None).await?;
    let end = begun.elapsed();
    Ok((end, finish(layer, started).await?))
}
