//! Ranges of addresses and ports: read from text, merged, compared. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Addresses of one family, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Range {
    /// IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Range {
    /// Reads an address, a CIDR (`10.0.0.0/8`; bits behind the prefix are ignored, as everywhere) or a range
    /// (`10.0.0.1-10.0.0.9`). Error: the rule that is broken. Host names, zones, IPv4 in IPv6 clothes, ranges from one
    /// family to the other and backwards are refused.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some((first, last)) = text.split_once('-') {
            return match (address(first)?, address(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    Ok(Range::V4(first, last))
                }
                (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                    Ok(Range::V6(first, last))
                }
                (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                    Err("the range ends before it begins")
                }
                _ => Err("the range begins in one address family and ends in the other"),
            };
        }
        if text.contains('/') {
            return text.parse::<Subnet>().map(|subnet| subnet.range());
        }
        Ok(match address(text)? {
            IpAddr::V4(one) => Range::V4(one, one),
            IpAddr::V6(one) => Range::V6(one, one),
        })
    }

    /// Whether every address of `other` is in this range.
    pub fn contains(&self, other: &Range) -> bool {
        match (self, other) {
            (Range::V4(a, b), Range::V4(c, d)) => a <= c && d <= b,
            (Range::V6(a, b), Range::V6(c, d)) => a <= c && d <= b,
            _ => false,
        }
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Range) -> bool {
        match (self, other) {
            (Range::V4(a, b), Range::V4(c, d)) => a <= d && c <= b,
            (Range::V6(a, b), Range::V6(c, d)) => a <= d && c <= b,
            _ => false,
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Range::V4(first, last) if first == last => write!(f, "{first}"),
            Range::V6(first, last) if first == last => write!(f, "{first}"),
            Range::V4(first, last) => write!(f, "{first}-{last}"),
            Range::V6(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// One address; IPv6 that stands for IPv4 would pass a filter of the other family, so it is refused.
fn address(text: &str) -> Result<IpAddr, &'static str> {
    match text.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Err("write an IPv4 address as IPv4"),
        Ok(address) => Ok(address),
        Err(_) => Err("not an IP address, CIDR or range"),
    }
}

/// A network address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subnet {
    /// The first address: bits behind the prefix are 0.
    pub address: IpAddr,
    /// Bits that are the same in all of them.
    pub prefix: u8,
}

impl Subnet {
    /// First to last address.
    pub fn range(&self) -> Range {
        match self.address {
            IpAddr::V4(first) => {
                let span = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Range::V4(first, (u32::from(first) | span).into())
            }
            IpAddr::V6(first) => {
                let span = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Range::V6(first, (u128::from(first) | span).into())
            }
        }
    }

    /// The address this many after the first; `None` = behind the last.
    pub fn at(&self, number: u32) -> Option<IpAddr> {
        let found = match self.address {
            IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(number)?.into()),
            IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(number.into())?.into()),
        };
        let one = match found {
            IpAddr::V4(one) => Range::V4(one, one),
            IpAddr::V6(one) => Range::V6(one, one),
        };
        self.range().contains(&one).then_some(found)
    }
}

impl FromStr for Subnet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, prefix) = text.split_once('/').ok_or("a CIDR has a slash")?;
        let start = address(start)?;
        let digits = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with("00");
        let prefix: u8 = match prefix.parse() {
            Ok(prefix) if digits => prefix,
            _ => return Err("the prefix of a CIDR is a number"),
        };
        let address = match start {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
            IpAddr::V4(_) => return Err("an IPv4 prefix is at most 32"),
            IpAddr::V6(_) => return Err("an IPv6 prefix is at most 128"),
        };
        Ok(Subnet { address, prefix })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Ports from the first to the last; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl FromStr for Ports {
    type Err = &'static str;

    /// Reads `80` or `8000-8100`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
            _ => Err("a port is 1 to 65535"),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err("the range ends before it begins");
        }
        Ok(Ports { first, last })
    }
}

/// Sorted ranges of IPv4 addresses, none touching another.
pub fn merged_v4(ranges: &[Range]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let of_family = ranges.iter().filter_map(|range| match range {
        Range::V4(first, last) => Some((u32::from(*first).into(), u32::from(*last).into())),
        Range::V6(..) => None,
    });
    let narrow = |wide: u128| Ipv4Addr::from(u32::try_from(wide).unwrap_or(u32::MAX));
    let merged = merge(of_family.collect());
    merged
        .into_iter()
        .map(|(first, last)| (narrow(first), narrow(last)))
        .collect()
}

/// The same of IPv6 addresses.
pub fn merged_v6(ranges: &[Range]) -> Vec<(Ipv6Addr, Ipv6Addr)> {
    let of_family = ranges.iter().filter_map(|range| match range {
        Range::V6(first, last) => Some((u128::from(*first), u128::from(*last))),
        Range::V4(..) => None,
    });
    let merged = merge(of_family.collect());
    merged
        .into_iter()
        .map(|(first, last)| (first.into(), last.into()))
        .collect()
}

/// The same of ports.
pub fn merged_ports(ports: &[Ports]) -> Vec<Ports> {
    let wide = ports
        .iter()
        .map(|ports| (ports.first.into(), ports.last.into()));
    let narrow = |wide: u128| u16::try_from(wide).unwrap_or(u16::MAX);
    let merged = merge(wide.collect());
    merged
        .into_iter()
        .map(|(first, last)| Ports {
            first: narrow(first),
            last: narrow(last),
        })
        .collect()
}

fn merge(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_a_cidr_or_a_range() {
        let v4 = |a: [u8; 4], b: [u8; 4]| Range::V4(a.into(), b.into());
        assert_eq!(
            Range::parse("10.1.2.3"),
            Ok(v4([10, 1, 2, 3], [10, 1, 2, 3]))
        );
        assert_eq!(
            Range::parse("10.1.2.3/8"),
            Ok(v4([10, 0, 0, 0], [10, 255, 255, 255]))
        );
        assert_eq!(Range::parse("0.0.0.0/0"), Ok(v4([0; 4], [255; 4])));
        assert_eq!(
            Range::parse("10.0.0.9-10.0.1.0"),
            Ok(v4([10, 0, 0, 9], [10, 0, 1, 0]))
        );
        let all = Range::V6(Ipv6Addr::UNSPECIFIED, u128::MAX.into());
        assert_eq!(Range::parse("::/0"), Ok(all));
        assert_eq!(
            Range::parse("2001:db8::/127"),
            Ok(Range::V6(
                "2001:db8::".parse().unwrap(),
                "2001:db8::1".parse().unwrap()
            ))
        );
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            " ",
            "10.0.0.1 ",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "0x0a000001",
            "167772161",
            "example.org",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/008",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "::1-10.0.0.1",
            "10.0.0.0/8-10.1.0.0",
            "-",
            "a-b",
            "fe80::1%eth0",
            "::ffff:10.0.0.1",
            "::ffff:0:0/96",
            "[::1]",
            "10.0.0.1,10.0.0.2",
            "10.0.0.1:80",
        ] {
            assert!(
                Range::parse(text).is_err(),
                "{text:?} was read as {:?}",
                Range::parse(text)
            );
        }
    }

    #[test]
    fn ports_are_1_to_65535() {
        assert_eq!(
            "80".parse(),
            Ok(Ports {
                first: 80,
                last: 80
            })
        );
        assert_eq!(
            "1-65535".parse(),
            Ok(Ports {
                first: 1,
                last: 65535
            })
        );
        for text in [
            "0", "0-5", "65536", "70000", "", "-", "5-", "9-5", "+80", "80 ", "0x50", "http",
            "1-2-3",
        ] {
            assert!(text.parse::<Ports>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let parse = |texts: &[&str]| -> Vec<Range> {
            texts.iter().map(|t| Range::parse(t).unwrap()).collect()
        };
        let ranges = parse(&[
            "10.0.0.128/25",
            "10.0.0.0/25",
            "10.0.0.7",
            "192.0.2.1",
            "::/1",
            "8000::/1",
        ]);
        assert_eq!(
            merged_v4(&ranges),
            [
                ([10, 0, 0, 0].into(), [10, 0, 0, 255].into()),
                ([192, 0, 2, 1].into(), [192, 0, 2, 1].into())
            ]
        );
        assert_eq!(
            merged_v6(&ranges),
            [(Ipv6Addr::UNSPECIFIED, u128::MAX.into())]
        );
        let ports: Vec<Ports> = ["1-5", "6", "4-9", "80"]
            .iter()
            .map(|t| t.parse().unwrap())
            .collect();
        assert_eq!(
            merged_ports(&ports),
            [
                Ports { first: 1, last: 9 },
                Ports {
                    first: 80,
                    last: 80
                }
            ]
        );
    }

    #[test]
    fn addresses_of_a_subnet_by_number() {
        let subnet: Subnet = "10.1.0.0/30".parse().unwrap();
        assert_eq!(subnet.at(3), Some([10, 1, 0, 3].into()));
        assert_eq!(subnet.at(4), None);
        let subnet: Subnet = "fd00::/64".parse().unwrap();
        assert_eq!(subnet.at(258), Some("fd00::102".parse::<IpAddr>().unwrap()));
        assert_eq!(subnet.to_string(), "fd00::/64");
    }
}
