//! How long one task takes, all variants interleaved so that what else the machine does hits them alike.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Timing, UNIT, Variant};
use crate::machine;
use crate::report::Group;
use crate::sample::millis;

/// How the runs follow each other. The difference matters: on an idle machine a container start waits for RCU
/// grace periods that a busy one hides (performance.md 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// One run at a time, each after idleness of at least [`IDLE`].
    Spaced,
    /// Runs of one variant in a row without a pause, [`ROW`] of them counted.
    BackToBack,
}

/// Idleness before a spaced run.
const IDLE: Duration = Duration::from_millis(60);
/// Counted runs in a row; one before them is not counted, it follows another variant's cleaning up.
const ROW: usize = 4;

/// Everything measured about the variants at one pace: to the exit status, until nothing is left, and the phases
/// of those that know them.
pub(crate) struct Latency {
    pub(crate) exit: Group,
    pub(crate) gone: Group,
    pub(crate) phases: Group,
}

/// Runs every variant `rounds` times at least, in a fresh order each round. `next` numbers the runs.
pub(crate) async fn latency(
    variants: &[Box<dyn Variant>],
    pace: Pace,
    rounds: usize,
    next: &mut u64,
) -> Result<Latency> {
    let row = match pace {
        Pace::Spaced => 1,
        Pace::BackToBack => ROW + 1,
    };
    let rounds = match pace {
        Pace::Spaced => rounds,
        Pace::BackToBack => rounds.div_ceil(ROW),
    };
    let mut samples: Vec<Vec<Timing>> = vec![Vec::new(); variants.len()];
    let mut order: Vec<usize> = (0..variants.len()).collect();
    let (mut quiet, mut all) = (0, 0);
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        fastrand::shuffle(&mut order);
        for &at in &order {
            let variant = &variants[at];
            let runs: Vec<u64> = (*next..).take(row).collect();
            *next += runs.len() as u64;
            for run in &runs {
                variant.before(*run).await?;
            }
            if pace == Pace::Spaced {
                quiet += usize::from(machine::quiet(IDLE).await?);
                all += 1;
            }
            for (place, run) in runs.iter().enumerate() {
                let timing = variant.run(*run).await;
                let timing = timing.with_context(|| format!("{}, run {run}", variant.name()))?;
                if round > 0 && (row == 1 || place > 0) {
                    samples[at].push(timing);
                }
            }
            for run in &runs {
                variant.after(*run).await?;
            }
        }
    }
    let note = match pace {
        Pace::Spaced => format!(
            "each run after at least 60 ms of idleness, variants shuffled each round; the machine was quiet before \
             {quiet} of {all} runs"
        ),
        Pace::BackToBack => format!("{ROW} runs in a row, variants shuffled each round"),
    };
    groups(variants, pace, &samples, &note)
}

fn groups(
    variants: &[Box<dyn Variant>],
    pace: Pace,
    samples: &[Vec<Timing>],
    note: &str,
) -> Result<Latency> {
    let (key, title) = match pace {
        Pace::Spaced => ("spaced", "spaced"),
        Pace::BackToBack => ("back_to_back", "back to back"),
    };
    let mut exit = Group::new(
        &format!("task_exit_{key}"),
        &format!("One task, start to exit status, {title}"),
        UNIT,
        format!("{note}; a program's own exit counts as its task's"),
    );
    let mut gone = Group::new(
        &format!("task_gone_{key}"),
        &format!("One task, start until nothing of it is left, {title}"),
        UNIT,
        note,
    );
    let mut phases = Group::new(
        &format!("task_phases_{key}"),
        &format!("Phases of one task, {title}"),
        UNIT,
        note,
    );
    for (variant, timings) in variants.iter().zip(samples) {
        let name = variant.name();
        let of = |pick: &dyn Fn(&Timing) -> Duration| -> Vec<f64> {
            timings.iter().map(|timing| millis(pick(timing))).collect()
        };
        exit.push(name, &of(&|timing| timing.exit.unwrap_or(timing.gone)))?;
        gone.push(name, &of(&|timing| timing.gone))?;
        let known = timings
            .first()
            .map(|timing| timing.phases.len())
            .unwrap_or(0);
        for at in 0..known {
            let phase = timings[0].phases[at].0;
            phases.push(
                format!("{name}: {phase}"),
                &of(&|timing| timing.phases[at].1),
            )?;
        }
    }
    Ok(Latency { exit, gone, phases })
}
