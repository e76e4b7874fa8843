//! Addresses and host ports of executors: allocated in the transaction that claims a commit's elements, so that no
//! two executors have one at once, and given back in the one that records an unbind or a delete.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{NetworkSpec, NetworkUse, Transport};
use crate::element::ElementId;
use crate::ledger::{LedgerError, Txn};

/// What an executor has of a network, from the first start after its bind to the unbind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkLease {
    /// The network.
    pub network: ElementId,
    /// Which address of the network, counted from the network's own.
    pub number: u32,
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Published ports, in the order they were asked for.
    pub ports: Vec<Published>,
}

/// A port of an executor and the host's port for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// TCP or UDP.
    pub protocol: Transport,
    /// Port in the executor.
    pub port: u16,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the host; `None` = all of them.
    pub host_address: Option<IpAddr>,
}

/// Why there is no lease.
#[derive(Debug)]
pub(crate) enum LeaseError {
    /// The ledger.
    Ledger(LedgerError),
    /// Every address of the network is in use.
    NoAddress,
    /// Every port the network has for this is in use.
    NoPort {
        /// Position in the list of mappings.
        at: usize,
    },
    /// Another executor has the port.
    PortTaken {
        /// Position in the list of mappings.
        at: usize,
        /// Whose it is.
        by: ElementId,
    },
}

impl From<LedgerError> for LeaseError {
    fn from(error: LedgerError) -> Self {
        LeaseError::Ledger(error)
    }
}

fn pool(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "host-port/tcp",
        Transport::Udp => "host-port/udp",
    }
}

/// Takes what `executor` needs of the network. What `held` has of it already is kept, so that an executor that is
/// started again has the same address.
pub(crate) fn take(
    txn: &mut Txn<'_>,
    executor: &ElementId,
    id: &ElementId,
    spec: &NetworkSpec,
    wanted: &NetworkUse,
    held: Option<&NetworkLease>,
) -> Result<NetworkLease, LeaseError> {
    let held = held.filter(|held| held.network == *id);
    let kept = held
        .map(|held| held.number)
        .filter(|number| spec.numbers().contains(number));
    let number = match kept {
        Some(number) => number,
        None => {
            let free = txn.free_number(id.as_str(), spec.numbers())?;
            let free = free.ok_or(LeaseError::NoAddress)?;
            txn.take_number(id.as_str(), free, executor)?;
            free
        }
    };
    let v4 = match spec.subnet4.and_then(|subnet| subnet.at(number)) {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => None,
    };
    let v6 = match spec.subnet6.and_then(|subnet| subnet.at(number)) {
        Some(IpAddr::V6(v6)) => Some(v6),
        _ => None,
    };
    let mut ports: Vec<Published> = Vec::with_capacity(wanted.ports.len());
    // Certain ones first: one that is free to choose must not take what another one asks for.
    let order = |certain: bool| {
        wanted
            .ports
            .iter()
            .enumerate()
            .filter(move |(_, m)| m.host_port.is_some() == certain)
    };
    let mut found = vec![0u16; wanted.ports.len()];
    for (at, mapping) in order(true).chain(order(false)) {
        let pool = pool(mapping.protocol);
        let host_port = match mapping.host_port {
            Some(port) => match txn.owner_of_number(pool, port.into())? {
                Some(by) if by != *executor => return Err(LeaseError::PortTaken { at, by }),
                _ => port,
            },
            None => {
                let same =
                    |p: &&Published| (p.protocol, p.port) == (mapping.protocol, mapping.port);
                let before = held.and_then(|held| held.ports.iter().find(same));
                let before = before.filter(|p| !found.contains(&p.host_port));
                match before {
                    Some(before) => before.host_port,
                    None => {
                        let range = spec.ports.first.into()..=spec.ports.last.into();
                        let free = txn.free_number(pool, range)?;
                        let free = free.and_then(|free| u16::try_from(free).ok());
                        free.ok_or(LeaseError::NoPort { at })?
                    }
                }
            }
        };
        txn.take_number(pool, host_port.into(), executor)?;
        found[at] = host_port;
    }
    for (mapping, host_port) in wanted.ports.iter().zip(found) {
        ports.push(Published {
            protocol: mapping.protocol,
            port: mapping.port,
            host_port,
            host_address: mapping.host_address,
        });
    }
    Ok(NetworkLease {
        network: id.clone(),
        number,
        v4,
        v6,
        ports,
    })
}

/// Gives back what `old` has and `kept` has not. Idempotent.
pub(crate) fn release(txn: &mut Txn<'_>, old: &NetworkLease, kept: Option<&NetworkLease>) {
    let same = kept.filter(|kept| kept.network == old.network && kept.number == old.number);
    if same.is_none() {
        txn.release_number(old.network.as_str(), old.number);
    }
    for port in &old.ports {
        let is = |p: &Published| (p.protocol, p.host_port) == (port.protocol, port.host_port);
        if !kept.is_some_and(|kept| kept.ports.iter().any(is)) {
            txn.release_number(pool(port.protocol), port.host_port.into());
        }
    }
}
