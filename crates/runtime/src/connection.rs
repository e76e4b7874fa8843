//! containerd as the stores use it: client and snapshotter, and how its errors are read.

use std::fmt;

use containerd_client::tonic::{Code, Status};
use portlayer::store::StoreError;

use crate::client::Client;

/// A client of containerd and the snapshotter that everything of ours lives in. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    snapshotter: String,
}

impl Connection {
    /// Over a client; nothing is called yet.
    pub fn new(client: Client, snapshotter: &str) -> Connection {
        Connection {
            client,
            snapshotter: snapshotter.to_owned(),
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client, with everything it makes held by a lease.
    ///
    /// # Errors
    /// [`StoreError::Backend`] for a name that cannot be a header.
    pub fn leased(&self, lease: &str) -> Result<Client, StoreError> {
        self.client.leased(lease).map_err(|e| StoreError::Backend {
            verb: "use lease",
            object: lease.to_owned(),
            source: Box::new(e),
        })
    }

    /// Name of the snapshotter.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("snapshotter", &self.snapshotter)
            .finish_non_exhaustive()
    }
}

/// What a failed call means to a store.
pub(crate) fn failed(verb: &'static str, object: &str, status: Status) -> StoreError {
    if status.code() == Code::Unavailable {
        return StoreError::Unavailable(format!("containerd: {}", status.message()));
    }
    // containerd 1.6 reports a full disk as Unknown, with the kernel's words only.
    if status.message().contains("no space left on device") {
        return StoreError::InsufficientSpace {
            need_bytes: 0,
            have_bytes: 0,
        };
    }
    StoreError::Backend {
        verb,
        object: object.to_owned(),
        source: Box::new(status),
    }
}
