//! The text that is given to `nft`: one `inet` table of ours, in which every network and every container has its part.
//! Pure; only addresses, numbers and names of ours get into it.
//!
//! ```text
//! ingress (per container)  what does not come from its own addresses is dropped
//! forward  from a bridge:  established flows of this container -> closed for good -> its neighbours -> its rules -> reject
//!          to a bridge:    answers to its flows, published ports -> drop
//! input    from a bridge:  answers to flows of the host -> reject
//! nat      published ports; what leaves the node from a masqueraded subnet; the host's loopback in front of a container
//! loopback what comes from a bridge for the host's loopback, or says that it does -> drop
//! ```
//!
//! Flows carry the mark of the container that began them, or whose port was published, and are answered only as long as
//! it has the address: so a new owner of an address inherits no flow, and a flow ends with its container.

use std::fmt::Write;
use std::net::IpAddr;

use portlayer::network::{
    Allow, NetworkSpec, Ports, Protocol, Published, Range, closed, merged_v4, merged_v6,
};
use portlayer::runtime::{BridgePlan, ContainerId};

use super::flows::{Flows, is_plain};
use super::names::{Names, egress_chain, hardware, hardware_text, ingress_chain, mark};

/// Refusals are answered, so that a task fails at once and does not wait.
const REJECT: &str = "reject with icmpx admin-prohibited";

/// The group of netfilter's log that flows of rules with `log` are reported to.
pub(crate) const LOG_GROUP: u16 = 19_540;

/// The table without networks and containers.
pub(crate) fn table(names: &Names) -> String {
    let table = names.table();
    // Adding it first makes removing it work when it is not there; the whole text is one transaction.
    format!(
        "\
table inet {table} {{
}}
delete table inet {table}
table inet {table} {{
	set bridges {{ type ifname; }}
	set open_bridges {{ type ifname; }}
	set masqueraded4 {{ type ipv4_addr; flags interval; }}
	set masqueraded6 {{ type ipv6_addr; flags interval; }}
	map networks {{ type ifname : verdict; }}
	set live4 {{ type ipv4_addr . mark; }}
	set live6 {{ type ipv6_addr . mark; }}
	map mark4 {{ type ipv4_addr : mark; }}
	map mark6 {{ type ipv6_addr : mark; }}
	map egress4 {{ type ipv4_addr : verdict; }}
	map egress6 {{ type ipv6_addr : verdict; }}
	map publish4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
	map publish6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
	map publish_at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
	map publish_at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
	chain closed {{
{closed}	}}
	chain from_container {{
		ct state invalid drop
		ct state established,related ip saddr . ct mark @live4 accept
		ct state established,related ip6 saddr . ct mark @live6 accept
		jump closed
		iifname vmap @networks
		oifname @bridges iifname != @open_bridges {REJECT}
		oifname @bridges oifname != @open_bridges {REJECT}
		ip saddr vmap @egress4
		ip6 saddr vmap @egress6
		{REJECT}
	}}
	chain to_container {{
		ct state established,related ip daddr . ct mark @live4 accept
		ct state established,related ip6 daddr . ct mark @live6 accept
		ct status dnat ct mark set ip daddr map @mark4 accept
		ct status dnat ct mark set ip6 daddr map @mark6 accept
		drop
	}}
	chain forward {{
		type filter hook forward priority filter - 10; policy accept;
		iifname @bridges jump from_container
		oifname @bridges jump to_container
	}}
	chain input {{
		type filter hook input priority filter - 10; policy accept;
		iifname @bridges ct state established,related ct direction reply accept
		iifname @bridges {REJECT}
	}}
	chain loopback {{
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
		iifname @bridges ip saddr 127.0.0.0/8 drop
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat - 10; policy accept;
		iifname @bridges accept
		dnat ip to ip daddr . meta l4proto . th dport map @publish_at4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish_at6
		fib daddr type local dnat ip to meta l4proto . th dport map @publish4
		fib daddr type local dnat ip6 to meta l4proto . th dport map @publish6
	}}
	chain output {{
		type nat hook output priority -110; policy accept;
		oifname \"lo\" ip6 daddr ::1 accept
		dnat ip to ip daddr . meta l4proto . th dport map @publish_at4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish_at6
		fib daddr type local dnat ip to meta l4proto . th dport map @publish4
		fib daddr type local dnat ip6 to meta l4proto . th dport map @publish6
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat + 10; policy accept;
		ip saddr 127.0.0.0/8 oifname @bridges masquerade
		ip saddr @masqueraded4 oifname != @bridges masquerade
		ip6 saddr @masqueraded6 oifname != @bridges masquerade
	}}
}}
",
        closed = rejects(&closed()),
    )
}

/// Removes the table; it must be there.
pub(crate) fn remove_table(names: &Names) -> String {
    format!("delete table inet {}\n", names.table())
}

/// Takes a network's part away, exactly as [`add_network`] made it.
pub(crate) fn remove_network(names: &Names, network: &str, spec: &NetworkSpec) -> String {
    let table = names.table();
    let mut text = format!(
        "delete element inet {table} networks {{ \"{network}\" }}\n\
         delete element inet {table} bridges {{ \"{network}\" }}\n"
    );
    if spec.neighbours {
        let _ = writeln!(
            text,
            "delete element inet {table} open_bridges {{ \"{network}\" }}"
        );
    }
    for (set, subnet) in [
        ("masqueraded4", spec.subnet4),
        ("masqueraded6", spec.subnet6),
    ] {
        if let Some(subnet) = subnet.filter(|_| spec.masquerade) {
            let _ = writeln!(text, "delete element inet {table} {set} {{ {subnet} }}");
        }
    }
    let _ = write!(
        text,
        "flush chain inet {table} n-{network}\n\
         delete chain inet {table} n-{network}\n"
    );
    text
}

/// A network's part.
pub(crate) fn add_network(names: &Names, network: &str, spec: &NetworkSpec) -> String {
    let mut text = String::new();
    let table = names.table();
    let _ = write!(
        text,
        "add chain inet {table} n-{network}\n\
         add element inet {table} bridges {{ \"{network}\" }}\n\
         add element inet {table} networks {{ \"{network}\" : jump n-{network} }}\n"
    );
    for line in rejects(&spec.never).lines() {
        let _ = writeln!(text, "add rule inet {table} n-{network} {}", line.trim());
    }
    if spec.neighbours {
        let _ = writeln!(
            text,
            "add element inet {table} open_bridges {{ \"{network}\" }}"
        );
    }
    for (set, subnet) in [
        ("masqueraded4", spec.subnet4),
        ("masqueraded6", spec.subnet6),
    ] {
        if let Some(subnet) = subnet.filter(|_| spec.masquerade) {
            let _ = writeln!(text, "add element inet {table} {set} {{ {subnet} }}");
        }
    }
    text
}

/// A container's part. `link` is the host's end of its link and must exist.
pub(crate) fn add_container(
    names: &Names,
    id: &ContainerId,
    link: &str,
    plan: &BridgePlan,
) -> String {
    let table = names.table();
    let (chain, ingress, mark) = (egress_chain(id), ingress_chain(id), mark(id));
    let mut text = format!(
        "add chain inet {table} {chain}\n\
         add chain inet {table} {ingress} {{ type filter hook ingress device \"{link}\" priority -500; policy drop; }}\n\
         add rule inet {table} {ingress} ether saddr != {} drop\n",
        hardware_text(hardware(plan.lease.number))
    );
    let flows = plan.egress.as_deref().and_then(Flows::of);
    if let Some(flows) = &flows {
        text.push_str(&flows.add(table, &chain));
    }
    for rule in egress(id, plan, flows.as_ref()) {
        let _ = writeln!(text, "add rule inet {table} {chain} {rule}");
    }
    let addresses: [(&str, &str, Option<IpAddr>); 2] = [
        ("4", "ip", plan.lease.v4.map(IpAddr::V4)),
        ("6", "ip6", plan.lease.v6.map(IpAddr::V6)),
    ];
    for (family, protocol, address) in addresses {
        let Some(address) = address else { continue };
        let _ = write!(
            text,
            "add rule inet {table} {ingress} {protocol} saddr {address} accept\n\
             add element inet {table} egress{family} {{ {address} : jump {chain} }}\n\
             add element inet {table} mark{family} {{ {address} : {mark:#x} }}\n\
             add element inet {table} live{family} {{ {address} . {mark:#x} }}\n"
        );
        for port in &plan.lease.ports {
            if let Some(key) = published(family, port) {
                let to = port.port;
                let _ = writeln!(text, "add element inet {table} {key} : {address} . {to} }}");
            }
        }
    }
    text
}

/// Takes a container's part away, exactly as [`add_container`] made it of the same plan.
pub(crate) fn remove_container(names: &Names, id: &ContainerId, plan: &BridgePlan) -> String {
    let table = names.table();
    let mut text = String::new();
    let addresses = [
        ("4", plan.lease.v4.map(IpAddr::V4)),
        ("6", plan.lease.v6.map(IpAddr::V6)),
    ];
    for (family, address) in addresses {
        let Some(address) = address else { continue };
        let _ = write!(
            text,
            "delete element inet {table} egress{family} {{ {address} }}\n\
             delete element inet {table} mark{family} {{ {address} }}\n\
             delete element inet {table} live{family} {{ {address} . {:#x} }}\n",
            mark(id)
        );
        for port in &plan.lease.ports {
            if let Some(key) = published(family, port) {
                let _ = writeln!(text, "delete element inet {table} {key} }}");
            }
        }
    }
    let _ = write!(
        text,
        "flush chain inet {table} {chain}\n\
         delete chain inet {table} {chain}\n\
         delete chain inet {table} {ingress}\n",
        chain = egress_chain(id),
        ingress = ingress_chain(id)
    );
    if let Some(flows) = plan.egress.as_deref().and_then(Flows::of) {
        text.push_str(&flows.remove(table, &egress_chain(id)));
    }
    text
}

/// Map and key of a published port; `None` when the host's address for it is of the other family.
fn published(family: &str, port: &Published) -> Option<String> {
    let (protocol, host_port) = (port.protocol.as_str(), port.host_port);
    match port.host_address {
        None => Some(format!("publish{family} {{ {protocol} . {host_port}")),
        Some(at) if at.is_ipv4() == (family == "4") => Some(format!(
            "publish_at{family} {{ {at} . {protocol} . {host_port}"
        )),
        Some(_) => None,
    }
}

/// What a container may reach, as rules of its chain.
fn egress(id: &ContainerId, plan: &BridgePlan, flows: Option<&Flows>) -> Vec<String> {
    let accept = format!("ct mark set {:#x} accept", mark(id));
    let mut rules = Vec::new();
    for resolver in &plan.dns {
        let family = if resolver.is_ipv4() { "ip" } else { "ip6" };
        rules.push(format!(
            "{family} daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 {accept}"
        ));
    }
    match &plan.egress {
        None => rules.push(accept),
        Some(allows) => {
            rules.extend(
                flows
                    .map(|flows| flows.rules(&egress_chain(id), &accept))
                    .unwrap_or_default(),
            );
            let others = allows
                .iter()
                .filter(|allow| flows.is_none() || !is_plain(allow));
            rules.extend(others.flat_map(|allow| allowed(id, allow, &accept)));
        }
    }
    rules
}

fn allowed(id: &ContainerId, allow: &Allow, accept: &str) -> Vec<String> {
    let mut rules = Vec::new();
    let log = match allow.log {
        true => format!("log group {LOG_GROUP} prefix \"{} \" ", id.as_str()),
        false => String::new(),
    };
    let families = [
        ("ip", "icmp", Protocol::Icmp, alternatives(&allow.v4)),
        ("ip6", "icmpv6", Protocol::Icmpv6, alternatives(&allow.v6)),
    ];
    let with_ports = |protocol: &str| -> Vec<String> {
        let ports = ports(&allow.ports).into_iter();
        ports
            .map(|ports| format!("{protocol} dport {ports} "))
            .collect()
    };
    for (family, messages, own, destinations) in families {
        let packets = match allow.protocol {
            Protocol::All => vec![String::new()],
            Protocol::Tcp => with_ports("tcp"),
            Protocol::Udp => with_ports("udp"),
            of_family if of_family == own => {
                let mut packets = format!(
                    "meta l4proto {} ",
                    if own == Protocol::Icmp {
                        "icmp"
                    } else {
                        "ipv6-icmp"
                    }
                );
                if let Some(kind) = allow.icmp.kind {
                    let _ = write!(packets, "{messages} type {kind} ");
                }
                if let Some(code) = allow.icmp.code {
                    let _ = write!(packets, "{messages} code {code} ");
                }
                vec![packets]
            }
            // ICMP of the other family: refused when the rule was compiled.
            _ => continue,
        };
        for destination in &destinations {
            let lines = packets.iter();
            rules.extend(
                lines.map(|packets| format!("{family} daddr {destination} {packets}{log}{accept}")),
            );
        }
    }
    rules
}

/// Rules that reject what goes to these addresses.
fn rejects(ranges: &[Range]) -> String {
    let mut text = String::new();
    for (family, destinations) in [
        ("ip", list(&merged_v4(ranges))),
        ("ip6", list(&merged_v6(ranges))),
    ] {
        if let Some(destinations) = destinations {
            let _ = writeln!(text, "\t\t{family} daddr {destinations} {REJECT}");
        }
    }
    text
}

/// More ranges than this are a set. The kernel takes longer for a small set than for some more rules.
pub(super) const MAX_ALTERNATIVES: usize = 4;

/// The ranges as what rules match: each by itself when there are few, else as one set.
fn alternatives<T: std::fmt::Display + PartialEq>(ranges: &[(T, T)]) -> Vec<String> {
    let mut texts: Vec<String> = ranges.iter().map(range).collect();
    if texts.len() > MAX_ALTERNATIVES {
        texts = list(ranges).into_iter().collect();
    }
    texts
}

fn list<T: std::fmt::Display + PartialEq>(ranges: &[(T, T)]) -> Option<String> {
    match ranges {
        [] => None,
        [single] => Some(range(single)),
        many => {
            let texts: Vec<_> = many.iter().map(range).collect();
            Some(format!("{{ {} }}", texts.join(", ")))
        }
    }
}

pub(super) fn range<T: std::fmt::Display + PartialEq>((first, last): &(T, T)) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }
}

fn ports(ports: &[Ports]) -> Vec<String> {
    let pairs: Vec<_> = ports
        .iter()
        .map(|ports| (ports.first, ports.last))
        .collect();
    alternatives(&pairs)
}

#[cfg(test)]
mod tests {
    use portlayer::network::{EgressRule, Icmp, NetworkLease, compile};

    use super::*;

    fn plan(egress: Option<&[EgressRule]>) -> BridgePlan {
        let spec = NetworkSpec::new(
            "lan",
            Some("10.9.0.0/24".parse().unwrap()),
            Some("fd09::/64".parse().unwrap()),
        );
        let network = spec.id().unwrap();
        let lease = NetworkLease {
            network: network.clone(),
            number: 2,
            v4: Some([10, 9, 0, 2].into()),
            v6: Some("fd09::2".parse().unwrap()),
            ports: Vec::new(),
        };
        BridgePlan {
            network,
            spec,
            lease,
            egress: egress.map(|rules| compile("egress", rules).unwrap()),
            dns: Vec::new(),
            hostname: "x".into(),
        }
    }

    fn rule(protocol: Protocol, destinations: &[&str], ports: &[&str]) -> EgressRule {
        EgressRule {
            protocol,
            destinations: destinations.iter().map(|&text| text.to_owned()).collect(),
            ports: ports.iter().map(|&text| text.to_owned()).collect(),
            ..EgressRule::default()
        }
    }

    fn id() -> ContainerId {
        ContainerId::from_engine("abc-1")
    }

    #[test]
    fn a_rule_is_a_line_for_each_of_few_destinations_and_ports() {
        let mark = format!("{:#x}", mark(&id()));
        let both = rule(
            Protocol::Tcp,
            &["198.51.100.0/24", "2001:db8::1"],
            &["80", "443-445"],
        );
        let ping = EgressRule {
            icmp: Some(Icmp {
                kind: Some(8),
                code: Some(0),
            }),
            log: true,
            ..rule(Protocol::Icmp, &["192.0.2.1"], &[])
        };
        let all = rule(Protocol::All, &["192.0.2.1", "192.0.2.9"], &[]);
        assert_eq!(
            egress(&id(), &plan(Some(&[both, ping, all])), None),
            [
                format!(
                    "ip daddr 198.51.100.0-198.51.100.255 tcp dport 80 ct mark set {mark} accept"
                ),
                format!(
                    "ip daddr 198.51.100.0-198.51.100.255 tcp dport 443-445 ct mark set {mark} accept"
                ),
                format!("ip6 daddr 2001:db8::1 tcp dport 80 ct mark set {mark} accept"),
                format!("ip6 daddr 2001:db8::1 tcp dport 443-445 ct mark set {mark} accept"),
                format!(
                    "ip daddr 192.0.2.1 meta l4proto icmp icmp type 8 icmp code 0 log group {LOG_GROUP} prefix \"abc-1 \" ct mark set {mark} accept"
                ),
                format!("ip daddr 192.0.2.1 ct mark set {mark} accept"),
                format!("ip daddr 192.0.2.9 ct mark set {mark} accept"),
            ]
        );
        let many: Vec<String> = (0..5).map(|port| (80 + 2 * port).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            egress(
                &id(),
                &plan(Some(&[rule(Protocol::Udp, &["192.0.2.1"], &many)])),
                None
            ),
            [format!(
                "ip daddr 192.0.2.1 udp dport {{ 80, 82, 84, 86, 88 }} ct mark set {mark} accept"
            )]
        );
    }

    #[test]
    fn no_rules_open_nothing_and_none_at_all_opens_what_is_not_closed() {
        assert_eq!(egress(&id(), &plan(Some(&[])), None), Vec::<String>::new());
        assert_eq!(egress(&id(), &plan(None), None).len(), 1);
    }

    #[test]
    fn the_closed_addresses_are_in_the_table() {
        let text = table(&Names::new("portlayer-1"));
        for address in [
            "169.254.0.0-169.254.255.255",
            "127.0.0.0",
            "fe80::",
            "::ffff:0.0.0.0",
            "fd00:ec2::254",
        ] {
            assert!(text.contains(address), "{address} is not in\n{text}");
        }
    }
}
