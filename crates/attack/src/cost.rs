//! What isolation adds to one task, from the commit to its exit record.

use std::time::{Duration, Instant};

use anyhow::Result;
use portlayer::{
    PortLayer,
    element::ElementId,
    task::{ExecutorSpec, Isolation},
};

use crate::node::{finish, image, many_files, on_a_node, script, start};

/// What may be added (issue 4).
const MOST_ADDED: Duration = Duration::from_millis(15);
/// Files of the large image.
const FILES: u32 = 20_000;

/// Ways to run the same task: name, image, isolation, on the host's network.
fn ways() -> [(&'static str, &'static str, Isolation, bool); 4] {
    let host = Isolation {
        host_users: true,
        ..Isolation::default()
    };
    let bare = Isolation {
        privileged: true,
        ..Isolation::default()
    };
    [
        ("bare", "busybox", bare, true),
        ("default", "busybox", Isolation::default(), false),
        ("large, host users", "large", host, false),
        ("large, default", "large", Isolation::default(), false),
    ]
}

/// Measures them in turns. True: less than the bound was added.
pub(crate) async fn run(rounds: u32) -> Result<bool> {
    let medians = on_a_node(async |layer| {
        let base: ElementId = "image://images/busybox".parse()?;
        image(layer, "large", Some(&base), many_files(FILES)).await?;
        let mut times = [const { Vec::new() }; 4];
        // The first round warms up.
        for round in 0..=rounds {
            for (way, times) in ways().into_iter().zip(&mut times) {
                let time = one(layer, round, way).await?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        Ok(times.map(median))
    })
    .await?;
    for ((name, ..), time) in ways().iter().zip(&medians) {
        println!("{name:<18} median {:6.1} ms", milliseconds(*time));
    }
    let [bare, default, large_host, large] = medians;
    let added = default.saturating_sub(bare);
    let mapping = large.saturating_sub(large_host);
    let held = added < MOST_ADDED;
    println!(
        "added by user ids, filter and network name space: {:.1} ms",
        milliseconds(added)
    );
    println!(
        "added by user ids over an image of {FILES} files: {:.1} ms",
        milliseconds(mapping)
    );
    let report = serde_json::json!({
        "attack": "cost", "held": held, "rounds": rounds,
        "bare_ms": milliseconds(bare), "default_ms": milliseconds(default), "added_ms": milliseconds(added),
        "large_host_users_ms": milliseconds(large_host), "large_default_ms": milliseconds(large),
        "mapping_large_ms": milliseconds(mapping),
    });
    println!("{report}");
    Ok(held)
}

async fn one(
    layer: &PortLayer,
    round: u32,
    (name, image, isolation, host_network): (&str, &str, Isolation, bool),
) -> Result<Duration> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let executor = ExecutorSpec {
        isolation,
        ..ExecutorSpec::default()
    };
    let begun = Instant::now();
    let plan = (executor, script("exit 0"));
    let started = start(layer, &format!("{name}-{round}"), plan, image, host_network).await?;
    layer.wait(&started.executor, &started.task, None).await?;
    let time = begun.elapsed();
    finish(layer, &started).await?;
    Ok(time)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
