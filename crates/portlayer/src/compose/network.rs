//! The network of an executor in the terms of the engine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::node::Node;
use super::oci;
use super::validate::{Bridge, Resolved};
use super::{Composition, JoinHow, Role};
use crate::element::{ElementId, ExecutorBody, Kind, Record, builtin};
use crate::network::{self, EgressDefault, NetworkLease, NetworkSpec, NetworkUse};
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
            wanted,
        } = self.bridge.as_deref()?;
        let hostname = self.spec.hostname.as_deref();
        Some(BridgePlan {
            network: id.clone(),
            spec: spec.clone(),
            lease: lease.clone()?,
            egress: egress.clone(),
            dns: resolvers(wanted, spec),
            hostname: oci::hostname(executor, hostname),
        })
    }
}

/// The executor's own, else the network's.
fn resolvers(wanted: &NetworkUse, spec: &NetworkSpec) -> Vec<IpAddr> {
    match wanted.dns.is_empty() {
        true => spec.dns.clone(),
        false => wanted.dns.clone(),
    }
}

impl Node {
    /// A network by its record: as it is configured, or as a caller made it. One that overlaps with what was configured since
    /// cannot be used, nor can one that is configured no more.
    pub(crate) fn network(&self, record: &Record) -> Option<NetworkSpec> {
        if let Some(spec) = self.networks.get(&record.id) {
            return Some(spec.clone());
        }
        let made = builtin::made_network(record)?;
        let mut configured = self.networks.values();
        configured
            .all(|other| made.overlap(other).is_none())
            .then_some(made)
    }

    /// The same by its id.
    pub(crate) fn network_of(&self, id: &ElementId) -> Option<NetworkSpec> {
        if let Some(spec) = self.networks.get(id) {
            return Some(spec.clone());
        }
        self.network(&self.ledger.get(id).ok()??)
    }

    /// The bridge networks that take part.
    pub(crate) fn networks_of(&self, wanted: &Composition) -> BTreeMap<ElementId, NetworkSpec> {
        let ids = wanted.joined.keys().filter(|id| id.kind() == Kind::Network);
        ids.filter_map(|id| Some((id.clone(), self.network_of(id)?)))
            .collect()
    }

    /// What the container of a running executor is connected to, from its record alone.
    pub(crate) fn connected(&self, record: &Record, body: &ExecutorBody) -> Option<BridgePlan> {
        let lease = body.composition.lease.clone()?;
        let spec = &self.network_of(&lease.network)?;
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
            dns: resolvers(wanted, spec),
            hostname: oci::hostname(&record.id, body.spec.hostname.as_deref()),
        })
    }
}
