//! Elements that are made for one run and go with it.

use portlayer::element::{Descriptor, ElementId, Kind, NewElement};
use portlayer::store::ProgressSink;
use portlayer_client::{Client, PullFrom};

use crate::cli::failure::Failure;

/// What was made, in order.
#[derive(Default)]
pub(super) struct Temporary {
    made: Vec<ElementId>,
}

impl Temporary {
    /// Makes one.
    pub(super) async fn create(
        &mut self,
        client: &Client,
        new: NewElement,
        progress: Option<ProgressSink>,
    ) -> Result<Descriptor, Failure> {
        let created = match progress {
            Some(progress) => client.create_with_progress(new, progress).await?,
            None => client.create(new).await?,
        };
        self.made.push(created.id.clone());
        Ok(created)
    }

    /// Makes one of what a registry has.
    pub(super) async fn pull(
        &mut self,
        client: &Client,
        new: NewElement,
        from: PullFrom,
        progress: ProgressSink,
    ) -> Result<(), Failure> {
        let pulled = client.pull(new, from, Some(progress)).await?;
        self.made.push(pulled.image.id);
        Ok(())
    }

    /// Keeps what was made.
    pub(super) fn keep(&mut self) {
        self.made.clear();
    }

    /// Removes all of it, newest first; goes on after a failure and reports the first.
    pub(super) async fn remove(self, client: &Client) -> Result<(), Failure> {
        let mut failed = None;
        for id in self.made.iter().rev() {
            let removed = if id.kind() == Kind::Executor {
                super::remove::executor(client, id).await.map(|_| ())
            } else {
                match client.delete(id).await {
                    Ok(()) => Ok(()),
                    Err(error) if error.reason() == "not_found" => Ok(()),
                    Err(error) => Err(error.into()),
                }
            };
            if let Err(failure) = removed {
                failed.get_or_insert(failure);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
