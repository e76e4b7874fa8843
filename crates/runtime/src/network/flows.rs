//! Many plain rules as two sets, one for each family: protocol, destination and port in one look. nft takes a quarter of the time for
//! an element that it takes for a rule, and a packet is looked up in one instead of compared with all.
//!
//! The kernel takes no elements that overlap. What an earlier one has whole is left out; what overlaps otherwise stays a rule.

use std::fmt::{Display, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use portlayer::network::{Allow, Protocol};

use super::rules::{MAX_ALTERNATIVES, range};

/// From so many on it pays.
const MANY: usize = 32;

/// More are rules: each is compared with all before it.
const MOST: usize = 4096;

/// What one element lets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow<T> {
    protocol: Protocol,
    to: (T, T),
    ports: (u16, u16),
}

/// The flows of one family.
#[derive(Debug)]
struct Family<T> {
    elements: Vec<Flow<T>>,
    rules: Vec<Flow<T>>,
}

/// The flows that rules without anything special let out.
#[derive(Debug)]
pub(super) struct Flows {
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
}

/// Whether a rule is one of ranges only; long lists of them are sets already.
pub(super) fn is_plain(allow: &Allow) -> bool {
    matches!(allow.protocol, Protocol::Tcp | Protocol::Udp)
        && [allow.v4.len(), allow.v6.len(), allow.ports.len()]
            .iter()
            .all(|&count| count <= MAX_ALTERNATIVES)
}

impl Flows {
    /// Of the plain rules; `None` when it does not pay, or when the order of rules matters because one of them logs.
    pub(super) fn of(allows: &[Allow]) -> Option<Flows> {
        if allows.iter().any(|allow| allow.log) {
            return None;
        }
        let plain = || allows.iter().filter(|allow| is_plain(allow));
        let flows = Flows {
            v4: Family::of(plain().flat_map(|allow| flows(allow, &allow.v4))),
            v6: Family::of(plain().flat_map(|allow| flows(allow, &allow.v6))),
        };
        let count = flows.v4.elements.len() + flows.v6.elements.len();
        (count >= MANY).then_some(flows)
    }

    /// The sets of a chain, with what is in them.
    pub(super) fn add(&self, table: &str, chain: &str) -> String {
        self.v4.add(table, chain, "4", "ipv4_addr") + &self.v6.add(table, chain, "6", "ipv6_addr")
    }

    /// Takes them away, once the chain is gone.
    pub(super) fn remove(&self, table: &str, chain: &str) -> String {
        self.v4.remove(table, chain, "4") + &self.v6.remove(table, chain, "6")
    }

    /// The rules of the chain.
    pub(super) fn rules(&self, chain: &str, accept: &str) -> Vec<String> {
        let mut rules = self.v4.rules(chain, "4", "ip", accept);
        rules.extend(self.v6.rules(chain, "6", "ip6", accept));
        rules
    }
}

fn flows<'a, T: Copy>(allow: &'a Allow, to: &'a [(T, T)]) -> impl Iterator<Item = Flow<T>> + 'a {
    to.iter().flat_map(move |&to| {
        allow.ports.iter().map(move |ports| Flow {
            protocol: allow.protocol,
            to,
            ports: (ports.first, ports.last),
        })
    })
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "udp",
        _ => "tcp",
    }
}

impl<T: Copy + Ord + Display> Flow<T> {
    fn overlaps(&self, other: &Flow<T>) -> bool {
        self.protocol == other.protocol
            && (self.to.0 <= other.to.1 && other.to.0 <= self.to.1)
            && (self.ports.0 <= other.ports.1 && other.ports.0 <= self.ports.1)
    }

    fn holds(&self, other: &Flow<T>) -> bool {
        self.protocol == other.protocol
            && (self.to.0 <= other.to.0 && other.to.1 <= self.to.1)
            && (self.ports.0 <= other.ports.0 && other.ports.1 <= self.ports.1)
    }
}

impl<T: Copy + Ord + Display> Family<T> {
    fn of(flows: impl Iterator<Item = Flow<T>>) -> Self {
        let (mut elements, mut rules) = (Vec::<Flow<T>>::new(), Vec::new());
        for flow in flows {
            if elements.iter().any(|element| element.holds(&flow)) {
                continue;
            }
            let overlaps = || elements.iter().any(|element| element.overlaps(&flow));
            match elements.len() >= MOST || overlaps() {
                true => rules.push(flow),
                false => elements.push(flow),
            }
        }
        Family { elements, rules }
    }

    fn add(&self, table: &str, chain: &str, family: &str, kind: &str) -> String {
        let mut text = String::new();
        let Some((first, others)) = self.elements.split_first() else {
            return text;
        };
        let _ = write!(
            text,
            "add set inet {table} {chain}-{family} {{ type {kind} . inet_proto . inet_service; flags interval; }}\n\
             add element inet {table} {chain}-{family} {{ "
        );
        let element = |flow: &Flow<T>| {
            let (to, ports) = (range(&flow.to), range(&flow.ports));
            format!("{to} . {} . {ports}", name(flow.protocol))
        };
        text.push_str(&element(first));
        for other in others {
            let _ = write!(text, ", {}", element(other));
        }
        text.push_str(" }\n");
        text
    }

    fn remove(&self, table: &str, chain: &str, family: &str) -> String {
        match self.elements.is_empty() {
            true => String::new(),
            false => format!("delete set inet {table} {chain}-{family}\n"),
        }
    }

    fn rules(&self, chain: &str, family: &str, address: &str, accept: &str) -> Vec<String> {
        let mut rules = Vec::with_capacity(self.rules.len() + 1);
        if !self.elements.is_empty() {
            rules.push(format!(
                "{address} daddr . meta l4proto . th dport @{chain}-{family} {accept}"
            ));
        }
        rules.extend(self.rules.iter().map(|flow| {
            let (to, ports) = (range(&flow.to), range(&flow.ports));
            let protocol = name(flow.protocol);
            format!("{address} daddr {to} {protocol} dport {ports} {accept}")
        }));
        rules
    }
}

#[cfg(test)]
mod tests {
    use portlayer::network::{EgressRule, compile};

    use super::*;

    fn rule(number: u8, protocol: Protocol, ports: &str) -> EgressRule {
        EgressRule {
            protocol,
            destinations: vec![
                format!("10.{number}.0.0/16"),
                format!("2001:db8:{number:x}::/48"),
            ],
            ports: vec![ports.to_owned()],
            ..EgressRule::default()
        }
    }

    fn flows(rules: &[EgressRule]) -> Option<Flows> {
        Flows::of(&compile("egress", rules).unwrap())
    }

    #[test]
    fn few_rules_and_rules_that_log_stay_rules() {
        let mut many: Vec<_> = (0..20).map(|n| rule(n, Protocol::Tcp, "80")).collect();
        assert!(flows(&many[..10]).is_none());
        assert!(flows(&many).is_some());
        many[7].log = true;
        assert!(flows(&many).is_none());
    }

    #[test]
    fn what_overlaps_is_left_out_or_stays_a_rule() {
        let mut many: Vec<_> = (0..20).map(|n| rule(n, Protocol::Tcp, "80-90")).collect();
        many.push(rule(3, Protocol::Tcp, "85"));
        many.push(rule(3, Protocol::Tcp, "85-95"));
        many.push(rule(3, Protocol::Udp, "85"));
        let flows = flows(&many).unwrap();
        assert_eq!((flows.v4.elements.len(), flows.v4.rules.len()), (21, 1));
        let rules = flows.rules("x-1", "accept");
        assert_eq!(
            rules,
            [
                "ip daddr . meta l4proto . th dport @x-1-4 accept",
                "ip daddr 10.3.0.0-10.3.255.255 tcp dport 85-95 accept",
                "ip6 daddr . meta l4proto . th dport @x-1-6 accept",
                "ip6 daddr 2001:db8:3::-2001:db8:3:ffff:ffff:ffff:ffff:ffff tcp dport 85-95 accept",
            ]
        );
        let text = flows.add("t", "x-1");
        assert!(
            text.contains("{ 10.0.0.0-10.0.255.255 . tcp . 80-90, "),
            "{text}"
        );
        assert!(
            text.contains("10.3.0.0-10.3.255.255 . udp . 85 }"),
            "{text}"
        );
    }
}
