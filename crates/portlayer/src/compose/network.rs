//! The network of an executor in the terms of the engine.

use super::node::Node;
use super::oci;
use super::validate::{Bridge, Resolved};
use super::{JoinHow, Role};
use crate::element::{ElementId, ExecutorBody, Record};
use crate::network::{self, EgressDefault, NetworkLease};
use crate::runtime::{BridgePlan, NetworkPlan};

impl Resolved {
    /// With the addresses a claim has given.
    pub(crate) fn with_lease(mut self, lease: Option<NetworkLease>) -> Self {
        if let (Some(bridge), Some(lease)) = (&mut self.bridge, lease) {
            bridge.lease = Some(lease);
        }
        self
    }

    /// What the container is made with.
    pub(crate) fn network_plan(&self, executor: &ElementId) -> NetworkPlan {
        match (self.host_network, self.bridge_plan(executor)) {
            (true, _) => NetworkPlan::Host,
            (false, Some(plan)) => NetworkPlan::Bridge(Box::new(plan)),
            (false, None) => NetworkPlan::None,
        }
    }

    /// What the container is connected to; `None` also as long as it has no addresses.
    pub(crate) fn bridge_plan(&self, executor: &ElementId) -> Option<BridgePlan> {
        let Bridge {
            id,
            spec,
            egress,
            lease,
            ..
        } = self.bridge.as_deref()?;
        let hostname = self.spec.hostname.as_deref();
        Some(BridgePlan {
            network: id.clone(),
            spec: spec.clone(),
            lease: lease.clone()?,
            egress: egress.clone(),
            hostname: oci::hostname(executor, hostname),
        })
    }
}

impl Node {
    /// What the container of a running executor is connected to, from its record alone.
    pub(crate) fn connected(&self, record: &Record, body: &ExecutorBody) -> Option<BridgePlan> {
        let lease = body.composition.lease.clone()?;
        let spec = self.networks.get(&lease.network)?;
        let joined = body.composition.joined.get(&lease.network)?;
        let Role::Part(JoinHow::Network(wanted)) = &joined.role else {
            return None;
        };
        let egress = match (&wanted.egress, spec.egress) {
            // It was checked before it was committed; rules that cannot be read any more open nothing.
            (Some(rules), _) => Some(network::compile("egress", rules).unwrap_or_default()),
            (None, EgressDefault::Deny) => Some(Vec::new()),
            (None, EgressDefault::Allow) => None,
        };
        Some(BridgePlan {
            network: lease.network.clone(),
            spec: spec.clone(),
            lease,
            egress,
            hostname: oci::hostname(&record.id, body.spec.hostname.as_deref()),
        })
    }
}
