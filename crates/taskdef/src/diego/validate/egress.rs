//! The rules of egress rules. Diego reports no more than `Invalid field: egress_rules` for a bad one; the path of every
//! bad value is kept beside it. Where Diego's own checks have holes (ports above 65535, ranges from IPv4 to IPv6,
//! ICMP numbers beyond a byte) ours have none.

use std::net::IpAddr;

use super::super::schema::SecurityGroupRule;
use super::Problems;

/// Checks one rule; Diego's text stands once for all that is wrong with it.
pub(super) fn check(rule: &SecurityGroupRule, path: &str, problems: &mut Problems) {
    let found = faults(rule);
    for (at, (field, rule)) in found.into_iter().enumerate() {
        let text = if at == 0 {
            "Invalid field: egress_rules"
        } else {
            ""
        };
        problems.text(text, format!("{path}.{field}"), rule);
    }
}

type Fault = (String, &'static str);

fn faults(rule: &SecurityGroupRule) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut refuse = |field: &str, rule| faults.push((field.to_owned(), rule));
    let ports = rule.ports.is_some() || rule.port_range.is_some();
    match rule.protocol.as_str() {
        "tcp" | "udp" => {
            check_ports(rule, &mut refuse);
            if rule.icmp_info.is_some() {
                refuse("icmp_info", "only for icmp");
            }
        }
        "icmp" | "icmpv6" => {
            if ports {
                refuse("ports", "icmp has none");
            }
            match &rule.icmp_info {
                None => refuse("icmp_info", "is missing"),
                Some(info) => {
                    let byte = -1..=255;
                    if !byte.contains(&info.kind) {
                        refuse("icmp_info.type", "must be -1 to 255");
                    }
                    if !byte.contains(&info.code) {
                        refuse("icmp_info.code", "must be -1 to 255");
                    }
                }
            }
        }
        "all" => {
            if ports {
                refuse("ports", "not with all protocols");
            }
            if rule.icmp_info.is_some() {
                refuse("icmp_info", "only for icmp");
            }
        }
        _ => refuse("protocol", "must be tcp, udp, icmp, icmpv6 or all"),
    }
    if rule.destinations.is_empty() {
        refuse("destinations", "at least one is needed");
    }
    for (at, list) in rule.destinations.iter().enumerate() {
        for text in list.split(',') {
            if let Err(rule) = Destination::parse(text) {
                refuse(&format!("destinations[{at}]"), rule);
            }
        }
    }
    faults
}

fn check_ports(rule: &SecurityGroupRule, refuse: &mut impl FnMut(&str, &'static str)) {
    let valid = 1..=u32::from(u16::MAX);
    match (&rule.ports, &rule.port_range) {
        (None, None) => refuse("ports", "ports or port_range is needed"),
        (Some(_), Some(_)) => refuse("ports", "not together with port_range"),
        (Some(ports), None) => {
            if ports.is_empty() {
                refuse("ports", "at least one is needed");
            }
            if !ports.iter().all(|port| valid.contains(port)) {
                refuse("ports", "each must be 1 to 65535");
            }
        }
        (None, Some(range)) => {
            if !valid.contains(&range.start) || !valid.contains(&range.end) {
                refuse("port_range", "both ends must be 1 to 65535");
            } else if range.start > range.end {
                refuse("port_range", "must not end before it starts");
            }
        }
    }
}

/// Where a rule leads: first and last address, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    /// First address.
    pub(crate) first: IpAddr,
    /// Last address; of the same family.
    pub(crate) last: IpAddr,
}

impl Destination {
    /// Reads an address, a network (`a/n`) or a range (`a-b`). The error is the rule it breaks.
    pub(crate) fn parse(text: &str) -> Result<Destination, &'static str> {
        const NO_ADDRESS: &str = "must be an address, a network or a range of addresses";
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| NO_ADDRESS);
        if let Some((base, bits)) = text.split_once('/') {
            return network(address(base)?, bits);
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() != last.is_ipv4() {
            return Err("both ends of a range must be of one family");
        }
        if first > last {
            return Err("a range must not end before it starts");
        }
        Ok(Destination { first, last })
    }
}

fn network(base: IpAddr, bits: &str) -> Result<Destination, &'static str> {
    const NO_BITS: &str = "the length of the network's prefix is out of range";
    let plain = !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|c| c.is_ascii_digit());
    let bits: u32 = bits.parse().ok().filter(|_| plain).ok_or(NO_BITS)?;
    let (first, last) = match base {
        IpAddr::V4(base) => {
            let free = 32u32.checked_sub(bits).ok_or(NO_BITS)?;
            let mask = u32::MAX.checked_shr(32 - free).unwrap_or(0);
            let base = u32::from(base) & !mask;
            (IpAddr::V4(base.into()), IpAddr::V4((base | mask).into()))
        }
        IpAddr::V6(base) => {
            let free = 128u32.checked_sub(bits).ok_or(NO_BITS)?;
            let mask = u128::MAX.checked_shr(128 - free).unwrap_or(0);
            let base = u128::from(base) & !mask;
            (IpAddr::V6(base.into()), IpAddr::V6((base | mask).into()))
        }
    };
    Ok(Destination { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> (String, String) {
        let destination = Destination::parse(text).unwrap();
        (destination.first.to_string(), destination.last.to_string())
    }

    #[test]
    fn destinations() {
        assert_eq!(range("10.1.2.3"), ("10.1.2.3".into(), "10.1.2.3".into()));
        assert_eq!(
            range("10.1.2.3/8"),
            ("10.0.0.0".into(), "10.255.255.255".into())
        );
        assert_eq!(
            range("0.0.0.0/0"),
            ("0.0.0.0".into(), "255.255.255.255".into())
        );
        assert_eq!(range("1.2.3.4/32"), ("1.2.3.4".into(), "1.2.3.4".into()));
        assert_eq!(range("::/0").0, "::");
        assert_eq!(
            range("2100::1-2100::2"),
            ("2100::1".into(), "2100::2".into())
        );
        for bad in [
            "",
            "garbage",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "::1/129",
            "1.2.3.9-1.2.3.4",
            "1.2.3.4-::1",
            " 1.2.3.4",
            "example.com",
        ] {
            assert!(Destination::parse(bad).is_err(), "{bad}");
        }
    }
}
