//! Removing an executor that may still run.

use portlayer::compose::Interrupt;
use portlayer::element::ElementId;
use portlayer::error::DeleteError;

use crate::cli::context::OpenNode;
use crate::cli::failure::{Failure, fail};

/// Removes an executor; one that runs is stopped in stages first. Whether it was there.
pub(crate) async fn executor(node: &OpenNode, id: &ElementId) -> Result<bool, Failure> {
    let layer = node.layer();
    match layer.delete(id).await {
        Ok(()) => return Ok(true),
        Err(DeleteError::NotFound { .. }) => return Ok(false),
        Err(DeleteError::InvalidState { .. }) => {}
        Err(error) => return Err(fail(error)),
    }
    layer
        .interrupt(id, None, Interrupt::Resume)
        .await
        .map_err(fail)?;
    layer
        .interrupt(id, None, Interrupt::Stop { how: None })
        .await
        .map_err(fail)?;
    for task in super::tasks(node, id).await? {
        match layer.wait(id, &task, None).await {
            Ok(_) | Err(portlayer::compose::TaskError::NeverStarted { .. }) => {}
            Err(error) => return Err(fail(error)),
        }
    }
    layer.delete(id).await.map_err(fail)?;
    Ok(true)
}
