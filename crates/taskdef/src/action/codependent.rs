//! Codependent: all at once; the first that ends ends the others, and ending is a failure.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage, perform as perform_action};
use crate::plan::Action;

pub(super) async fn perform(
    stage: &Stage,
    actions: &[Action],
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let inner = cancel.child_token();
    let running = actions
        .iter()
        .map(|action| perform_action(stage, action, &inner));
    let mut running: FuturesUnordered<_> = running.collect();
    let mut errors = Vec::new();
    while let Some(ended) = running.next().await {
        // After the first nobody is to blame for ending well.
        let first = !inner.is_cancelled();
        match ended {
            Err(error) => errors.push(error),
            Ok(()) if first => errors.push(ActionError::CodependentExited),
            Ok(()) => {}
        }
        inner.cancel();
    }
    ActionError::of_several(errors)
}
