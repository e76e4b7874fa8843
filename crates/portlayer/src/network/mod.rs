//! Networks: what a node's owner configures, what an executor asks for when it joins one, and the address it is given.
//!
//! `network://node/none` is a loopback and nothing else, `network://node/host` the host's own network; every other
//! network of the location `node` is a bridge from the configuration. An executor on a bridge reaches what its
//! [egress rules](EgressRule) allow and nothing else: not the host, not a metadata service, not its neighbours, and
//! never what the node's owner closed. Everything here is pure; the kernel is the runtime's.

mod address;
mod egress;
mod lease;
mod spec;

pub use address::{Ports, Range, Subnet, merged_ports, merged_v4, merged_v6};
pub use egress::{
    Allow, EgressRule, Icmp, MAX_ENTRIES, MAX_RULES, Protocol, RuleError, closed, compile,
};
pub(crate) use lease::{LeaseError, release, take};
pub use lease::{NetworkLease, Published};
pub use spec::{EgressDefault, NetworkSpec, SpecError, check_all};

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What an executor asks of a network when it joins it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkUse {
    /// What it may reach; `None` = the default of the network.
    pub egress: Option<Vec<EgressRule>>,
    /// Ports of it that the host publishes.
    pub ports: Vec<PortMapping>,
    /// Its resolvers, which it may ask without a rule; none = those of the network.
    pub dns: Vec<IpAddr>,
}

/// A port of an executor that the host publishes on its own addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    /// Port in the executor.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Transport,
    /// Port of the host; `None` = one of those the network has for this.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// Address of the host; `None` = all of them, its IPv4 loopback too. Not `::1`: the kernel forwards nothing from there.
    #[serde(default)]
    pub host_address: Option<IpAddr>,
}

/// Protocols with ports.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name, as in configurations and in the firewall.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// The most ports one executor publishes.
const MAX_MAPPINGS: usize = 1000;

/// The most resolvers: programs look at no more (resolv.conf(5)).
const MAX_DNS: usize = 3;

/// Checks what can be checked without knowing the network.
pub fn check_use(wanted: &NetworkUse) -> Result<(), RuleError> {
    if let Some(rules) = &wanted.egress {
        compile("egress", rules)?;
    }
    let refuse = |field: String, rule| Err(RuleError { field, rule });
    if wanted.dns.len() > MAX_DNS {
        return refuse("dns".to_owned(), "at most 3: resolvers look at no more");
    }
    for (at, server) in wanted.dns.iter().enumerate() {
        if server.is_loopback() || server.is_unspecified() || server.is_multicast() {
            return refuse(
                format!("dns[{at}]"),
                "an address another host has is needed",
            );
        }
    }
    if wanted.ports.len() > MAX_MAPPINGS {
        return refuse("ports".to_owned(), "at most 1000 ports");
    }
    for (at, mapping) in wanted.ports.iter().enumerate() {
        if mapping.port == 0 {
            return refuse(format!("ports[{at}].port"), "a port is 1 to 65535");
        }
        if mapping.host_port == Some(0) {
            return refuse(format!("ports[{at}].host_port"), "a port is 1 to 65535");
        }
        match mapping.host_address {
            Some(address) if address.is_loopback() && address.is_ipv6() => {
                let rule = "the kernel forwards nothing that comes from ::1: use 127.0.0.1, or leave it out";
                return refuse(format!("ports[{at}].host_address"), rule);
            }
            Some(address) if address.is_unspecified() || address.is_multicast() => {
                let rule = "not an address a host has; leave it out for all of them";
                return refuse(format!("ports[{at}].host_address"), rule);
            }
            _ => {}
        }
        let mut before = wanted.ports[..at].iter();
        if before.any(|other| {
            other.protocol == mapping.protocol
                && mapping.host_port.is_some()
                && other.host_port == mapping.host_port
        }) {
            return refuse(format!("ports[{at}].host_port"), "published twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(port: u16, protocol: Transport, host_port: Option<u16>) -> PortMapping {
        PortMapping {
            port,
            protocol,
            host_port,
            host_address: None,
        }
    }

    fn refused(ports: Vec<PortMapping>) -> String {
        check_use(&NetworkUse {
            ports,
            ..NetworkUse::default()
        })
        .unwrap_err()
        .field
    }

    #[test]
    fn ports_that_cannot_be_published() {
        use Transport::{Tcp, Udp};
        assert_eq!(refused(vec![mapping(0, Tcp, None)]), "ports[0].port");
        assert_eq!(
            refused(vec![mapping(80, Tcp, Some(0))]),
            "ports[0].host_port"
        );
        let twice = vec![mapping(80, Tcp, Some(8080)), mapping(81, Tcp, Some(8080))];
        assert_eq!(refused(twice), "ports[1].host_port");
        let at = |address: &str| PortMapping {
            host_address: Some(address.parse().unwrap()),
            ..mapping(80, Tcp, Some(80))
        };
        assert_eq!(refused(vec![at("::1")]), "ports[0].host_address");
        assert_eq!(refused(vec![at("::")]), "ports[0].host_address");
        let fine = vec![
            at("192.0.2.1"),
            PortMapping {
                host_port: Some(81),
                ..at("127.0.0.1")
            },
            mapping(80, Udp, Some(80)),
            mapping(80, Tcp, None),
        ];
        assert_eq!(
            check_use(&NetworkUse {
                ports: fine,
                ..NetworkUse::default()
            }),
            Ok(())
        );
    }
}
