//! What is shown of elements, runs, events and audit rows: as rows of a table, and in detail.

mod details;
mod element;
mod event;
mod progress;
mod run;
mod security;

use portlayer::time::Timestamp;

pub(crate) use details::details;
pub(crate) use element::ElementRow;
pub(crate) use event::{AuditLine, EventRow};
pub(crate) use run::{RunRow, exit_details};
pub(crate) use security::security;

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        count => indicatif::HumanBytes(count).to_string(),
    }
}

/// How long ago, in the largest unit that has at least one.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_nanos().saturating_sub(since.as_nanos()) / 1_000_000_000;
    match seconds {
        ..0 => "future".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer::element::{Body, Descriptor, State, TaskBody};
    use portlayer::task::TaskSpec;

    /// A task with hostile metadata, for the tests of what is shown of it.
    pub(super) fn task() -> Descriptor {
        Descriptor {
            id: "task://tasks/t".parse().unwrap(),
            parent: None,
            owner: None,
            checksum: None,
            size: 0,
            ro: [("team".to_owned(), b"a".to_vec())].into(),
            rw: [("evil".to_owned(), b"\xff\x1b[2J".to_vec())].into(),
            revision: 3,
            created: Timestamp::from_nanos(0),
            modified: Timestamp::from_nanos(0),
            state: State::Ready,
            hidden: false,
            body: Body::Task(Box::new(TaskBody {
                spec: TaskSpec {
                    argv: vec!["echo".to_owned(), "a b".to_owned()],
                    ..TaskSpec::default()
                },
            })),
        }
    }

    #[test]
    fn ages_are_short() {
        let at = |seconds: i64| {
            age(
                Timestamp::from_nanos(0),
                Timestamp::from_nanos(seconds * 1_000_000_000),
            )
        };
        assert_eq!(
            [at(0), at(61), at(7199), at(86_400 * 3)],
            ["0s", "1m", "1h", "3d"]
        );
        assert_eq!(at(-10), "future");
    }
}
