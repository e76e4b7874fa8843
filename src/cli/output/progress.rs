//! Progress of long work on standard error: bars on a terminal, lines or JSON elsewhere.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use portlayer::store::{Progress, ProgressSink};

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// Bars.
    Tty,
    /// A line now and then.
    Plain,
    /// One JSON object per line.
    Json,
    /// Nothing.
    None,
}

/// Shows how one element's data come in.
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    what: String,
    total: Option<u64>,
    shape: Shape,
}

enum Shape {
    Bar(ProgressBar),
    Lines {
        json: bool,
        last: Mutex<Option<Instant>>,
    },
    Silent,
}

/// Shortest time between two plain or JSON lines about bytes.
const PAUSE: Duration = Duration::from_millis(500);

impl Reporter {
    /// A reporter about `what`, with the expected bytes when they are known.
    pub(crate) fn new(mode: ProgressMode, what: &str, total: Option<u64>) -> Self {
        use std::io::IsTerminal;
        let shape = match mode {
            ProgressMode::None => Shape::Silent,
            ProgressMode::Auto if !std::io::stderr().is_terminal() => Shape::Silent,
            ProgressMode::Auto | ProgressMode::Tty => Shape::Bar(bar(what, total)),
            ProgressMode::Plain | ProgressMode::Json => Shape::Lines {
                json: mode == ProgressMode::Json,
                last: Mutex::new(None),
            },
        };
        Self {
            shared: Arc::new(Shared {
                what: what.to_owned(),
                total,
                shape,
            }),
        }
    }

    /// What a store is given.
    pub(crate) fn sink(&self) -> ProgressSink {
        let shared = self.shared.clone();
        Arc::new(move |progress| shared.show(progress))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Shape::Bar(bar) = &self.shared.shape {
            bar.finish_and_clear();
        }
    }
}

impl Shared {
    fn show(&self, progress: Progress) {
        match (&self.shape, progress) {
            (Shape::Silent, _) => {}
            (Shape::Bar(bar), Progress::Read { bytes }) => bar.set_position(bytes),
            (Shape::Bar(bar), Progress::Unpacked { layers, of }) => {
                bar.set_message(format!("layer {layers}/{of}"));
            }
            (Shape::Bar(bar), Progress::Pulled { bytes, of }) => {
                bar.set_length(of);
                bar.set_position(bytes);
                bar.set_message(if bytes < of { "pulling" } else { "pulled" });
            }
            (Shape::Lines { json, last }, progress) => {
                let many = match progress {
                    Progress::Read { .. } => true,
                    // The last one is always told.
                    Progress::Pulled { bytes, of } => bytes < of,
                    Progress::Unpacked { .. } => false,
                };
                if many && !due(last) {
                    return;
                }
                self.line(*json, progress);
            }
        }
    }

    fn line(&self, json: bool, progress: Progress) {
        if json {
            let value = match progress {
                Progress::Read { bytes } => {
                    serde_json::json!({"id": self.what, "read_bytes": bytes, "total_bytes": self.total})
                }
                Progress::Unpacked { layers, of } => {
                    serde_json::json!({"id": self.what, "unpacked_layers": layers, "layers": of})
                }
                Progress::Pulled { bytes, of } => {
                    serde_json::json!({"id": self.what, "pulled_bytes": bytes, "total_bytes": of})
                }
            };
            let _ = super::raw(true, format!("{value}\n").as_bytes());
        } else {
            let text = match (progress, self.total) {
                (Progress::Read { bytes }, Some(total)) => {
                    format!("read {} of {}", HumanBytes(bytes), HumanBytes(total))
                }
                (Progress::Read { bytes }, None) => format!("read {}", HumanBytes(bytes)),
                (Progress::Unpacked { layers, of }, _) => {
                    format!("unpacked layer {layers} of {of}")
                }
                (Progress::Pulled { bytes, of }, _) => {
                    format!("pulled {} of {}", HumanBytes(bytes), HumanBytes(of))
                }
            };
            super::note(&format!("{}: {text}", self.what));
        }
    }
}

/// Whether the last line is long enough ago; the first byte is always reported.
fn due(last: &Mutex<Option<Instant>>) -> bool {
    let Ok(mut last) = last.lock() else {
        return false;
    };
    if last.is_some_and(|last| last.elapsed() < PAUSE) {
        return false;
    }
    *last = Some(Instant::now());
    true
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {msg}",
        ),
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    bar.with_style(style)
        .with_prefix(super::escape::escape(what.as_bytes()))
}
