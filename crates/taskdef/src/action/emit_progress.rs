//! Emit progress: says when its action begins and ends.

use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage, perform as perform_action};
use crate::plan::EmitProgress;

pub(super) async fn perform(
    stage: &Stage,
    progress: &EmitProgress,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let log = stage.log.source(&progress.source);
    log.stdout(&progress.start);
    let ended = perform_action(stage, &progress.action, cancel).await;
    match &ended {
        Ok(()) => log.stdout(&progress.success),
        Err(_) if progress.failure_prefix.is_empty() => {}
        Err(error) => match error.displayable() {
            Some(reason) => log.stderr(&format!("{}: {reason}", progress.failure_prefix)),
            None => log.stderr(&progress.failure_prefix),
        },
    }
    ended
}
