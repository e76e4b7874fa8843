//! What a run found, and how it is shown: tables for people, JSON for machines, a picture for both.

pub(crate) mod compare;
pub(crate) mod svg;
pub(crate) mod table;
pub(crate) mod targets;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::sample::Summary;

/// Everything of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) commit: String,
    /// When the run began, RFC 3339.
    pub(crate) time: String,
    pub(crate) machine: Machine,
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<targets::Target>,
}

impl Results {
    /// A group by its key.
    pub(crate) fn group(&self, key: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.key == key)
    }
}

/// Figures that belong on one axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Name for machines.
    pub(crate) key: String,
    /// Name for people.
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// What was measured and how, in one sentence.
    pub(crate) note: String,
    pub(crate) figures: Vec<Figure>,
}

impl Group {
    /// An empty group.
    pub(crate) fn new(key: &str, title: &str, unit: Unit, note: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            title: title.to_owned(),
            unit,
            note: note.into(),
            figures: Vec::new(),
        }
    }

    /// Adds a figure. Errors: no samples, which is never a missing row.
    pub(crate) fn push(&mut self, name: impl Into<String>, samples: &[f64]) -> anyhow::Result<()> {
        let name = name.into();
        let summary = Summary::of(samples)
            .ok_or_else(|| anyhow::anyhow!("{}: {name}: no samples", self.title))?;
        self.figures.push(Figure { name, summary });
        Ok(())
    }

    /// Adds a figure measured once.
    pub(crate) fn push_single(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push(Figure {
            name: name.into(),
            summary: Summary::single(value),
        });
    }

    /// Median of a figure.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name)?;
        Some(figure.summary.median)
    }
}

/// One named figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// Units of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "us")]
    Micros,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "MiB")]
    MiB,
}

impl Unit {
    /// As written behind a number.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Unit::Millis => "ms",
            Unit::Micros => "µs",
            Unit::PerSecond => "/s",
            Unit::MiB => "MiB",
        }
    }
}

/// A number with three digits that say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000_000.0 => format!("{:.2}M", value / 1e6),
        v if v >= 10_000.0 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
