//! How a task ended, as an exit code of ours.

use portlayer::task::{ExitReason, ExitRecord};

use super::failure::{DEADLINE, Exit, OWN_FAILURE};
use super::parse::signal_name;

/// The code that mirrors the task: its own, 128 + signal, 124 when the deadline ended it, 125 when nobody knows how
/// it ended or it never ran.
pub(crate) fn of(exit: &ExitRecord) -> Exit {
    let mirrored = exit
        .code
        .or_else(|| exit.signal.map(|signal| 128 + signal))
        // A code of a process is one byte; anything else would be a lie.
        .and_then(|code| u8::try_from(code).ok());
    Exit(match exit.reason {
        ExitReason::Deadline => DEADLINE,
        ExitReason::StartFailed => OWN_FAILURE,
        // Whatever was recorded, a lost task has not succeeded.
        ExitReason::Lost => OWN_FAILURE,
        ExitReason::Oom => mirrored.filter(|code| *code != 0).unwrap_or(128 + 9),
        ExitReason::Exited | ExitReason::Signaled | ExitReason::Cancelled => {
            mirrored.unwrap_or(OWN_FAILURE)
        }
    })
}

/// How it ended, for people.
pub(crate) fn describe(exit: &ExitRecord) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!(" with code {code}"),
        (None, Some(signal)) => format!(" by {}", signal_name(signal)),
        (None, None) => String::new(),
    };
    format!("{}{how}", exit.reason.as_str())
}

/// What to tell people who see only the code; `None` where the code says it all.
pub(crate) fn explain(exit: &ExitRecord) -> Option<String> {
    let why = match exit.reason {
        ExitReason::Exited | ExitReason::Signaled | ExitReason::Cancelled => return None,
        ExitReason::Oom => "was killed because it ran out of memory; raise --memory".to_owned(),
        ExitReason::Deadline => "ran longer than its deadline and was stopped".to_owned(),
        ExitReason::StartFailed => format!(
            "could not be started: {}",
            exit.message.as_deref().unwrap_or("no reason given")
        ),
        ExitReason::Lost => "ended while nobody could see how".to_owned(),
    };
    Some(format!("{} {why}", exit.task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer::time::Timestamp;

    fn exit(reason: ExitReason, code: Option<i32>, signal: Option<i32>) -> ExitRecord {
        ExitRecord {
            executor: "executor://executors/x".parse().unwrap(),
            task: "task://tasks/t".parse().unwrap(),
            run: 1,
            reason,
            code,
            signal,
            cpu_ns: None,
            memory_peak_bytes: None,
            started: Timestamp::from_nanos(0),
            exited: Timestamp::from_nanos(0),
            reconciled: false,
            message: None,
        }
    }

    #[test]
    fn codes_mirror_the_task() {
        for (reason, code, signal, expected) in [
            (ExitReason::Exited, Some(0), None, 0),
            (ExitReason::Exited, Some(7), None, 7),
            (ExitReason::Exited, Some(255), None, 255),
            (ExitReason::Exited, Some(124), None, 124),
            (ExitReason::Signaled, None, Some(15), 143),
            (ExitReason::Cancelled, None, Some(9), 137),
            (ExitReason::Cancelled, Some(3), None, 3),
            (ExitReason::Oom, None, Some(9), 137),
            (ExitReason::Oom, None, None, 137),
            (ExitReason::Deadline, None, Some(9), 124),
            (ExitReason::Deadline, Some(0), None, 124),
            (ExitReason::StartFailed, None, None, 125),
            (ExitReason::Lost, None, None, 125),
            (ExitReason::Lost, Some(0), None, 125),
            (ExitReason::Exited, Some(-1), None, 125),
            (ExitReason::Exited, None, None, 125),
        ] {
            assert_eq!(
                of(&exit(reason, code, signal)),
                Exit(expected),
                "{reason:?} {code:?} {signal:?}"
            );
        }
    }

    #[test]
    fn people_are_told_how() {
        assert_eq!(
            describe(&exit(ExitReason::Exited, Some(7), None)),
            "exited with code 7"
        );
        assert_eq!(
            describe(&exit(ExitReason::Cancelled, None, Some(9))),
            "cancelled by SIGKILL"
        );
        assert_eq!(explain(&exit(ExitReason::Exited, Some(7), None)), None);
        assert!(explain(&exit(ExitReason::Deadline, None, Some(9))).is_some());
    }
}
