//! Calls that must not fail because the engine is away for a moment: it is started again as soon as it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::StepError;
use crate::runtime::{RuntimeError, RuntimeErrorKind};

/// How long an engine that is away is waited for. A killed one serves again after a tenth of a second; one that does not
/// start at all is started every five seconds. Shorter in tests, whose engine says what it is told to.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 10_000 });
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a call failed because the engine was away: then what it did is not known.
pub(crate) trait Away {
    /// It was away.
    fn is_away(&self) -> bool;
}

impl Away for RuntimeError {
    fn is_away(&self) -> bool {
        self.kind == RuntimeErrorKind::Unavailable
    }
}

impl Away for StepError {
    fn is_away(&self) -> bool {
        matches!(self, StepError::Runtime(error) if error.is_away())
    }
}

/// Makes a call, and again while the engine is away, for up to ten seconds. Only for what is idempotent.
pub(crate) async fn patiently<T, E: Away, F>(call: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    loop {
        match call().await {
            Err(error) if error.is_away() && started.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
