//! One connection to containerd and its services, with the headers every call needs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::{
    services::v1::{
        containers_client::ContainersClient, content_client::ContentClient,
        diff_client::DiffClient, images_client::ImagesClient,
        introspection_client::IntrospectionClient, leases_client::LeasesClient,
        namespaces_client::NamespacesClient, snapshots::snapshots_client::SnapshotsClient,
        tasks_client::TasksClient, version_client::VersionClient,
    },
    tonic::{
        Request, Status,
        metadata::{Ascii, MetadataValue},
        service::{Interceptor, interceptor::InterceptedService},
        transport::{Channel, Endpoint},
    },
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// How long an ordinary call may take. containerd answers in milliseconds; a minute means it hangs, or the disk does.
const DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer taken: a list of some ten thousand snapshots fits.
const ANSWER_BYTES: usize = 64 << 20;

/// A channel with our headers.
pub type Service = InterceptedService<Channel, Headers>;

/// Adds namespace, lease and deadline to each call.
#[derive(Clone)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
    deadline: Option<Duration>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request
                .metadata_mut()
                .insert("containerd-lease", lease.clone());
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        Ok(request)
    }
}

/// A name that cannot be sent as a header.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} {name:?} is not plain ASCII")]
pub struct BadName {
    what: &'static str,
    name: String,
}

/// Calls containerd in one namespace. Cheap to clone; all clones share one connection, which is made at the first call and made
/// again after containerd was restarted.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
}

fn header(what: &'static str, name: &str) -> Result<MetadataValue<Ascii>, BadName> {
    name.parse().map_err(|_| BadName {
        what,
        name: name.to_owned(),
    })
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident,)*) => {
        $($(#[$doc])*
        pub fn $name(&self) -> $client<Service> {
            $client::with_interceptor(self.channel.clone(), self.headers.clone()).max_decoding_message_size(ANSWER_BYTES)
        })*
    };
}

impl Client {
    /// A client for the socket; does not connect yet. Must be called in a tokio runtime.
    pub fn new(socket: &Path, namespace: &str) -> Result<Client, BadName> {
        let socket: PathBuf = socket.to_owned();
        // The address is never used: the connector takes the path.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }),
        );
        let namespace = header("namespace", namespace)?;
        Ok(Client {
            channel,
            headers: Headers {
                namespace,
                lease: None,
                deadline: Some(DEADLINE),
            },
        })
    }

    /// The same client with everything it makes protected by a lease.
    pub fn leased(&self, lease: &str) -> Result<Client, BadName> {
        let mut client = self.clone();
        client.headers.lease = Some(header("lease", lease)?);
        Ok(client)
    }

    /// The same client with another deadline for each call; `None` waits for ever.
    #[must_use]
    pub fn with_deadline(&self, deadline: Option<Duration>) -> Client {
        let mut client = self.clone();
        client.headers.deadline = deadline;
        client
    }

    services! {
        /// Records of containers.
        containers: ContainersClient,
        /// Blobs.
        content: ContentClient,
        /// Unpacking of layers.
        diff: DiffClient,
        /// Names of images.
        images: ImagesClient,
        /// Plugins.
        introspection: IntrospectionClient,
        /// Protection from the garbage collector.
        leases: LeasesClient,
        /// Namespaces.
        namespaces: NamespacesClient,
        /// File systems.
        snapshots: SnapshotsClient,
        /// Processes; containerd calls them tasks and execs.
        tasks: TasksClient,
        /// Version.
        version: VersionClient,
    }
}
