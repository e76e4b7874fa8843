//! Samples and what is said about them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Median and spread of a set of samples, in the unit of its figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// A tenth of the samples is below.
    pub(crate) p10: f64,
    /// A tenth of the samples is above.
    pub(crate) p90: f64,
    /// How many samples.
    pub(crate) n: usize,
}

impl Summary {
    /// Of at least one sample.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 50)?,
            p10: quantile(&sorted, 10)?,
            p90: quantile(&sorted, 90)?,
            n: sorted.len(),
        })
    }

    /// Of one measurement that is not repeated.
    pub(crate) fn single(value: f64) -> Self {
        Self {
            median: value,
            p10: value,
            p90: value,
            n: 1,
        }
    }
}

/// The value below which `percent` per cent of the sorted samples are, between two samples by their distance.
pub(crate) fn quantile(sorted: &[f64], percent: u32) -> Option<f64> {
    let last = u32::try_from(sorted.len().checked_sub(1)?).ok()?;
    let scaled = last * percent;
    let below = (scaled / 100) as usize;
    let share = f64::from(scaled % 100) / 100.0;
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).unwrap_or(&low);
    Some(low + (high - low) * share)
}

/// Milliseconds, with their fraction.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds, with their fraction.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_samples() {
        let all: Vec<f64> = (0..=10).map(f64::from).collect();
        let summary = Summary::of(&all).unwrap();
        assert_eq!((summary.p10, summary.median, summary.p90), (1.0, 5.0, 9.0));
        assert_eq!(Summary::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Summary::of(&[]), None);
    }
}
