//! Leases: what keeps containerd's garbage collector away from things that no record protects yet.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{CreateRequest, DeleteRequest, ListRequest},
    tonic::Code,
};
use portlayer::runtime::RuntimeError;

use crate::{
    client::Client,
    error::{is_missing, refused},
};

/// Makes a lease. Idempotent. It has no expiry, because that is wall-clock time in containerd and a clock jump would destroy
/// work in flight; leftovers are found by name and deleted.
pub(crate) async fn create(client: &Client, name: &str) -> Result<(), RuntimeError> {
    portlayer::crash::point("engine.before-lease");
    let request = CreateRequest {
        id: name.to_owned(),
        labels: HashMap::new(),
    };
    match client.leases().create(request).await {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        other => other.map(drop).map_err(refused("create lease", name)),
    }
}

/// Deletes a lease and, when `sync`, waits for the garbage collection this allows. Idempotent.
pub(crate) async fn delete(client: &Client, name: &str, sync: bool) -> Result<(), RuntimeError> {
    portlayer::crash::point("engine.before-end-lease");
    match client
        .leases()
        .delete(DeleteRequest {
            id: name.to_owned(),
            sync,
        })
        .await
    {
        Err(status) if is_missing(&status) => Ok(()),
        other => other.map(drop).map_err(refused("delete lease", name)),
    }
}

/// Names of all leases.
pub(crate) async fn list(client: &Client) -> Result<Vec<String>, RuntimeError> {
    let answer = client
        .leases()
        .list(ListRequest {
            filters: Vec::new(),
        })
        .await;
    Ok(answer
        .map_err(refused("list", "leases"))?
        .into_inner()
        .leases
        .into_iter()
        .map(|lease| lease.id)
        .collect())
}
