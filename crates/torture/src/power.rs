//! `power`: what the disk may hold when the power goes while the ledger is written, state by state.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use portlayer::ledger::{PowerCut, PowerReport};

use crate::Common;
use crate::report::Report;

/// States tried over one recorded trace of writes.
const STATES_PER_TRACE: u32 = 500;

pub(crate) fn run(common: &Common) -> Result<bool> {
    let rounds = common.rounds.unwrap_or(10_000);
    let seed = common.seed();
    let mut report = Report::new("power", seed);
    // What is durable is computed, so memory is as good as a disk.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory
    } else {
        &common.directory
    };
    let started = Instant::now();
    let mut left = rounds;
    while left > 0 {
        let states = left.min(STATES_PER_TRACE);
        left -= states;
        let directory = tempfile::Builder::new()
            .prefix("plt-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        let found = PowerCut {
            directory: directory.path().to_owned(),
            states,
            writers: 4,
            writes: 60,
            seed: seed.wrapping_add(u64::from(left)),
        }
        .run()?;
        add(&mut report, &found);
        println!("{:>6} states, {} wrong", rounds - left, report.wrongs());
    }
    report.set("seconds", started.elapsed().as_secs());
    Ok(report.finish())
}

fn add(report: &mut Report, found: &PowerReport) {
    report.add("states", found.states);
    report.add("flushes", found.flushes);
    for (name, list) in [
        ("unopenable", &found.unopenable),
        ("lost_changes", &found.lost),
        ("torn", &found.torn),
    ] {
        report.add(name, list.len() as u64);
        for text in list {
            report.wrong(format!("{name}: {text}"));
        }
    }
}
