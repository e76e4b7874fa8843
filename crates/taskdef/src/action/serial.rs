//! Serial: one after the other until one fails.

use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage, perform as perform_action};
use crate::plan::Action;

pub(super) async fn perform(
    stage: &Stage,
    actions: &[Action],
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    for action in actions {
        perform_action(stage, action, cancel).await?;
    }
    Ok(())
}
