//! What calls and waiters of one runtime share.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use containerd_client::services::v1::container::Runtime as Shim;
use portlayer::runtime::{ContainerId, IdRange, ProcessId, RuntimeInfo};
use tokio::sync::watch;

use super::tracked::Tracked;
use crate::{
    cgroup::Layout,
    client::Client,
    engine::Places,
    idmap::Users,
    io::{Forwarders, Logs, Pump},
    moves::Moves,
    network::Networks,
    place::ContainerPlace,
    pool::Pool,
};

/// What the waiters share with the calls.
pub(crate) struct Shared {
    pub(super) client: Client,
    pub(super) places: Places,
    pub(super) runc: String,
    pub(super) layout: Layout,
    pub(super) moves: Moves,
    pub(super) info: RuntimeInfo,
    pub(super) init: PathBuf,
    pub(super) logs: Arc<Logs>,
    pub(super) forwarders: Forwarders,
    pub(super) log_destinations: Vec<String>,
    pub(super) networks: Networks,
    pub(super) pump: Pump,
    pub(super) tracked: Mutex<HashMap<ProcessId, Arc<Tracked>>>,
    pub(super) users: Arc<Users>,
    /// Where bounded writable layers are, when they share a pool.
    pub(super) disks: Option<Arc<Pool>>,
    pub(super) losses: watch::Receiver<u64>,
}

impl Shared {
    pub(super) fn cgroup(&self, id: &ContainerId) -> String {
        format!("{}/{}", self.places.cgroup_parent, id.as_str())
    }

    pub(super) fn place(&self, id: &ContainerId) -> ContainerPlace {
        ContainerPlace::new(&self.places, id)
    }

    pub(super) fn options(&self, ids: Option<IdRange>) -> prost_types::Any {
        crate::options::RuncOptions::any(&self.runc, &self.places.runc_root(), ids)
    }

    /// containerd's shim for runc, by our starter of it.
    pub(super) fn shim(&self, ids: Option<IdRange>) -> Shim {
        Shim {
            name: crate::init::shim(&self.places.directory)
                .to_string_lossy()
                .into_owned(),
            options: Some(self.options(ids)),
        }
    }
}
