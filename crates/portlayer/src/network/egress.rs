//! Egress rules: what a caller writes, and what it means once it is checked. Pure.
//!
//! Rules only allow. What none of them allows is closed, and what the node closes stays closed whatever they say.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::address::{Ports, Range, merged_ports, merged_v4, merged_v6};

/// The most rules of one executor.
pub const MAX_RULES: usize = 1000;
/// The most destinations and ports, over all rules of one executor.
pub const MAX_ENTRIES: usize = 20_000;

/// Something an executor may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Which packets.
    pub protocol: Protocol,
    /// Where to: addresses, CIDRs or ranges (`10.0.0.1-10.0.0.9`), of either family; at least one.
    pub destinations: Vec<String>,
    /// Ports (`443`) and ranges of them (`8000-8100`); at least one for TCP and UDP, else none.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Kind of message, for ICMP and ICMPv6 only; `None` = every kind.
    #[serde(default)]
    pub icmp: Option<Icmp>,
    /// Report every new flow that this rule lets out.
    #[serde(default)]
    pub log: bool,
}

/// The packets a rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, to IPv4 destinations.
    Icmp,
    /// ICMPv6, to IPv6 destinations.
    Icmpv6,
    /// Everything.
    All,
}

/// A kind of ICMP message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// Type; `None` = any, and then also any code.
    #[serde(rename = "type", default)]
    pub kind: Option<u8>,
    /// Code; `None` = any.
    #[serde(default)]
    pub code: Option<u8>,
}

/// A rule that was checked: ranges are sorted and none touches another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// Which packets.
    pub protocol: Protocol,
    /// IPv4 destinations.
    pub v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// IPv6 destinations.
    pub v6: Vec<(Ipv6Addr, Ipv6Addr)>,
    /// Ports, for TCP and UDP.
    pub ports: Vec<Ports>,
    /// Kind of ICMP message.
    pub icmp: Icmp,
    /// Report new flows.
    pub log: bool,
}

/// A refused rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {rule}")]
pub struct RuleError {
    /// Path of the field, `egress[3].ports[0]`.
    pub field: String,
    /// What it breaks.
    pub rule: &'static str,
}

/// Addresses no rule ever opens: this host's loopback, link-local addresses (with them the metadata service of every
/// cloud that has it at 169.254.169.254 or in fe80::/10), metadata services at other addresses, what is no single
/// host, and IPv6 that stands for IPv4.
const CLOSED: [&str; 13] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    // Metadata of Alibaba Cloud and of Oracle Cloud.
    "100.100.100.200",
    "192.0.0.192",
    "224.0.0.0-255.255.255.255",
    "::-::1",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // Metadata of Amazon, and of Google and Scaleway.
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:42::42",
];

/// `CLOSED`, read, and IPv4-mapped IPv6, which has no text of ours.
pub fn closed() -> Vec<Range> {
    let mapped = Range::V6(
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff),
    );
    let fixed = CLOSED.iter().filter_map(|text| Range::parse(text).ok());
    fixed.chain([mapped]).collect()
}

/// Checks rules and brings them into the form the firewall is made from. Nothing is looked up. `field` is the path of
/// the list, for errors.
pub fn compile(field: &str, rules: &[EgressRule]) -> Result<Vec<Allow>, RuleError> {
    let refuse = |field: String, rule| Err(RuleError { field, rule });
    if rules.len() > MAX_RULES {
        return refuse(field.to_owned(), "at most 1000 rules");
    }
    let entries: usize = rules
        .iter()
        .map(|rule| rule.destinations.len() + rule.ports.len())
        .sum();
    if entries > MAX_ENTRIES {
        return refuse(
            field.to_owned(),
            "at most 20000 destinations and ports together",
        );
    }
    let closed = closed();
    let mut allows = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let of_rule = |name: &str| format!("{field}[{at}].{name}");
        let transport = matches!(rule.protocol, Protocol::Tcp | Protocol::Udp);
        match (transport, rule.ports.is_empty()) {
            (true, true) => return refuse(of_rule("ports"), "TCP and UDP need at least one port"),
            (false, false) => return refuse(of_rule("ports"), "only TCP and UDP have ports"),
            _ => {}
        }
        let icmp = rule.icmp.unwrap_or_default();
        if rule.icmp.is_some() && !matches!(rule.protocol, Protocol::Icmp | Protocol::Icmpv6) {
            return refuse(of_rule("icmp"), "only ICMP and ICMPv6 have types");
        }
        if icmp.kind.is_none() && icmp.code.is_some() {
            return refuse(of_rule("icmp.code"), "a code needs a type");
        }
        if rule.destinations.is_empty() {
            return refuse(of_rule("destinations"), "at least one is needed");
        }
        let mut ranges = Vec::with_capacity(rule.destinations.len());
        for (index, text) in rule.destinations.iter().enumerate() {
            let place = || of_rule(&format!("destinations[{index}]"));
            let range = Range::parse(text).map_err(|rule| RuleError {
                field: place(),
                rule,
            })?;
            match (rule.protocol, range) {
                (Protocol::Icmp, Range::V6(..)) => {
                    return refuse(place(), "ICMP is for IPv4: ICMPv6 is meant");
                }
                (Protocol::Icmpv6, Range::V4(..)) => {
                    return refuse(place(), "ICMPv6 is for IPv6: ICMP is meant");
                }
                _ => {}
            }
            if closed.iter().any(|closed| closed.contains(&range)) {
                return refuse(
                    place(),
                    "loopback, link-local, metadata and multicast addresses are never opened",
                );
            }
            ranges.push(range);
        }
        let mut ports = Vec::with_capacity(rule.ports.len());
        for (index, text) in rule.ports.iter().enumerate() {
            let port = text.parse::<Ports>();
            ports.push(port.map_err(|rule| RuleError {
                field: of_rule(&format!("ports[{index}]")),
                rule,
            })?);
        }
        allows.push(Allow {
            protocol: rule.protocol,
            v4: merged_v4(&ranges),
            v6: merged_v6(&ranges),
            ports: merged_ports(&ports),
            icmp,
            log: rule.log,
        });
    }
    Ok(allows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: Protocol, destinations: &[&str], ports: &[&str]) -> EgressRule {
        EgressRule {
            protocol,
            destinations: destinations.iter().map(|&text| text.to_owned()).collect(),
            ports: ports.iter().map(|&text| text.to_owned()).collect(),
            ..EgressRule::default()
        }
    }

    fn refused(rule: EgressRule) -> String {
        let good = self::rule(Protocol::Udp, &["192.0.2.1"], &["53"]);
        compile("egress", &[good, rule]).unwrap_err().field
    }

    #[test]
    fn a_rule_with_both_families_and_overlaps() {
        let wanted = rule(
            Protocol::Tcp,
            &[
                "198.51.100.0/25",
                "198.51.100.128-198.51.100.255",
                "2001:db8::/32",
                "198.51.100.7",
            ],
            &["80", "443", "81-90"],
        );
        let allows = compile("egress", &[wanted]).unwrap();
        assert_eq!(
            allows[0].v4,
            [([198, 51, 100, 0].into(), [198, 51, 100, 255].into())]
        );
        assert_eq!(allows[0].v6.len(), 1);
        assert_eq!(
            allows[0].ports,
            [
                Ports {
                    first: 80,
                    last: 90
                },
                Ports {
                    first: 443,
                    last: 443
                }
            ]
        );
    }

    #[test]
    fn every_refusal_names_its_field() {
        assert_eq!(
            refused(rule(Protocol::Tcp, &["192.0.2.1"], &[])),
            "egress[1].ports"
        );
        assert_eq!(
            refused(rule(Protocol::All, &["192.0.2.1"], &["80"])),
            "egress[1].ports"
        );
        assert_eq!(
            refused(rule(Protocol::Icmp, &["192.0.2.1"], &["80"])),
            "egress[1].ports"
        );
        assert_eq!(
            refused(rule(Protocol::Tcp, &["192.0.2.1"], &["80", "70000"])),
            "egress[1].ports[1]"
        );
        assert_eq!(
            refused(rule(Protocol::Udp, &["192.0.2.1"], &["0"])),
            "egress[1].ports[0]"
        );
        assert_eq!(
            refused(rule(Protocol::All, &[], &[])),
            "egress[1].destinations"
        );
        assert_eq!(
            refused(rule(Protocol::All, &["::/0", "10.0.0.0/40"], &[])),
            "egress[1].destinations[1]"
        );
        assert_eq!(
            refused(rule(Protocol::Icmp, &["2001:db8::1"], &[])),
            "egress[1].destinations[0]"
        );
        assert_eq!(
            refused(rule(Protocol::Icmpv6, &["192.0.2.1"], &[])),
            "egress[1].destinations[0]"
        );
        let mut bad = rule(Protocol::Tcp, &["192.0.2.1"], &["80"]);
        bad.icmp = Some(Icmp::default());
        assert_eq!(refused(bad), "egress[1].icmp");
        let mut bad = rule(Protocol::Icmp, &["192.0.2.1"], &[]);
        bad.icmp = Some(Icmp {
            kind: None,
            code: Some(0),
        });
        assert_eq!(refused(bad), "egress[1].icmp.code");
    }

    #[test]
    fn what_is_closed_for_good_cannot_be_asked_for_by_name() {
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "169.254.0.0/16",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "ff02::fb",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
        ] {
            assert_eq!(
                refused(rule(Protocol::All, &[address], &[])),
                "egress[1].destinations[0]",
                "{address}"
            );
        }
        // Part of a wider range it is left to the firewall.
        assert!(
            compile(
                "egress",
                &[rule(Protocol::All, &["0.0.0.0/0", "::/0"], &[])]
            )
            .is_ok()
        );
    }

    #[test]
    fn every_closed_range_is_read() {
        assert_eq!(closed().len(), CLOSED.len() + 1);
    }

    #[test]
    fn lists_are_bounded() {
        let one = rule(Protocol::All, &["192.0.2.1"], &[]);
        assert!(compile("egress", &vec![one.clone(); MAX_RULES]).is_ok());
        assert_eq!(
            compile("egress", &vec![one; MAX_RULES + 1])
                .unwrap_err()
                .field,
            "egress"
        );
        let many = rule(Protocol::All, &vec!["192.0.2.1"; MAX_ENTRIES + 1], &[]);
        assert_eq!(compile("egress", &[many]).unwrap_err().field, "egress");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_compiled_or_refused(text in ".{0,40}", port in ".{0,12}") {
            let rules = [rule(Protocol::Tcp, &[&text], &[&port])];
            if let Ok(allows) = compile("egress", &rules) {
                proptest::prop_assert_eq!(allows[0].v4.len() + allows[0].v6.len(), 1);
                proptest::prop_assert!(allows[0].ports.iter().all(|ports| ports.first >= 1));
            }
        }
    }
}
