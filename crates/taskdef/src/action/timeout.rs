//! Timeout: cancels its action when the time is over and waits for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::go_duration;
use super::{ActionError, Stage, perform as perform_action};
use crate::plan::Action;

pub(super) async fn perform(
    stage: &Stage,
    limit: Duration,
    action: &Action,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let inner = cancel.child_token();
    let mut running = perform_action(stage, action, &inner);
    tokio::select! {
        biased;
        ended = &mut running => return ended,
        () = tokio::time::sleep(limit) => {}
    }
    inner.cancel();
    let ended = running.await;
    let mut reason = format!("exceeded {} timeout", go_duration(limit));
    if let Err(error) = &ended
        && let Some(inner) = error.displayable()
    {
        reason = format!("{reason}; {inner}");
    }
    Err(ActionError::Failed(reason))
}
