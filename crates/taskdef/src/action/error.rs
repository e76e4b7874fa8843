//! How an action fails; the texts are Diego's, and clients match on them.

use std::time::Duration;

use thiserror::Error;

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ActionError {
    /// It was cancelled and ended in time.
    #[error("cancelled")]
    Cancelled,
    /// It was cancelled and had to be killed.
    #[error("exceeded graceful shutdown interval")]
    GraceExceeded,
    /// Not even that ended it in time.
    #[error("process did not exit")]
    NoExit,
    /// It failed; the reason is for whoever asked for the task.
    #[error("{0}")]
    Failed(String),
    /// It could not be begun; the reason is the engine's or a client's.
    #[error("{0}")]
    NotStarted(String),
    /// One of several that need each other ended by itself.
    #[error("Codependent step exited")]
    CodependentExited,
    /// Several at once failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<ActionError>),
}

impl ActionError {
    /// Whether it ended because it was cancelled.
    pub(super) fn is_cancel(&self) -> bool {
        matches!(self, ActionError::Cancelled | ActionError::GraceExceeded)
    }

    /// The reason, when it is a single one meant to be shown within another message.
    pub(super) fn displayable(&self) -> Option<&str> {
        match self {
            ActionError::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// The failures of actions that ran at once, in the order of their declaration; those that were only cancelled do
    /// not count beside others. Diego takes "all were cancelled" for success; here it is a cancel.
    pub(super) fn of_several(errors: Vec<ActionError>) -> Result<(), ActionError> {
        let cancelled = errors.iter().find(|error| error.is_cancel()).cloned();
        let failures: Vec<_> = errors
            .into_iter()
            .filter(|error| !error.is_cancel())
            .collect();
        match (failures.is_empty(), cancelled) {
            (true, None) => Ok(()),
            (true, Some(cancel)) => Err(cancel),
            (false, _) => Err(ActionError::Several(failures)),
        }
    }
}

/// A duration as Go writes it: `500ms`, `2s`, `1.5s`, `1m5s`, `1h0m0s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (seconds, rest) = (ms / 1000 % 60, ms % 1000);
    let fraction = match rest {
        0 => String::new(),
        rest => format!(".{}", format!("{rest:03}").trim_end_matches('0')),
    };
    match (ms / 3_600_000, ms / 60_000 % 60) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (ms, text) in [
            (500, "500ms"),
            (2000, "2s"),
            (1500, "1.5s"),
            (65_000, "1m5s"),
            (3_600_000, "1h0m0s"),
            (90_061_020, "25h1m1.02s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn reasons_of_several() {
        let failed = |text: &str| ActionError::Failed(text.to_owned());
        assert_eq!(ActionError::of_several(vec![]), Ok(()));
        assert_eq!(
            ActionError::of_several(vec![ActionError::Cancelled]),
            Err(ActionError::Cancelled)
        );
        let both =
            ActionError::of_several(vec![failed("a"), ActionError::GraceExceeded, failed("b")]);
        assert_eq!(both.unwrap_err().to_string(), "a; b");
    }
}
