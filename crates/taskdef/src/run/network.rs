//! What a plan asks of the network, in the words of the port layer.

use std::net::IpAddr;

use portlayer::PortLayer;
use portlayer::element::{Body, ElementId};
use portlayer::network::{EgressRule, Icmp, NetworkUse, Protocol};

use super::container::ContainerError;
use crate::plan::{self, EnvValue};

/// The rules of a plan. Without any nothing can be reached, whatever the network's own default is.
pub(super) fn wanted(network: &plan::Network) -> NetworkUse {
    NetworkUse {
        egress: Some(network.egress.iter().map(rule).collect()),
        ..NetworkUse::default()
    }
}

fn rule(rule: &plan::EgressRule) -> EgressRule {
    let range = |(first, last): &(IpAddr, IpAddr)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let text = |ports: &[(u16, u16)]| {
        ports
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect()
    };
    let icmp = |kind: Option<u8>, code: Option<u8>| {
        // Any type means any code.
        Some(Icmp {
            kind,
            code: kind.and(code),
        })
    };
    let (protocol, ports, icmp) = match &rule.protocol {
        plan::Protocol::Tcp(ports) => (Protocol::Tcp, text(ports), None),
        plan::Protocol::Udp(ports) => (Protocol::Udp, text(ports), None),
        plan::Protocol::Icmp { kind, code } => (Protocol::Icmp, Vec::new(), icmp(*kind, *code)),
        plan::Protocol::Icmpv6 { kind, code } => (Protocol::Icmpv6, Vec::new(), icmp(*kind, *code)),
        plan::Protocol::All => (Protocol::All, Vec::new(), None),
    };
    EgressRule {
        protocol,
        destinations: rule.destinations.iter().map(range).collect(),
        ports,
        icmp,
        log: rule.log,
    }
}

/// The addresses a committed executor was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    v4: Option<String>,
    v6: Option<String>,
}

impl Addresses {
    /// Those there are.
    pub(super) fn texts(&self) -> Vec<&str> {
        let all = [&self.v4, &self.v6];
        all.into_iter().flatten().map(String::as_str).collect()
    }
}

/// The addresses a committed executor was given.
pub(super) async fn addresses(
    layer: &PortLayer,
    executor: &ElementId,
) -> Result<Addresses, ContainerError> {
    let lease = match layer.read(executor).await?.body {
        Body::Executor(body) => body.composition.lease,
        _ => None,
    };
    Ok(lease.map_or_else(Addresses::default, |lease| Addresses {
        v4: lease.v4.map(|address| address.to_string()),
        v6: lease.v6.map(|address| address.to_string()),
    }))
}

/// The variables with what is known now.
pub(super) fn forced_env(
    planned: &[(String, EnvValue)],
    addresses: &Addresses,
) -> Vec<(String, String)> {
    let first = addresses.v4.as_ref().or(addresses.v6.as_ref());
    let value = |value: &EnvValue| match value {
        EnvValue::Text(text) => Some(text.clone()),
        EnvValue::Address(otherwise) => Some(first.unwrap_or(otherwise).clone()),
        EnvValue::AddressV6 => addresses.v6.clone(),
    };
    planned
        .iter()
        .filter_map(|(name, planned)| Some((name.clone(), value(planned)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_addresses() {
        let planned = [
            ("A".to_owned(), EnvValue::Address("otherwise".to_owned())),
            ("B".to_owned(), EnvValue::AddressV6),
        ];
        let set = |v4: Option<&str>, v6: Option<&str>| {
            let addresses = Addresses {
                v4: v4.map(str::to_owned),
                v6: v6.map(str::to_owned),
            };
            let env = forced_env(&planned, &addresses);
            let texts = env.iter().map(|(name, value)| format!("{name}={value}"));
            texts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(set(None, None), "A=otherwise");
        assert_eq!(set(Some("10.0.0.2"), None), "A=10.0.0.2");
        assert_eq!(set(Some("10.0.0.2"), Some("fd::2")), "A=10.0.0.2 B=fd::2");
        assert_eq!(set(None, Some("fd::2")), "A=fd::2 B=fd::2");
    }

    #[test]
    fn every_rule_that_diego_accepts_is_one_of_the_port_layer() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let of = |protocol, first: &str, last: &str| plan::EgressRule {
            protocol,
            destinations: vec![(ip(first), ip(last))],
            log: true,
        };
        let any = |kind, code| plan::Protocol::Icmp { kind, code };
        let network = plan::Network {
            egress: vec![
                of(
                    plan::Protocol::Tcp(vec![(80, 80), (1, 1024)]),
                    "0.0.0.0",
                    "255.255.255.255",
                ),
                of(plan::Protocol::Udp(vec![(53, 53)]), "10.0.0.1", "10.0.0.1"),
                of(any(None, None), "10.0.0.1", "10.0.0.9"),
                of(any(Some(8), None), "10.0.0.1", "10.0.0.9"),
                of(any(None, Some(3)), "10.0.0.1", "10.0.0.9"),
                of(
                    plan::Protocol::Icmpv6 {
                        kind: Some(128),
                        code: Some(0),
                    },
                    "2100::1",
                    "2100::2",
                ),
                of(plan::Protocol::All, "2100::1", "2100::2"),
            ],
            ..plan::Network::default()
        };
        portlayer::network::check_use(&wanted(&network)).unwrap();
    }
}
