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
        ports: Vec::new(),
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

/// The address a committed executor was given.
pub(super) async fn address(
    layer: &PortLayer,
    executor: &ElementId,
) -> Result<Option<String>, ContainerError> {
    let Body::Executor(body) = layer.read(executor).await?.body else {
        return Ok(None);
    };
    let Some(lease) = body.composition.lease else {
        return Ok(None);
    };
    let v4 = lease.v4.map(|address| address.to_string());
    Ok(v4.or_else(|| lease.v6.map(|address| address.to_string())))
}

/// The variables with what is known now.
pub(super) fn forced_env(
    planned: &[(String, EnvValue)],
    address: Option<&str>,
) -> Vec<(String, String)> {
    let value = |value: &EnvValue| match value {
        EnvValue::Text(text) => text.clone(),
        EnvValue::Address(otherwise) => address.unwrap_or(otherwise).to_owned(),
    };
    planned
        .iter()
        .map(|(name, planned)| (name.clone(), value(planned)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
