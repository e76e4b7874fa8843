//! One connection to containerd as the stores use it: channel, namespace, snapshotter, and how its errors are read.

use std::path::Path;

use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use portlayer::store::StoreError;

/// A channel to containerd with the namespace and snapshotter everything of ours lives in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    snapshotter: String,
}

impl Connection {
    /// Wraps a channel.
    ///
    /// # Errors
    /// [`StoreError::Backend`] for a namespace that cannot be a header.
    pub fn new(channel: Channel, namespace: &str, snapshotter: &str) -> Result<Connection, StoreError> {
        let header = namespace.parse().map_err(|e| StoreError::Backend {
            verb: "use namespace",
            object: namespace.to_owned(),
            source: Box::new(e),
        })?;
        Ok(Connection { channel, namespace: header, snapshotter: snapshotter.to_owned() })
    }

    /// Connects to containerd's socket.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody answers.
    pub async fn open(socket: &Path, namespace: &str, snapshotter: &str) -> Result<Connection, StoreError> {
        let channel = containerd_client::connect(socket)
            .await
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", socket.display())))?;
        Connection::new(channel, namespace, snapshotter)
    }

    /// The channel.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Name of the snapshotter.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// A request in our namespace.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request in our namespace whose new objects belong to a lease.
    pub fn leased<T>(&self, lease: &str, message: T) -> Request<T> {
        let mut request = self.request(message);
        if let Ok(value) = lease.parse() {
            request.metadata_mut().insert("containerd-lease", value);
        }
        request
    }
}

/// What a failed call means to a store.
pub(crate) fn failed(verb: &'static str, object: &str, status: Status) -> StoreError {
    if status.code() == Code::Unavailable {
        return StoreError::Unavailable(format!("containerd: {}", status.message()));
    }
    // containerd 1.6 reports a full disk as Unknown, with the kernel's words only.
    if status.message().contains("no space left on device") {
        return StoreError::InsufficientSpace { need_bytes: 0, have_bytes: 0 };
    }
    StoreError::Backend { verb, object: object.to_owned(), source: Box::new(status) }
}
