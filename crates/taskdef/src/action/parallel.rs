//! Parallel: all at once, each to its end, whatever becomes of the others.

use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage, perform as perform_action};
use crate::plan::Action;

pub(super) async fn perform(
    stage: &Stage,
    actions: &[Action],
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let running = actions
        .iter()
        .map(|action| perform_action(stage, action, cancel));
    let ended = futures::future::join_all(running).await;
    ActionError::of_several(ended.into_iter().filter_map(Result::err).collect())
}
