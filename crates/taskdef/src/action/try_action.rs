//! Try: whatever its action does, it succeeded. Cancelling ends what comes after it all the same.

use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage, perform as perform_action};
use crate::plan::Action;

pub(super) async fn perform(
    stage: &Stage,
    action: &Action,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    if let Err(error) = perform_action(stage, action, cancel).await {
        tracing::debug!(%error, "a tried action failed");
    }
    Ok(())
}
