//! The networks of a node, as its owner configures them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{Ports, Range, Subnet};
use crate::element::{ElementId, Kind};

/// A bridge network of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name: the element is `network://node/<name>`; not `none` or `host`.
    pub name: String,
    /// IPv4 addresses of it; the first usable one is the gateway's.
    pub subnet4: Option<Subnet>,
    /// IPv6 addresses of it; the first after the network's own is the gateway's.
    pub subnet6: Option<Subnet>,
    /// Resolvers for the executors; they may be asked (port 53) without a rule.
    pub dns: Vec<IpAddr>,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// What an executor may reach that joins without rules of its own.
    pub egress: EgressDefault,
    /// What no executor ever reaches, whatever its rules say.
    pub never: Vec<Range>,
    /// Ports of the host for mappings that ask for no certain one.
    pub ports: Ports,
    /// Executors may reach each other, where their rules allow it.
    pub neighbours: bool,
    /// What leaves the node gets the node's own address.
    pub masquerade: bool,
}

/// What holds for executors that bring no rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressDefault {
    /// Nothing may be reached.
    #[default]
    Deny,
    /// Everything may be reached that is not closed.
    Allow,
}

/// A configured network that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {rule}")]
pub struct SpecError {
    /// Path of the field, `networks[0].subnet4`.
    pub field: String,
    /// What it breaks.
    pub rule: String,
}

impl NetworkSpec {
    /// A network with these addresses and nothing open.
    pub fn new(name: impl Into<String>, subnet4: Option<Subnet>, subnet6: Option<Subnet>) -> Self {
        Self {
            name: name.into(),
            subnet4,
            subnet6,
            dns: Vec::new(),
            mtu: 1500,
            egress: EgressDefault::Deny,
            never: Vec::new(),
            ports: Ports {
                first: 40_000,
                last: 49_999,
            },
            neighbours: false,
            masquerade: true,
        }
    }

    /// Reads a network as [`settings`](Self::settings) writes it; what is left out has its default. Checked by itself,
    /// not against other networks. Error: the setting and the rule it breaks.
    pub fn of_settings(name: &str, settings: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let mut spec = NetworkSpec::new(name, None, None);
        for (key, value) in settings {
            let refuse = |rule: &str| SpecError {
                field: key.clone(),
                rule: rule.to_owned(),
            };
            match key.as_str() {
                "subnet4" => spec.subnet4 = Some(value.parse().map_err(refuse)?),
                "subnet6" => spec.subnet6 = Some(value.parse().map_err(refuse)?),
                "dns" => {
                    let read = |text: &str| text.parse().map_err(|_| refuse("not an IP address"));
                    spec.dns = words(value).map(read).collect::<Result<_, _>>()?;
                }
                "mtu" => spec.mtu = value.parse().map_err(|_| refuse("not a number of bytes"))?,
                "egress" => {
                    spec.egress = match value.as_str() {
                        "deny" => EgressDefault::Deny,
                        "allow" => EgressDefault::Allow,
                        _ => return Err(refuse("deny or allow")),
                    }
                }
                "never" => {
                    let ranges = words(value).map(|text| Range::parse(text).map_err(refuse));
                    spec.never = ranges.collect::<Result<_, _>>()?;
                }
                "ports" => spec.ports = Ports::from_str(value).map_err(refuse)?,
                "neighbours" => spec.neighbours = switch(value).ok_or_else(|| refuse(SWITCH))?,
                "masquerade" => spec.masquerade = switch(value).ok_or_else(|| refuse(SWITCH))?,
                _ => {
                    return Err(refuse(
                        "no such setting: subnet4, subnet6, dns, mtu, egress, never, ports, neighbours, masquerade",
                    ));
                }
            }
        }
        spec.check().map_err(|(field, rule)| SpecError {
            field: field.to_owned(),
            rule,
        })?;
        Ok(spec)
    }

    /// As settings by name, for the element.
    pub fn settings(&self) -> BTreeMap<String, String> {
        fn list<T: ToString>(values: &[T]) -> Option<String> {
            let words: Vec<_> = values.iter().map(T::to_string).collect();
            (!words.is_empty()).then(|| words.join(" "))
        }
        let egress = match self.egress {
            EgressDefault::Allow => "allow",
            EgressDefault::Deny => "deny",
        };
        let ports = format!("{}-{}", self.ports.first, self.ports.last);
        let all = [
            ("subnet4", self.subnet4.map(|subnet| subnet.to_string())),
            ("subnet6", self.subnet6.map(|subnet| subnet.to_string())),
            ("dns", list(&self.dns)),
            ("mtu", Some(self.mtu.to_string())),
            ("egress", Some(egress.to_owned())),
            ("never", list(&self.never)),
            ("ports", Some(ports)),
            ("neighbours", Some(self.neighbours.to_string())),
            ("masquerade", Some(self.masquerade.to_string())),
        ];
        let said = all.into_iter();
        said.filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }

    /// The setting in which the addresses of another network overlap with this one's.
    pub fn overlap(&self, other: &NetworkSpec) -> Option<&'static str> {
        let pairs = [
            ("subnet4", self.subnet4.zip(other.subnet4)),
            ("subnet6", self.subnet6.zip(other.subnet6)),
        ];
        let meets = |(field, pair): (&'static str, Option<(Subnet, Subnet)>)| {
            let (a, b) = pair?;
            a.range().overlaps(&b.range()).then_some(field)
        };
        pairs.into_iter().find_map(meets)
    }

    /// The element. `None` when the name is not one an id can hold.
    pub fn id(&self) -> Option<ElementId> {
        ElementId::new(Kind::Network, "node", &self.name).ok()
    }

    /// The gateway's IPv4 address.
    pub fn gateway4(&self) -> Option<IpAddr> {
        self.subnet4?.at(1)
    }

    /// The gateway's IPv6 address.
    pub fn gateway6(&self) -> Option<IpAddr> {
        self.subnet6?.at(1)
    }

    /// The numbers executors can have: 0 is the network itself, 1 the gateway, and in IPv4 the last is the broadcast
    /// address. One number stands for the addresses of both families; at most 2^24 (the rest of a hardware address).
    pub fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        let of = |subnet: &Subnet, bits: u8| {
            1u32.checked_shl(u32::from(bits - subnet.prefix))
                .unwrap_or(1 << 24)
        };
        let v4 = self
            .subnet4
            .as_ref()
            .map_or(1 << 24, |subnet| of(subnet, 32).saturating_sub(1));
        let v6 = self
            .subnet6
            .as_ref()
            .map_or(1 << 24, |subnet| of(subnet, 128));
        2..=v4.min(v6).min(1 << 24).saturating_sub(1)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |field, rule: &str| Err((field, rule.to_owned()));
        if self.id().is_none() || self.name.contains('/') {
            return refuse("name", "not a name an id can hold");
        }
        if matches!(self.name.as_str(), "none" | "host") {
            return refuse("name", "none and host are built in");
        }
        match &self.subnet4 {
            Some(Subnet {
                address: IpAddr::V6(_),
                ..
            }) => return refuse("subnet4", "not IPv4"),
            Some(subnet) if !(8..=30).contains(&subnet.prefix) => {
                return refuse("subnet4", "a prefix of 8 to 30 is needed");
            }
            _ => {}
        }
        match &self.subnet6 {
            Some(Subnet {
                address: IpAddr::V4(_),
                ..
            }) => return refuse("subnet6", "not IPv6"),
            Some(subnet) if !(8..=126).contains(&subnet.prefix) => {
                return refuse("subnet6", "a prefix of 8 to 126 is needed");
            }
            _ => {}
        }
        if self.subnet4.is_none() && self.subnet6.is_none() {
            return refuse("subnet4", "a network needs subnet4, subnet6 or both");
        }
        let closed = super::closed();
        for (field, subnet) in [("subnet4", self.subnet4), ("subnet6", self.subnet6)] {
            if subnet
                .is_some_and(|subnet| closed.iter().any(|closed| closed.overlaps(&subnet.range())))
            {
                return refuse(
                    field,
                    "loopback, link-local, metadata and multicast addresses are no network",
                );
            }
        }
        // IPv6 needs 1280 (RFC 8200), IPv4 gets along with 576 (RFC 791).
        let least = if self.subnet6.is_some() { 1280 } else { 576 };
        if !(least..=65_535).contains(&self.mtu) {
            return Err(("mtu", format!("{least} to 65535 bytes")));
        }
        if self.dns.len() > 3 {
            return refuse("dns", "at most 3: resolvers look at no more");
        }
        Ok(())
    }
}

const SWITCH: &str = "true or false";

fn switch(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Lists are written with spaces, and with commas by people.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',']).filter(|word| !word.is_empty())
}

/// Checks all networks of a node. Error: the first rule that is broken, with the field's path.
pub fn check_all(networks: &[NetworkSpec]) -> Result<(), SpecError> {
    for (at, network) in networks.iter().enumerate() {
        let refuse = |field: &str, rule: String| SpecError {
            field: format!("networks[{at}].{field}"),
            rule,
        };
        network
            .check()
            .map_err(|(field, rule)| refuse(field, rule))?;
        for other in &networks[..at] {
            if other.name == network.name {
                return Err(refuse("name", format!("{:?} is there twice", network.name)));
            }
            if let Some(field) = network.overlap(other) {
                let rule = format!("overlaps with that of {:?}", other.name);
                return Err(refuse(field, rule));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, v4: Option<&str>, v6: Option<&str>) -> NetworkSpec {
        NetworkSpec::new(
            name,
            v4.map(|t| t.parse().unwrap()),
            v6.map(|t| t.parse().unwrap()),
        )
    }

    fn refused(networks: &[NetworkSpec]) -> String {
        check_all(networks).unwrap_err().field
    }

    #[test]
    fn networks_that_cannot_be() {
        assert_eq!(
            refused(&[network("none", Some("10.0.0.0/24"), None)]),
            "networks[0].name"
        );
        assert_eq!(
            refused(&[network("a/b", Some("10.0.0.0/24"), None)]),
            "networks[0].name"
        );
        assert_eq!(refused(&[network("a", None, None)]), "networks[0].subnet4");
        assert_eq!(
            refused(&[network("a", Some("fd00::/64"), None)]),
            "networks[0].subnet4"
        );
        assert_eq!(
            refused(&[network("a", Some("10.0.0.0/31"), None)]),
            "networks[0].subnet4"
        );
        assert_eq!(
            refused(&[network("a", Some("169.254.0.0/24"), None)]),
            "networks[0].subnet4"
        );
        assert_eq!(
            refused(&[network("a", None, Some("fe80::/64"))]),
            "networks[0].subnet6"
        );
        assert_eq!(
            refused(&[network("a", None, Some("fd00::/127"))]),
            "networks[0].subnet6"
        );
        let small = NetworkSpec {
            mtu: 1000,
            ..network("a", None, Some("fd00::/64"))
        };
        assert_eq!(refused(&[small]), "networks[0].mtu");
        let one = network("a", Some("10.0.0.0/16"), None);
        assert_eq!(
            refused(&[one.clone(), network("b", Some("10.0.7.0/24"), None)]),
            "networks[1].subnet4"
        );
        assert_eq!(
            refused(&[one.clone(), network("a", Some("10.1.0.0/24"), None)]),
            "networks[1].name"
        );
        assert_eq!(
            check_all(&[one, network("b", Some("10.1.0.0/16"), Some("fd01::/64"))]),
            Ok(())
        );
    }

    #[test]
    fn settings_read_back_and_what_is_wrong_is_named() {
        let mut spec = network("lan", Some("10.9.0.0/24"), Some("fd09::/64"));
        spec.dns = vec!["192.0.2.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        spec.never = vec![Range::parse("10.0.0.0/8").unwrap()];
        spec.neighbours = true;
        assert_eq!(NetworkSpec::of_settings("lan", &spec.settings()), Ok(spec));
        for (key, value) in [
            ("subnet4", "10.9.0.0"),
            ("subnet4", "127.0.0.0/24"),
            ("dns", "resolver"),
            ("mtu", "1"),
            ("egress", "open"),
            ("never", "x"),
            ("ports", "0"),
            ("neighbours", "yes"),
            ("vlan", "3"),
        ] {
            let subnet = ("subnet4".to_owned(), "10.9.0.0/24".to_owned());
            let mut settings = BTreeMap::from([subnet]);
            settings.insert(key.to_owned(), value.to_owned());
            let refused = NetworkSpec::of_settings("lan", &settings).unwrap_err();
            assert_eq!(refused.field, key);
        }
        let none = NetworkSpec::of_settings("lan", &BTreeMap::new()).unwrap_err();
        assert_eq!(none.field, "subnet4");
    }

    #[test]
    fn numbers_leave_out_network_gateway_and_broadcast() {
        assert_eq!(
            network("a", Some("10.0.0.0/30"), Some("fd00::/64")).numbers(),
            2..=2
        );
        assert_eq!(network("a", Some("10.0.0.0/24"), None).numbers(), 2..=254);
        assert_eq!(network("a", None, Some("fd00::/126")).numbers(), 2..=3);
        assert_eq!(
            network("a", None, Some("fd00::/64")).numbers(),
            2..=(1 << 24) - 1
        );
        assert_eq!(
            network("a", Some("10.0.0.0/8"), None).numbers(),
            2..=(1 << 24) - 2
        );
    }
}
