//! What an executor asks of a network, on the command line and in composition files.

use std::net::IpAddr;

use clap::Args;
use portlayer::network::{
    EgressRule, Icmp, NetworkUse, PortMapping, Protocol, Transport, check_use, compile,
};

/// What an executor asks of a network.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct NetworkFlags {
    /// Let it reach something: PROTOCOL:DESTINATIONS[:PORTS][:log], as tcp:10.0.0.0/8:80,443-445 or udp:[fd00::/8]:53:log;
    /// icmp and icmpv6 take TYPE[/CODE] for ports, all takes none. Without it the network's default holds (repeat)
    #[arg(long, value_name = "RULE", value_parser = egress, help_heading = "Network")]
    pub(crate) egress: Vec<EgressRule>,
    /// Let it reach nothing, whatever the network's default
    #[arg(long, conflicts_with = "egress", help_heading = "Network")]
    pub(crate) no_egress: bool,
    /// Publish a port of it on the host: [[ADDRESS:]HOST_PORT:]PORT[/tcp|/udp] (repeat)
    #[arg(short, long, value_name = "PORT", value_parser = publish, help_heading = "Network")]
    pub(crate) publish: Vec<PortMapping>,
    /// A resolver, which it may ask without a rule, instead of the network's (repeat)
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub(crate) dns: Vec<IpAddr>,
}

impl NetworkFlags {
    /// Whether nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What they ask for. Error: what breaks the rules, all of it together.
    pub(crate) fn wanted(&self) -> Result<NetworkUse, String> {
        let any = self.no_egress || !self.egress.is_empty();
        let wanted = NetworkUse {
            egress: any.then(|| self.egress.clone()),
            ports: self.publish.clone(),
            dns: self.dns.clone(),
        };
        check_use(&wanted).map_err(|error| {
            let flag = match error.field.split(['[', '.']).next() {
                Some("ports") => "--publish",
                Some("dns") => "--dns",
                _ => "--egress",
            };
            format!("{flag}: {error}")
        })?;
        Ok(wanted)
    }
}

/// Parts between colons; those in brackets are of an address.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn bare(text: &str) -> &str {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|word| bare(word).to_owned()).collect()
}

/// An egress rule.
pub(crate) fn egress(text: &str) -> Result<EgressRule, String> {
    let mut parts = parts(text);
    let log = parts.len() > 2 && parts.last() == Some(&"log");
    if log {
        parts.pop();
    }
    let (name, destinations, last) = match parts[..] {
        [name, destinations] => (name, destinations, None),
        [name, destinations, last] => (name, destinations, Some(last)),
        _ => {
            return Err(
                "expected PROTOCOL:DESTINATIONS[:PORTS][:log], IPv6 in brackets".to_owned(),
            );
        }
    };
    let protocol = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "icmpv6" => Protocol::Icmpv6,
        "all" => Protocol::All,
        _ => {
            return Err(format!(
                "protocol: {name:?} is none of tcp, udp, icmp, icmpv6, all"
            ));
        }
    };
    let with_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    let of_icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
    let rule = EgressRule {
        protocol,
        destinations: list(destinations),
        ports: last.filter(|_| !of_icmp).map(list).unwrap_or_default(),
        icmp: last.filter(|_| of_icmp).map(icmp).transpose()?,
        log,
    };
    if with_ports && rule.ports.is_empty() {
        return Err(format!(
            "ports: {name} needs ports, as in {name}:{destinations}:443"
        ));
    }
    let checked = compile("", std::slice::from_ref(&rule));
    checked
        .map_err(|error| format!("{}: {}", error.field.trim_start_matches("[0]."), error.rule))?;
    Ok(rule)
}

fn icmp(text: &str) -> Result<Icmp, String> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| format!("icmp: {text:?} is not 0 to 255"))
    };
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(number(code)?)),
        None => (text, None),
    };
    Ok(Icmp {
        kind: Some(number(kind)?),
        code,
    })
}

/// A published port.
pub(crate) fn publish(text: &str) -> Result<PortMapping, String> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Transport::Tcp),
        Some((rest, "tcp")) => (rest, Transport::Tcp),
        Some((rest, "udp")) => (rest, Transport::Udp),
        Some((_, other)) => return Err(format!("protocol: {other:?} is neither tcp nor udp")),
    };
    let number = |field: &str, text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{field}: {text:?} is no port")),
    };
    let (address, host_port, port) = match parts(rest)[..] {
        [port] => (None, None, port),
        [host_port, port] => (None, Some(host_port), port),
        [address, host_port, port] => (Some(address), Some(host_port), port),
        _ => {
            return Err(
                "expected [[ADDRESS:]HOST_PORT:]PORT[/tcp|/udp], IPv6 in brackets".to_owned(),
            );
        }
    };
    let address = address.map(|text| {
        let read = bare(text).parse();
        read.map_err(|_| format!("host_address: {text:?} is no IP address"))
    });
    let mapping = PortMapping {
        port: number("port", port)?,
        protocol,
        host_port: host_port
            .filter(|text| !text.is_empty())
            .map(|text| number("host_port", text))
            .transpose()?,
        host_address: address.transpose()?,
    };
    let alone = NetworkUse {
        ports: vec![mapping.clone()],
        ..NetworkUse::default()
    };
    check_use(&alone).map_err(|error| {
        format!(
            "{}: {}",
            error.field.trim_start_matches("ports[0]."),
            error.rule
        )
    })?;
    Ok(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_rules_are_read() {
        let rule = egress("tcp:10.0.0.0/8,192.0.2.1-192.0.2.9:80,443-445:log").unwrap();
        assert_eq!((rule.protocol, rule.log), (Protocol::Tcp, true));
        assert_eq!(rule.destinations, ["10.0.0.0/8", "192.0.2.1-192.0.2.9"]);
        assert_eq!(rule.ports, ["80", "443-445"]);
        let six = egress("udp:[fd00::/8],[2001:db8::1]:53").unwrap();
        assert_eq!(six.destinations, ["fd00::/8", "2001:db8::1"]);
        assert_eq!(
            egress("all:[::]/0").map(|_| ()),
            Err("destinations[0]: not an IP address, CIDR or range".to_owned())
        );
        assert!(egress("all:[::/0]").unwrap().ports.is_empty());
        let ping = egress("icmp:192.0.2.1:8/0").unwrap();
        assert_eq!(
            ping.icmp,
            Some(Icmp {
                kind: Some(8),
                code: Some(0)
            })
        );
    }

    #[test]
    fn a_wrong_rule_names_its_field() {
        for (text, said) in [
            ("tcp", "expected"),
            ("sctp:10.0.0.0/8:1", "protocol"),
            ("tcp:10.0.0.0/8", "ports"),
            ("tcp:10.0.0.0/8:0", "ports"),
            ("tcp:example.org:443", "destinations[0]"),
            ("icmp:10.0.0.1:300", "icmp"),
            ("all:10.0.0.0/8:80", "ports"),
        ] {
            let refused = egress(text).unwrap_err();
            assert!(refused.starts_with(said), "{text}: {refused}");
        }
    }

    #[test]
    fn published_ports_are_read_and_checked() {
        let all = publish("192.0.2.1:8080:80/udp").unwrap();
        assert_eq!(
            (all.host_port, all.port, all.protocol),
            (Some(8080), 80, Transport::Udp)
        );
        assert_eq!(all.host_address, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(publish("80").unwrap().host_port, None);
        assert_eq!(publish("[2001:db8::1]::80").unwrap().host_port, None);
        for (text, said) in [
            ("0", "port"),
            ("x:80", "host_port"),
            ("host:1:80", "host_address"),
            ("[::1]:8080:80/tcp", "host_address"),
            ("80/sctp", "protocol"),
            ("1:2:3:4", "expected"),
        ] {
            let refused = publish(text).unwrap_err();
            assert!(refused.starts_with(said), "{text}: {refused}");
        }
    }

    #[test]
    fn flags_together_are_checked() {
        let port = publish("8080:80").unwrap();
        let flags = NetworkFlags {
            publish: vec![port.clone(), port],
            ..NetworkFlags::default()
        };
        assert!(
            flags
                .wanted()
                .unwrap_err()
                .starts_with("--publish: ports[1].host_port")
        );
        let none = NetworkFlags {
            no_egress: true,
            ..NetworkFlags::default()
        };
        assert_eq!(none.wanted().unwrap().egress, Some(Vec::new()));
    }
}
