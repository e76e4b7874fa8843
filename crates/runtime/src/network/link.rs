//! Bridges, links, addresses, neighbours and routes, through netlink in the network namespace of the calling thread.
//!
//! Neighbours and the bridge's table of hardware addresses are fixed by us and nothing is learned: what a container
//! says about who has which address changes nothing. Ports are isolated: containers reach each other only by way of
//! the host's forwarding, where the rules are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use portlayer::network::{NetworkLease, NetworkSpec};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use super::names::hardware;
use super::namespace::{has, set};

/// The interface of a container.
const INSIDE: &str = "eth0";

/// A refusal of the kernel.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}")]
pub(crate) struct LinkError {
    /// What was tried.
    pub(crate) verb: &'static str,
    /// On what.
    pub(crate) object: String,
    /// What the kernel said.
    #[source]
    pub(crate) source: io::Error,
}

fn failed(verb: &'static str, object: &str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let object = object.to_owned();
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(refusal) => refusal.to_io(),
            other => io::Error::other(other),
        };
        LinkError {
            verb,
            object,
            source,
        }
    }
}

fn cannot(verb: &'static str, object: &str) -> impl FnOnce(io::Error) -> LinkError {
    let object = object.to_owned();
    move |source| LinkError {
        verb,
        object,
        source,
    }
}

/// An interface and its alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
}

/// Every interface with an alias.
pub(crate) async fn list(handle: &Handle) -> Result<Vec<Interface>, LinkError> {
    let messages = handle.link().get().execute().try_collect::<Vec<_>>().await;
    let messages = messages.map_err(failed("list", "interfaces"))?;
    let found = messages.into_iter().filter_map(|message| {
        let (mut name, mut alias) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::IfAlias(text) => alias = Some(text),
                _ => {}
            }
        }
        Some(Interface {
            index: message.header.index,
            name: name?,
            alias: alias?,
        })
    });
    Ok(found.collect())
}

/// The index of an interface; `None` = there is none of this name.
pub(crate) async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, LinkError> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await {
        Ok(message) => Ok(message.map(|message| message.header.index)),
        Err(rtnetlink::Error::NetlinkError(refusal))
            if refusal.raw_code() == -nix::libc::ENODEV =>
        {
            Ok(None)
        }
        Err(error) => Err(failed("look for", name)(error)),
    }
}

async fn known(handle: &Handle, name: &str) -> Result<u32, LinkError> {
    let missing = || cannot("look for", name)(io::ErrorKind::NotFound.into());
    index(handle, name).await?.ok_or_else(missing)
}

/// Removes an interface; both ends of a link go. Idempotent.
pub(crate) async fn remove(handle: &Handle, name: &str) -> Result<(), LinkError> {
    let Some(index) = index(handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(index).execute().await {
        Err(rtnetlink::Error::NetlinkError(refusal))
            if refusal.raw_code() == -nix::libc::ENODEV =>
        {
            Ok(())
        }
        other => other.map_err(failed("remove", name)),
    }
}

/// Makes a bridge with the gateway's addresses. Idempotent.
pub(crate) async fn make_bridge(
    handle: &Handle,
    name: &str,
    alias: &str,
    spec: &NetworkSpec,
) -> Result<(), LinkError> {
    if index(handle, name).await?.is_none() {
        let link = LinkBridge::new(name)
            .mcast_snooping(false)
            .address(hardware(1).to_vec())
            .build();
        let made = handle.link().add(link).execute().await;
        made.map_err(failed("make bridge", name))?;
    }
    let index = known(handle, name).await?;
    // The kernel takes the alias only from a change.
    let link = LinkUnspec::new_with_index(index)
        .alias(alias)
        .mtu(spec.mtu)
        .build();
    let changed = handle.link().change(link).execute().await;
    changed.map_err(failed("change bridge", name))?;
    router(name, spec).map_err(cannot("configure bridge", name))?;
    for (gateway, subnet) in [
        (spec.gateway4(), spec.subnet4),
        (spec.gateway6(), spec.subnet6),
    ] {
        if let (Some(gateway), Some(subnet)) = (gateway, subnet) {
            add_address(handle, index, gateway, subnet.prefix).await?;
        }
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let changed = handle.link().change(up).execute().await;
    changed.map_err(failed("bring up bridge", name))
}

/// Forwarding for this interface alone; whether packets leave by another one is the host's decision.
fn router(name: &str, spec: &NetworkSpec) -> io::Result<()> {
    if spec.subnet4.is_some() {
        set(&format!("ipv4/conf/{name}/forwarding"), "1")?;
        set(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
        set(&format!("ipv4/conf/{name}/accept_redirects"), "0")?;
        route_loopback(name, false)?;
    }
    // 1 = no link-local address of its own making.
    if has(&format!("ipv6/conf/{name}")) {
        set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
        set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        set(&format!("ipv6/conf/{name}/accept_redirects"), "0")?;
    }
    if spec.subnet6.is_some() {
        set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        set(&format!("ipv6/conf/{name}/forwarding"), "1")?;
        // Since Linux 6.17; before that it depends on the host's setting for all interfaces.
        let own = format!("ipv6/conf/{name}/force_forwarding");
        if has(&own) {
            set(&own, "1")?;
        }
    }
    Ok(())
}

/// Whether an interface is there, by its settings for IPv4.
pub(crate) fn is_there(name: &str) -> bool {
    has(&format!("ipv4/conf/{name}"))
}

/// Whether the host's loopback addresses may be on this bridge: the kernel sends nothing from 127.0.0.1 to a container otherwise.
pub(crate) fn route_loopback(name: &str, may: bool) -> io::Result<()> {
    let value = if may { "1" } else { "0" };
    set(&format!("ipv4/conf/{name}/route_localnet"), value)
}

async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), LinkError> {
    let mut request = handle.address().add(index, address, prefix).replace();
    if address.is_ipv6() {
        // Nobody else can have it, so there is nothing to wait for.
        let flags = AddressAttribute::Flags(AddressFlags::Nodad);
        request.message_mut().attributes.push(flags);
    }
    let added = request.execute().await;
    added.map_err(failed("add address", &address.to_string()))
}

async fn add_neighbour(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    number: u32,
) -> Result<(), LinkError> {
    let added = handle
        .neighbours()
        .add(index, address)
        .link_layer_address(&hardware(number))
        .replace()
        .execute()
        .await;
    added.map_err(failed("add neighbour", &address.to_string()))
}

/// Idempotent.
async fn forget_neighbour(handle: &Handle, index: u32, address: IpAddr) -> Result<(), LinkError> {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let destination = match address {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            message.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(v6)
        }
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    match handle.neighbours().del(message).execute().await {
        Err(rtnetlink::Error::NetlinkError(refusal))
            if refusal.raw_code() == -nix::libc::ENOENT =>
        {
            Ok(())
        }
        other => other.map_err(failed("forget neighbour", &address.to_string())),
    }
}

fn addresses(lease: &NetworkLease) -> impl Iterator<Item = IpAddr> {
    let v4 = lease.v4.map(IpAddr::V4);
    v4.into_iter().chain(lease.v6.map(IpAddr::V6))
}

/// The host's end of a container's link, not up yet.
pub(crate) struct HostEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) bridge: &'a str,
    pub(crate) spec: &'a NetworkSpec,
    pub(crate) lease: &'a NetworkLease,
}

impl HostEnd<'_> {
    /// Makes both ends; the other one is in the container's namespace. What is there of this name is replaced.
    pub(crate) async fn make(
        &self,
        handle: &Handle,
        container: BorrowedFd<'_>,
    ) -> Result<(), LinkError> {
        remove(handle, self.name).await?;
        let bridge = known(handle, self.bridge).await?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(INSIDE)
            .address(hardware(self.lease.number).to_vec())
            .mtu(self.spec.mtu)
            .setns_by_fd(container.as_raw_fd())
            .build();
        let link = LinkVeth::new(self.name, INSIDE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(self.spec.mtu)
            .build();
        let made = handle.link().add(link).execute().await;
        made.map_err(failed("make link", self.name))?;
        let index = known(handle, self.name).await?;
        let link = LinkUnspec::new_with_index(index)
            .alias(self.alias)
            .controller(bridge)
            .build();
        let changed = handle.link().change(link).execute().await;
        changed.map_err(failed("add to the bridge", self.name))?;
        let port = LinkBridgePort::new(index)
            .isolated(true)
            .learning(false)
            .flood(false)
            .mcast_flood(false)
            .guard(true)
            .build();
        let changed = handle.link().change(port).execute().await;
        changed.map_err(failed("isolate", self.name))?;
        if has(&format!("ipv6/conf/{}", self.name)) {
            let mode = format!("ipv6/conf/{}/addr_gen_mode", self.name);
            set(&mode, "1").map_err(cannot("configure", self.name))?;
        }
        Ok(())
    }

    /// Brings it up and tells the bridge and the host who is there.
    pub(crate) async fn up(&self, handle: &Handle) -> Result<(), LinkError> {
        let (bridge, index) = (
            known(handle, self.bridge).await?,
            known(handle, self.name).await?,
        );
        let up = LinkUnspec::new_with_index(index).up().build();
        let changed = handle.link().change(up).execute().await;
        changed.map_err(failed("bring up", self.name))?;
        let entry = handle
            .neighbours()
            .add_bridge(index, &hardware(self.lease.number))
            // Permanent would mean that the address is the bridge's own.
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
            .replace()
            .execute()
            .await;
        entry.map_err(failed("enter the hardware address of", self.name))?;
        for address in addresses(self.lease) {
            add_neighbour(handle, bridge, address, self.lease.number).await?;
        }
        Ok(())
    }

    /// Forgets the container's addresses and removes the link. Idempotent.
    pub(crate) async fn remove(&self, handle: &Handle) -> Result<(), LinkError> {
        remove(handle, self.name).await?;
        let Some(bridge) = index(handle, self.bridge).await? else {
            return Ok(());
        };
        for address in addresses(self.lease) {
            forget_neighbour(handle, bridge, address).await?;
        }
        Ok(())
    }
}

/// Gives the container its addresses. In its namespace.
pub(crate) async fn configure(
    handle: &Handle,
    spec: &NetworkSpec,
    lease: &NetworkLease,
) -> Result<(), LinkError> {
    let lo = known(handle, "lo").await?;
    let up = LinkUnspec::new_with_index(lo).up().build();
    let changed = handle.link().change(up).execute().await;
    changed.map_err(failed("bring up", "lo"))?;
    let index = known(handle, INSIDE).await?;
    if has(&format!("ipv6/conf/{INSIDE}")) {
        for (name, value) in [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
        ] {
            let name = format!("ipv6/conf/{INSIDE}/{name}");
            set(&name, value).map_err(cannot("configure", INSIDE))?;
        }
    }
    // Alone in its prefix: everything else, neighbours too, is behind the gateway.
    if let Some(v4) = lease.v4 {
        add_address(handle, index, v4.into(), 32).await?;
    }
    if let Some(v6) = lease.v6 {
        add_address(handle, index, v6.into(), 128).await?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let changed = handle.link().change(up).execute().await;
    changed.map_err(failed("bring up", INSIDE))?;
    for gateway in [spec.gateway4(), spec.gateway6()].into_iter().flatten() {
        add_neighbour(handle, index, gateway, 1).await?;
        let routes = match gateway {
            IpAddr::V4(gateway) => vec![
                // The gateway is not in our prefix, so the way to it is said first.
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(gateway, 32)
                    .output_interface(index)
                    .scope(rtnetlink::packet_route::route::RouteScope::Link)
                    .build(),
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
            ],
            IpAddr::V6(gateway) => vec![
                RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(gateway, 128)
                    .output_interface(index)
                    .build(),
                RouteMessageBuilder::<Ipv6Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
            ],
        };
        for route in routes {
            let added = handle.route().add(route).replace().execute().await;
            added.map_err(failed("add route by", &gateway.to_string()))?;
        }
    }
    Ok(())
}
