//! The tasks that are run: what they write and how they end is known beforehand, from their names.

use portlayer::task::{RestartPolicy, StopSpec, TaskSpec};

/// One template.
pub(crate) struct Template {
    pub(crate) name: &'static str,
    /// Milliseconds it sleeps between its two pieces of output.
    pub(crate) sleeps_ms: u64,
    /// The code it ends with.
    pub(crate) code: i32,
    /// It ends only when it is stopped.
    pub(crate) stays: bool,
    pub(crate) deadline_ms: Option<u64>,
    /// Restarts after a failure.
    pub(crate) restarts: u32,
}

const fn template(name: &'static str, sleeps_ms: u64, code: i32) -> Template {
    Template {
        name,
        sleeps_ms,
        code,
        stays: false,
        deadline_ms: None,
        restarts: 0,
    }
}

/// All of them.
pub(crate) const TEMPLATES: &[Template] = &[
    template("quick-0", 0, 0),
    template("quick-7", 0, 7),
    template("nap-3", 150, 3),
    template("nap-42", 500, 42),
    template("doze-5", 1100, 5),
    Template {
        stays: true,
        ..template("stay", 1_000_000, 0)
    },
    Template {
        deadline_ms: Some(300),
        stays: true,
        ..template("late", 1_000_000, 0)
    },
    Template {
        restarts: 2,
        ..template("again-9", 50, 9)
    },
];

/// Lines of each piece of output.
const LINES: usize = 20;

impl Template {
    pub(crate) fn named(name: &str) -> Option<&'static Template> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// One piece of its output; `stream` is `out` or `err`.
    fn piece(&self, which: &str, stream: &str) -> String {
        (0..LINES)
            .map(|line| format!("{} {which} {stream} {line}\n", self.name))
            .collect()
    }

    /// What a run writes that ends by itself.
    pub(crate) fn whole(&self, stream: &str) -> String {
        self.piece("first", stream) + &self.piece("second", stream)
    }

    /// What a run has written for certain when it was stopped in its sleep.
    pub(crate) fn first(&self, stream: &str) -> String {
        self.piece("first", stream)
    }

    /// The definition: each piece is one write to each stream.
    pub(crate) fn spec(&self) -> TaskSpec {
        let mut script = String::new();
        for which in ["first", "second"] {
            if which == "second" && self.sleeps_ms > 0 {
                let seconds = format!("{}.{:03}", self.sleeps_ms / 1000, self.sleeps_ms % 1000);
                let exec = if self.stays { "exec " } else { "" };
                script.push_str(&format!("{exec}sleep {seconds}\n"));
            }
            for (stream, to) in [("out", "1"), ("err", "2")] {
                let text = self.piece(which, stream).replace('\n', "\\n");
                script.push_str(&format!("printf '{text}' >&{to}\n"));
            }
        }
        script.push_str(&format!("exit {}\n", self.code));
        TaskSpec {
            argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            deadline_ms: self.deadline_ms,
            restart: match self.restarts {
                0 => RestartPolicy::Never,
                max => RestartPolicy::OnFailure {
                    max,
                    backoff_ms: 100,
                },
            },
            stop: StopSpec {
                // A shell that waits for its child does not die of SIGTERM at once.
                signal: Some(9),
                grace_ms: 1000,
            },
            ..TaskSpec::default()
        }
    }
}

/// The name of the task that writes as fast as it can.
pub(crate) const FLOOD_TASK: &str = "flood";

/// A task that writes numbers to both streams.
pub(crate) struct Flood {
    pub(crate) code: i32,
    /// Numbers written to standard output; to standard error a tenth.
    numbers: u32,
}

/// Some 13 MB, written for as long as somebody reads.
pub(crate) const FLOOD: Flood = Flood {
    code: 5,
    numbers: 1_600_000,
};

impl Flood {
    fn last(&self, stream: &str) -> u32 {
        match stream {
            "out" => self.numbers,
            _ => self.numbers / 10,
        }
    }

    /// What a run writes to a stream.
    pub(crate) fn text(&self, stream: &str) -> String {
        (1..=self.last(stream))
            .map(|number| format!("{number}\n"))
            .collect()
    }

    /// The definition.
    pub(crate) fn spec(&self) -> TaskSpec {
        let script = format!(
            "seq 1 {} & seq 1 {} >&2; wait; exit {}",
            self.last("out"),
            self.last("err"),
            self.code
        );
        TaskSpec {
            argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            ..TaskSpec::default()
        }
    }
}

/// The name of the task that ends when it is let through.
pub(crate) const GATED_TASK: &str = "gated";

/// A task that waits for a line from a FIFO.
pub(crate) struct Gated {
    pub(crate) code: i32,
}

/// Waits without using the processor.
pub(crate) const GATED: Gated = Gated { code: 7 };

impl Gated {
    /// The definition; the FIFO is `open` in the volume `gate`.
    pub(crate) fn spec(&self) -> TaskSpec {
        let script = format!("read x < /tmp/gate/open; exit {}", self.code);
        TaskSpec {
            argv: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            ..TaskSpec::default()
        }
    }
}
