//! Figures: a line for people each, and one JSON object as the last line.

use serde_json::{Map, Value};

/// What a run found.
pub(crate) struct Report {
    what: &'static str,
    figures: Map<String, Value>,
    /// What was wrong, for people.
    wrong: Vec<String>,
}

/// Wrong things told in full; of more only the number.
const TOLD: usize = 40;

impl Report {
    pub(crate) fn new(what: &'static str, seed: u64) -> Self {
        println!("{what}, seed {seed}");
        let mut figures = Map::new();
        figures.insert("torture".into(), what.into());
        figures.insert("seed".into(), seed.into());
        Self {
            what,
            figures,
            wrong: Vec::new(),
        }
    }

    /// Sets a figure.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Adds to a figure.
    pub(crate) fn add(&mut self, name: &str, more: u64) {
        let now = self.figures.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.set(name, now + more);
    }

    /// Notes something wrong.
    pub(crate) fn wrong(&mut self, text: String) {
        if self.wrong.len() < TOLD {
            println!("WRONG: {text}");
        }
        self.wrong.push(text);
    }

    /// How much was wrong.
    pub(crate) fn wrongs(&self) -> usize {
        self.wrong.len()
    }

    /// The median, the 99th percentile and the largest of some durations in milliseconds.
    pub(crate) fn spread(&mut self, name: &str, mut values: Vec<f64>) {
        values.sort_by(f64::total_cmp);
        let at = |share: usize| {
            values.get((values.len() * share / 100).min(values.len().saturating_sub(1)))
        };
        let round =
            |value: Option<&f64>| value.map_or(Value::Null, |v| ((v * 10.0).round() / 10.0).into());
        self.set(&format!("{name}_p50"), round(at(50)));
        self.set(&format!("{name}_p99"), round(at(99)));
        self.set(&format!("{name}_max"), round(values.last()));
    }

    /// Prints everything; true when nothing was wrong.
    pub(crate) fn finish(mut self) -> bool {
        self.set("wrong", self.wrong.len() as u64);
        if !self.wrong.is_empty() {
            // With the figures: whoever keeps only the last line keeps what it was.
            self.wrong.truncate(TOLD);
            self.set("wrongs", self.wrong.clone());
        }
        println!("\n{}", self.what);
        for (name, value) in &self.figures {
            println!("  {name:<28} {value}");
        }
        println!("{}", Value::Object(self.figures));
        self.wrong.is_empty()
    }
}
