//! How many tasks end per second when several are under way at once.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};

use super::Variant;
use crate::report::{Group, Unit};

/// Tasks per second of every variant that takes part, at each of `widths` at once; `tasks` per cell, at
/// least four per lane. What has to be there before a run is made beforehand.
pub(crate) async fn throughput(
    variants: &[Box<dyn Variant>],
    widths: &[usize],
    tasks: usize,
    rounds: usize,
    next: &mut u64,
) -> Result<Group> {
    let mut group = Group::new(
        "throughput",
        "Tasks per second, by how many at once",
        Unit::PerSecond,
        format!("median of {rounds} rounds of at least {tasks} tasks, variants shuffled in each"),
    );
    let variants: Vec<&dyn Variant> = variants
        .iter()
        .map(AsRef::as_ref)
        .filter(|variant| variant.in_throughput())
        .collect();
    let mut cells: Vec<(usize, usize)> = (0..variants.len())
        .flat_map(|variant| (0..widths.len()).map(move |width| (variant, width)))
        .collect();
    let mut samples = vec![vec![Vec::new(); widths.len()]; variants.len()];
    for _ in 0..rounds {
        fastrand::shuffle(&mut cells);
        for &(variant, width) in &cells {
            let wide = widths[width];
            let rate = cell(variants[variant], wide, tasks.max(4 * wide), next).await?;
            samples[variant][width].push(rate);
        }
    }
    for (variant, widths_of) in variants.iter().zip(&samples) {
        for (wide, rates) in widths.iter().zip(widths_of) {
            group.push(format!("{} @{wide}", variant.name()), rates)?;
        }
    }
    Ok(group)
}

async fn cell(variant: &dyn Variant, wide: usize, tasks: usize, next: &mut u64) -> Result<f64> {
    let runs: Vec<u64> = (*next..).take(tasks).collect();
    *next += runs.len() as u64;
    for run in &runs {
        variant.before(*run).await?;
    }
    let start = Instant::now();
    stream::iter(&runs)
        .map(|run| async move {
            let timing = variant.run(*run).await;
            timing.with_context(|| format!("{} @{wide}, run {run}", variant.name()))
        })
        .buffer_unordered(wide)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let elapsed = start.elapsed().as_secs_f64();
    for run in &runs {
        variant.after(*run).await?;
    }
    Ok(f64::from(u32::try_from(tasks)?) / elapsed)
}
