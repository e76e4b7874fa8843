//! Networks: what an executor asks of one and what it has of it.

use portlayer::network::{EgressRule, Icmp, NetworkLease, NetworkUse, PortMapping, Published};
use portlayer_proto::v1;

use super::{Wire, WireError, all, all_into, id, missing, name_of, named, small};

impl Wire for NetworkUse {
    type Message = v1::join_how::Network;

    fn into_wire(self) -> Self::Message {
        v1::join_how::Network {
            egress: self.egress.map(|rules| v1::EgressRules {
                rules: all_into(rules),
            }),
            ports: all_into(self.ports),
            dns: self.dns.iter().map(ToString::to_string).collect(),
        }
    }

    fn from_wire(message: Self::Message) -> Result<Self, WireError> {
        let egress = message.egress.map(|egress| all("egress", egress.rules));
        Ok(NetworkUse {
            egress: egress.transpose()?,
            ports: all("ports", message.ports)?,
            dns: dns(message.dns)?,
        })
    }
}

impl Wire for EgressRule {
    type Message = v1::EgressRule;

    fn into_wire(self) -> v1::EgressRule {
        let icmp = self.icmp.unwrap_or_default();
        v1::EgressRule {
            protocol: name_of(self.protocol),
            destinations: self.destinations,
            ports: self.ports,
            icmp_type: icmp.kind.map(u32::from),
            icmp_code: icmp.code.map(u32::from),
            log: self.log,
        }
    }

    fn from_wire(message: v1::EgressRule) -> Result<Self, WireError> {
        let kind = message.icmp_type.map(|kind| small("icmp_type", kind));
        let code = message.icmp_code.map(|code| small("icmp_code", code));
        let icmp = Icmp {
            kind: kind.transpose()?,
            code: code.transpose()?,
        };
        Ok(EgressRule {
            protocol: named("protocol", &message.protocol)?,
            destinations: message.destinations,
            ports: message.ports,
            icmp: (icmp != Icmp::default()).then_some(icmp),
            log: message.log,
        })
    }
}

impl Wire for PortMapping {
    type Message = v1::PortMapping;

    fn into_wire(self) -> v1::PortMapping {
        v1::PortMapping {
            port: self.port.into(),
            protocol: name_of(self.protocol),
            host_port: self.host_port.map(u32::from),
            host_address: self.host_address.map(|address| address.to_string()),
        }
    }

    fn from_wire(message: v1::PortMapping) -> Result<Self, WireError> {
        let host_port = message.host_port.map(|port| small("host_port", port));
        Ok(PortMapping {
            port: small("port", message.port)?,
            protocol: named("protocol", &message.protocol)?,
            host_port: host_port.transpose()?,
            host_address: address("host_address", message.host_address)?,
        })
    }
}

impl Wire for NetworkLease {
    type Message = v1::NetworkLease;

    fn into_wire(self) -> v1::NetworkLease {
        let ports = self.ports.into_iter().map(|port| PortMapping {
            port: port.port,
            protocol: port.protocol,
            host_port: Some(port.host_port),
            host_address: port.host_address,
        });
        v1::NetworkLease {
            network: self.network.to_string(),
            number: self.number,
            v4: self.v4.map(|address| address.to_string()),
            v6: self.v6.map(|address| address.to_string()),
            ports: all_into(ports),
        }
    }

    fn from_wire(message: v1::NetworkLease) -> Result<Self, WireError> {
        let mut ports = Vec::with_capacity(message.ports.len());
        for port in all::<PortMapping>("ports", message.ports)? {
            ports.push(Published {
                protocol: port.protocol,
                port: port.port,
                host_port: port.host_port.ok_or_else(|| missing("ports.host_port"))?,
                host_address: port.host_address,
            });
        }
        Ok(NetworkLease {
            network: id("network", &message.network)?,
            number: message.number,
            v4: address("v4", message.v4)?,
            v6: address("v6", message.v6)?,
            ports,
        })
    }
}

fn dns(texts: Vec<String>) -> Result<Vec<std::net::IpAddr>, WireError> {
    let read = texts.into_iter().enumerate().map(|(at, text)| {
        let field = format!("dns[{at}]");
        address(&field, Some(text)).and_then(|read| read.ok_or_else(|| missing(&field)))
    });
    read.collect()
}

fn address<T: std::str::FromStr>(
    field: &str,
    text: Option<String>,
) -> Result<Option<T>, WireError> {
    let read = text.map(|text| text.parse().map_err(|_| text)).transpose();
    read.map_err(|value| WireError::Unknown {
        field: field.to_owned(),
        value,
    })
}
