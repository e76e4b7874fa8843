//! Values to places on an axis that begins at zero.

/// A linear axis with round ticks.
pub(super) struct Scale {
    step: f64,
    steps: u32,
    from: f64,
    to: f64,
}

impl Scale {
    /// An axis for values up to `most`, from the place `from` to the place `to`.
    pub(super) fn new(most: f64, from: f64, to: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let magnitude = 10f64.powf((most / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * magnitude)
            .find(|step| step * 6.0 >= most)
            .unwrap_or(10.0 * magnitude);
        let mut steps = 1;
        while f64::from(steps) * step < most {
            steps += 1;
        }
        Self {
            step,
            steps,
            from,
            to,
        }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let all = self.step * f64::from(self.steps);
        self.from + (self.to - self.from) * value / all
    }

    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..=self.steps).map(move |tick| f64::from(tick) * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_largest_value() {
        for most in [0.0, 0.013, 1.0, 7.3, 98.0, 12_345.0] {
            let scale = Scale::new(most, 0.0, 100.0);
            let ticks: Vec<f64> = scale.ticks().collect();
            assert!((3..=8).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(scale.at(most) <= 100.0 + 1e-9);
            assert_eq!(scale.at(0.0), 0.0);
        }
    }
}
