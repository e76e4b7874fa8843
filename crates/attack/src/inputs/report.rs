//! What was tried and what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::sentinel::Sentinels;

/// Longer than any input may take, whatever it is; then it counts as a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    /// A typed error.
    Refused,
    /// It is taken or refused, and nothing outside is touched, known or left.
    Contained,
}

/// What was seen.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// An error of ours, as people see it.
    Refused(String),
    /// Taken, and this came of it.
    Contained(String),
    /// It got out.
    Escaped(String),
}

impl Seen {
    /// A result: an error is a refusal.
    pub(super) fn of<T, E: std::fmt::Display>(result: Result<T, E>) -> Seen {
        match result {
            Ok(_) => Seen::Contained("taken".to_owned()),
            Err(error) => Seen::Refused(error.to_string()),
        }
    }
}

struct Tried {
    input: String,
    must: Must,
    seen: String,
    wrong: Option<&'static str>,
}

/// The account of a run.
pub(super) struct Report {
    sentinels: Sentinels,
    every: usize,
    verbose: bool,
    classes: BTreeMap<&'static str, Vec<Tried>>,
    longest: (Duration, String),
}

impl Report {
    pub(super) fn new(sentinels: Sentinels, every: usize, verbose: bool) -> Report {
        Report {
            sentinels,
            every,
            verbose,
            classes: BTreeMap::new(),
            longest: (Duration::ZERO, String::new()),
        }
    }

    pub(super) fn sentinels(&self) -> &Sentinels {
        &self.sentinels
    }

    /// Those of a large class that are tried in this run.
    pub(super) fn slice<'a, T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        all.iter().step_by(self.every)
    }

    /// Tries an input on a thread of its own, so that a hang and a panic are seen.
    pub(super) fn try_input(
        &mut self,
        class: &'static str,
        input: impl Into<String>,
        must: Must,
        attack: impl FnOnce() -> Seen + Send + 'static,
    ) {
        let (answer, answered) = mpsc::channel();
        let begun = Instant::now();
        std::thread::spawn(move || {
            let seen = catch_unwind(AssertUnwindSafe(attack));
            // Nobody listens any more after a hang.
            let _ = answer.send(seen);
        });
        let outcome = match answered.recv_timeout(LIMIT) {
            Err(_) => Err("hang"),
            Ok(Err(_)) => Err("panic"),
            Ok(Ok(seen)) => Ok(seen),
        };
        self.tell(class, input.into(), must, outcome, begun.elapsed());
    }

    /// Tries an input on the node.
    pub(super) async fn try_async(
        &mut self,
        class: &'static str,
        input: impl Into<String>,
        must: Must,
        attack: impl Future<Output = Seen>,
    ) {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(LIMIT, attack).await;
        let outcome = outcome.map_err(|_| "hang");
        self.tell(class, input.into(), must, outcome, begun.elapsed());
    }

    fn tell(
        &mut self,
        class: &'static str,
        input: String,
        must: Must,
        outcome: Result<Seen, &'static str>,
        time: Duration,
    ) {
        let (seen, mut wrong) = match outcome {
            Err(how) => (how.to_owned(), Some(how)),
            Ok(Seen::Refused(text)) => (format!("refused: {text}"), None),
            Ok(Seen::Contained(text)) => {
                let wrong = (must == Must::Refused).then_some("accepted");
                (format!("contained: {text}"), wrong)
            }
            Ok(Seen::Escaped(text)) => (format!("escaped: {text}"), Some("escape")),
        };
        if let Some(touched) = self.sentinels.touched() {
            wrong = Some("escape");
            println!("{class}: {input}: touched {touched}");
        }
        if self.verbose || wrong.is_some() {
            let verdict = wrong.unwrap_or("held");
            println!("{verdict:<8} {class}: {input}: must be {must:?}; {seen}");
        }
        if time > self.longest.0 {
            self.longest = (time, format!("{class}: {input}"));
        }
        let tried = Tried {
            input,
            must,
            seen,
            wrong,
        };
        self.classes.entry(class).or_default().push(tried);
    }

    /// Inputs that differ, whatever they were fed to: the part of a name after ` -> ` says to what.
    pub(super) fn distinct(&self) -> usize {
        let all = self.classes.iter().flat_map(|(class, tried)| {
            tried.iter().map(|tried| {
                let input = tried.input.split(" -> ").next().unwrap_or_default();
                (*class, input.to_owned())
            })
        });
        all.collect::<BTreeSet<_>>().len()
    }

    fn count(&self, wrong: &str) -> usize {
        let all = self.classes.values().flatten();
        all.filter(|tried| tried.wrong == Some(wrong)).count()
    }

    pub(super) fn held(&self) -> bool {
        let mut all = self.classes.values().flatten();
        all.all(|tried| tried.wrong.is_none())
    }

    /// A table for people, and the figures as the last line.
    pub(super) fn print(&self) {
        println!(
            "{:<22} {:>6} {:>8} {:>6}",
            "class", "tried", "refused", "wrong"
        );
        for (class, tried) in &self.classes {
            let refused = tried
                .iter()
                .filter(|tried| tried.seen.starts_with("refused"));
            let wrong = tried.iter().filter(|tried| tried.wrong.is_some());
            println!(
                "{class:<22} {:>6} {:>8} {:>6}",
                tried.len(),
                refused.count(),
                wrong.count()
            );
        }
        let runs: usize = self.classes.values().map(Vec::len).sum();
        let must = self.classes.values().flatten();
        let must = must.filter(|tried| tried.must == Must::Refused).count();
        println!(
            "longest: {:.1} s, {}",
            self.longest.0.as_secs_f64(),
            self.longest.1
        );
        let figures = serde_json::json!({
            "attack": "inputs", "held": self.held(), "inputs": self.distinct(), "runs": runs, "must_be_refused": must,
            "escapes": self.count("escape"), "hangs": self.count("hang"), "panics": self.count("panic"),
            "accepted": self.count("accepted"), "longest_s": self.longest.0.as_secs_f64(),
        });
        println!("{figures}");
    }
}
