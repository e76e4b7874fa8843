//! Configured bridge networks.

use std::net::IpAddr;

use portlayer::network::{EgressDefault, NetworkSpec, Ports, Range, Subnet, check_all};
use serde::{Deserialize, Serialize};

/// One network, as written. What is left out has the default of [`NetworkSpec::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Name: the element is `network://node/<name>`.
    pub name: String,
    /// IPv4 addresses, as CIDR.
    pub subnet4: Option<String>,
    /// IPv6 addresses, as CIDR.
    pub subnet6: Option<String>,
    /// Resolvers; they may be asked without a rule.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Bytes of the largest packet.
    pub mtu: Option<u32>,
    /// What executors without rules of their own may reach.
    #[serde(default)]
    pub egress: EgressDefault,
    /// Addresses, CIDRs and ranges that no executor ever reaches.
    #[serde(default)]
    pub never: Vec<String>,
    /// Ports of the host for mappings that ask for no certain one: `40000-49999`.
    pub ports: Option<String>,
    /// Executors may reach each other, where their rules allow it.
    #[serde(default)]
    pub neighbours: bool,
    /// What leaves the node gets the node's own address.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

const fn yes() -> bool {
    true
}

impl NetworkConfig {
    fn spec(&self) -> Result<NetworkSpec, (String, String)> {
        let subnet = |field: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(str::parse::<Subnet>).transpose();
            parsed.map_err(|rule| (field.to_owned(), rule.to_owned()))
        };
        let (subnet4, subnet6) = (
            subnet("subnet4", &self.subnet4)?,
            subnet("subnet6", &self.subnet6)?,
        );
        let defaults = NetworkSpec::new(&self.name, subnet4, subnet6);
        let mut never = Vec::new();
        for (at, text) in self.never.iter().enumerate() {
            let range =
                Range::parse(text).map_err(|rule| (format!("never[{at}]"), rule.to_owned()))?;
            never.push(range);
        }
        let ports = self.ports.as_deref().map(str::parse::<Ports>).transpose();
        let ports = ports.map_err(|rule| ("ports".to_owned(), rule.to_owned()))?;
        Ok(NetworkSpec {
            dns: self.dns.clone(),
            mtu: self.mtu.unwrap_or(defaults.mtu),
            egress: self.egress,
            never,
            ports: ports.unwrap_or(defaults.ports),
            neighbours: self.neighbours,
            masquerade: self.masquerade,
            ..defaults
        })
    }
}

/// The networks, checked; else the field's path and the rule it breaks.
pub(super) fn specs(networks: &[NetworkConfig]) -> Result<Vec<NetworkSpec>, (String, String)> {
    let mut specs = Vec::with_capacity(networks.len());
    for (at, network) in networks.iter().enumerate() {
        let spec = network.spec();
        specs.push(spec.map_err(|(field, rule)| (format!("networks[{at}].{field}"), rule))?);
    }
    check_all(&specs).map_err(|error| (error.field, error.rule))?;
    Ok(specs)
}
