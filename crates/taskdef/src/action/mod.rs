//! The actions of a plan, one file each, performed in the one living container of a run.
//!
//! Cancelling is sticky and goes down the tree: an action that was cancelled ends as soon as it can, answers
//! [`ActionError::Cancelled`], and nothing after it begins.

mod codependent;
mod download;
mod emit_progress;
mod error;
mod parallel;
mod process;
mod serial;
mod timeout;
mod try_action;
mod upload;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use error::ActionError;

use crate::fetch::Fetcher;
use crate::log::Streamer;
use crate::plan::Action;
use crate::run::Container;

/// What actions work with.
#[derive(Clone)]
pub(crate) struct Stage {
    /// The container.
    pub(crate) container: Arc<Container>,
    /// Downloads and uploads.
    pub(crate) fetcher: Arc<Fetcher>,
    /// Where lines go.
    pub(crate) log: Streamer,
}

/// Performs an action to its end.
pub(crate) fn perform<'a>(
    stage: &'a Stage,
    action: &'a Action,
    cancel: &'a CancellationToken,
) -> BoxFuture<'a, Result<(), ActionError>> {
    Box::pin(async move {
        if cancel.is_cancelled() {
            return Err(ActionError::Cancelled);
        }
        match action {
            Action::Run(run) => process::perform(stage, run, cancel).await,
            Action::Download(download) => download::perform(stage, download, cancel).await,
            Action::Upload(upload) => upload::perform(stage, upload, cancel).await,
            Action::Timeout { limit, action } => {
                timeout::perform(stage, *limit, action, cancel).await
            }
            Action::EmitProgress(progress) => emit_progress::perform(stage, progress, cancel).await,
            Action::Try(action) => try_action::perform(stage, action, cancel).await,
            Action::Parallel(actions) => parallel::perform(stage, actions, cancel).await,
            Action::Serial(actions) => serial::perform(stage, actions, cancel).await,
            Action::Codependent(actions) => codependent::perform(stage, actions, cancel).await,
        }
    })
}

#[cfg(test)]
mod tests;
