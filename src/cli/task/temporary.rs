//! Elements that are made for one run and go with it.

use portlayer::element::{Descriptor, ElementId, Kind, NewElement};
use portlayer::error::DeleteError;
use portlayer::store::ProgressSink;

use crate::cli::context::OpenNode;
use crate::cli::failure::{Failure, fail};

/// What was made, in order.
#[derive(Default)]
pub(super) struct Temporary {
    made: Vec<ElementId>,
}

impl Temporary {
    /// Makes one.
    pub(super) async fn create(
        &mut self,
        node: &OpenNode,
        new: NewElement,
        progress: Option<ProgressSink>,
    ) -> Result<Descriptor, Failure> {
        let layer = node.layer();
        let created = layer
            .create_with_progress(new, progress)
            .await
            .map_err(fail)?;
        self.made.push(created.id.clone());
        Ok(created)
    }

    /// Keeps what was made.
    pub(super) fn keep(&mut self) {
        self.made.clear();
    }

    /// Removes all of it, newest first; goes on after a failure and reports the first.
    pub(super) async fn remove(self, node: &OpenNode) -> Result<(), Failure> {
        let mut failed = None;
        for id in self.made.iter().rev() {
            let removed = if id.kind() == Kind::Executor {
                super::remove::executor(node, id).await.map(|_| ())
            } else {
                match node.layer().delete(id).await {
                    Ok(()) | Err(DeleteError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(fail(error)),
                }
            };
            if let Err(failure) = removed {
                failed.get_or_insert(failure);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
