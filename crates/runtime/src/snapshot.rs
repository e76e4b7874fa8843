//! containerd's snapshots and leases, verb by verb. Removing verbs are idempotent.

use std::collections::HashMap;

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource,
};
use containerd_client::tonic::Code;
use containerd_client::types::Mount;
use portlayer::store::StoreError;

use crate::client::Service;
use crate::connection::{Connection, failed};

/// The label that keeps an object from containerd's garbage collection.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// The label by which we find our own objects: the location's name.
pub const LOCATION: &str = "portlayer.location";
/// The label with the element's id, for people.
pub const ELEMENT: &str = "portlayer.element";

/// Labels of an object that belongs to an element.
pub fn labels(location: &str, element: &str) -> HashMap<String, String> {
    HashMap::from([
        (LOCATION.to_owned(), location.to_owned()),
        (ELEMENT.to_owned(), element.to_owned()),
    ])
}

/// Snapshots of one connection's snapshotter.
#[derive(Debug, Clone)]
pub struct Snapshots<'a>(pub &'a Connection);

/// What making a snapshot found.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// It was made; its mounts.
    New(Vec<Mount>),
    /// One of this name is there already.
    Exists,
}

impl Snapshots<'_> {
    fn client(&self) -> SnapshotsClient<Service> {
        self.0.client().snapshots()
    }

    fn leased(&self, lease: &str) -> Result<SnapshotsClient<Service>, StoreError> {
        Ok(self.0.leased(lease)?.snapshots())
    }

    /// Makes a writable snapshot on a committed parent (`""` = empty), in a lease when given.
    ///
    /// # Errors
    /// The engine's.
    pub async fn prepare(
        &self,
        lease: Option<&str>,
        key: &str,
        parent: &str,
        labels: HashMap<String, String>,
    ) -> Result<Made, StoreError> {
        let message = PrepareSnapshotRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let mut client = match lease {
            Some(lease) => self.leased(lease)?,
            None => self.client(),
        };
        match client.prepare(message).await {
            Ok(response) => Ok(Made::New(response.into_inner().mounts)),
            Err(status) if status.code() == Code::AlreadyExists => Ok(Made::Exists),
            Err(status) => Err(failed("prepare snapshot", key, status)),
        }
    }

    /// Makes a read-only view of a committed snapshot, in a lease: an unleased view is collected at once.
    ///
    /// # Errors
    /// The engine's.
    pub async fn view(
        &self,
        lease: &str,
        key: &str,
        parent: &str,
    ) -> Result<Vec<Mount>, StoreError> {
        let message = ViewSnapshotRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let response = self.leased(lease)?.view(message).await;
        Ok(response
            .map_err(|status| failed("view snapshot", parent, status))?
            .into_inner()
            .mounts)
    }

    /// Turns a writable snapshot into a committed one. False when `name` is there already (`key` then stays).
    ///
    /// # Errors
    /// The engine's.
    pub async fn commit(
        &self,
        lease: &str,
        name: &str,
        key: &str,
        labels: HashMap<String, String>,
    ) -> Result<bool, StoreError> {
        let message = CommitSnapshotRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
        };
        match self.leased(lease)?.commit(message).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(failed("commit snapshot", name, status)),
        }
    }

    /// Mounts of an existing snapshot; `None` when it is not there.
    ///
    /// # Errors
    /// The engine's.
    pub async fn mounts(&self, key: &str) -> Result<Option<Vec<Mount>>, StoreError> {
        let message = MountsRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            key: key.to_owned(),
        };
        match self.client().mounts(message).await {
            Ok(response) => Ok(Some(response.into_inner().mounts)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("read the mounts of snapshot", key, status)),
        }
    }

    /// Whether a snapshot is there.
    ///
    /// # Errors
    /// The engine's.
    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        let message = StatSnapshotRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            key: key.to_owned(),
        };
        match self.client().stat(message).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(failed("look at snapshot", key, status)),
        }
    }

    /// Removes a snapshot. Idempotent. The engine refuses while it has children.
    ///
    /// # Errors
    /// The engine's.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let message = RemoveSnapshotRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            key: key.to_owned(),
        };
        match self.client().remove(message).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(failed("remove snapshot", key, status)),
        }
    }

    /// Keys of the snapshots that carry this location's label.
    ///
    /// # Errors
    /// The engine's.
    pub async fn of_location(&self, location: &str) -> Result<Vec<String>, StoreError> {
        let message = ListSnapshotsRequest {
            snapshotter: self.0.snapshotter().to_owned(),
            filters: vec![format!("labels.\"{LOCATION}\"=={location}")],
        };
        let response = self.client().list(message).await;
        let mut stream = response
            .map_err(|status| failed("list snapshots of", location, status))?
            .into_inner();
        let mut keys = Vec::new();
        while let Some(page) = stream
            .message()
            .await
            .map_err(|s| failed("list snapshots of", location, s))?
        {
            keys.extend(page.info.into_iter().map(|info| info.name));
        }
        Ok(keys)
    }
}

/// A lease: what is made under it lives until it is deleted, or is referenced by something that lives.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    id: String,
}

impl Lease {
    /// Creates a lease; one of the same name left by a crash is deleted first, with what only it held.
    ///
    /// # Errors
    /// The engine's.
    pub async fn create(
        connection: &Connection,
        id: &str,
        mut labels: HashMap<String, String>,
    ) -> Result<Lease, StoreError> {
        // A lease that nobody deletes is collected a day later; long, so that a clock step does not lose work.
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
        labels.insert(
            "containerd.io/gc.expire".to_owned(),
            expiry.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        );
        let lease = Lease {
            connection: connection.clone(),
            id: id.to_owned(),
        };
        let message = CreateRequest {
            id: id.to_owned(),
            labels,
        };
        let mut client = connection.client().leases();
        match client.create(message.clone()).await {
            Ok(_) => return Ok(lease),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(failed("create lease", id, status)),
        }
        lease.delete().await?;
        let response = client.create(message).await;
        response.map_err(|status| failed("create lease", id, status))?;
        Ok(lease)
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds an object that exists already (`content`, or `snapshots/<snapshotter>`), so that it stays.
    ///
    /// # Errors
    /// The engine's.
    pub async fn add(&self, kind: &str, object: &str) -> Result<(), StoreError> {
        let resource = Resource {
            id: object.to_owned(),
            r#type: kind.to_owned(),
        };
        let message = AddResourceRequest {
            id: self.id.clone(),
            resource: Some(resource),
        };
        match self
            .connection
            .client()
            .leases()
            .add_resource(message)
            .await
        {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(failed("lease", object, status)),
        }
    }

    /// Deletes the lease and waits until what only it held is collected. Idempotent.
    ///
    /// # Errors
    /// The engine's.
    pub async fn delete(&self) -> Result<(), StoreError> {
        delete_lease(&self.connection, &self.id).await
    }
}

/// Deletes a lease by name and waits for the collection. Idempotent.
///
/// # Errors
/// The engine's.
pub async fn delete_lease(connection: &Connection, id: &str) -> Result<(), StoreError> {
    let message = DeleteRequest {
        id: id.to_owned(),
        sync: true,
    };
    match connection.client().leases().delete(message).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed("delete lease", id, status)),
    }
}

/// Names of the leases that carry this location's label.
///
/// # Errors
/// The engine's.
pub async fn leases_of_location(
    connection: &Connection,
    location: &str,
) -> Result<Vec<String>, StoreError> {
    let message = ListRequest {
        filters: vec![format!("labels.\"{LOCATION}\"=={location}")],
    };
    let response = connection.client().leases().list(message).await;
    let leases = response
        .map_err(|status| failed("list leases of", location, status))?
        .into_inner()
        .leases;
    Ok(leases.into_iter().map(|lease| lease.id).collect())
}
