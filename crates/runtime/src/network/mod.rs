//! Networks of containers: a bridge per network, a link per container, and one table of the firewall for all of them.
//!
//! Order is what makes it safe. A container's link is made and stays down; its rules are loaded; only then it gets
//! addresses and comes up, before its first process starts. On the way down the link goes first. The container's
//! network namespace is made by the OCI runtime, inside the container's user namespace if it has one: so it belongs to
//! that one, and what the container may do in it is the kernel's to say. We keep it by a mount in the container's
//! directory.
//!
//! The table is loaded whole or in parts, each one transaction. When a part cannot be loaded because somebody removed
//! the table, all of it is made again.

pub(crate) mod audit;
mod check;
pub(crate) mod files;
mod flows;
mod link;
mod names;
mod namespace;
mod nft;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portlayer::element::ElementId;
use portlayer::network::NetworkSpec;
use portlayer::runtime::{BridgePlan, ContainerId, RuntimeError, RuntimeErrorKind};
use rtnetlink::Handle;

use crate::root::error_text;
use link::{HostEnd, LinkError};
use names::Names;
use namespace::{Home, inside, netlink};
use nft::NftError;

/// Name of the file that says in which namespace the networks of an engine directory are.
const HOME_FILE: &str = "network-namespace";

/// Why a network is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// Rules.
    #[error("loading the rules failed")]
    Rules(#[from] NftError),
    /// Interfaces, addresses, routes.
    #[error("setting up the link failed")]
    Link(#[from] LinkError),
    /// A program of the host listens there.
    #[error("port {0} of the host is in use")]
    PortInUse(u16),
    /// Namespaces, files.
    #[error("a call of the kernel failed")]
    Io(#[from] io::Error),
}

impl NetworkError {
    /// In the terms of the port.
    pub(crate) fn of(self, verb: &'static str, object: &str) -> RuntimeError {
        let kind = match &self {
            NetworkError::Rules(_) => RuntimeErrorKind::Firewall,
            NetworkError::PortInUse(port) => RuntimeErrorKind::PortInUse { port: *port },
            NetworkError::Link(_) | NetworkError::Io(_) => RuntimeErrorKind::Internal,
        };
        RuntimeError::new(kind, verb, object, error_text(&self))
    }
}

/// The networks of one engine. Every call blocks; calls are made one after the other.
#[derive(Debug)]
pub(crate) struct Networks {
    names: Names,
    home: Home,
    state: Mutex<State>,
    watched: check::Watched,
}

/// What is in the kernel as far as we made it.
#[derive(Debug, Default)]
struct State {
    /// Bridges, by their names.
    bridges: BTreeMap<String, NetworkSpec>,
    connected: BTreeMap<ContainerId, BridgePlan>,
}

impl State {
    /// The whole table.
    fn text(&self, names: &Names) -> String {
        let mut text = rules::table(names);
        for (bridge, spec) in &self.bridges {
            text.push_str(&rules::add_network(names, bridge, spec));
        }
        for (id, plan) in &self.connected {
            text.push_str(&rules::add_container(names, id, &names.link(id), plan));
        }
        text
    }
}

impl Networks {
    /// Of the engine in this directory. `namespace`: where bridges and rules are to be, `None` = in that of this process.
    pub(crate) fn open(
        directory: &Path,
        engine: &str,
        namespace: Option<&Path>,
    ) -> io::Result<Networks> {
        let file = directory.join(HOME_FILE);
        let home = match namespace {
            Some(path) => {
                std::fs::write(&file, path.as_os_str().as_encoded_bytes())?;
                Home::Named(path.to_owned())
            }
            None => {
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Home::Own
            }
        };
        Ok(Networks {
            names: Names::new(engine),
            home,
            state: Mutex::default(),
            watched: check::Watched::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects the container whose init is `pid`, or changes what its connection allows.
    pub(crate) fn connect(
        &self,
        id: &ContainerId,
        pid: u32,
        keep: &Path,
        plan: &BridgePlan,
    ) -> Result<(), NetworkError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let before = state.connected.get(id).cloned();
        if before.as_ref() == Some(plan) {
            return Ok(());
        }
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let container = File::open(&namespace)?;
        // Who has the address by the ledger's word is the owner; another one is a leftover.
        let same = |there: &BridgePlan| {
            there.network == plan.network && there.lease.number == plan.lease.number
        };
        let stale = state
            .connected
            .iter()
            .find(|(other, there)| *other != id && same(there));
        if let Some((stale, _)) = stale {
            let stale = stale.clone();
            self.disconnect_in(state, &stale)?;
        }
        let again = before.as_ref().is_some_and(|before| {
            (&before.lease.network, before.lease.number) == (&plan.lease.network, plan.lease.number)
        });
        if before.is_some() && !again {
            self.disconnect_in(state, id)?;
        }
        namespace::keep(&namespace, keep)?;
        let known = before.filter(|_| again);
        let done = self
            .home
            .run(|| self.make(state, id, &container, plan, known.as_ref()));
        if done.is_err() {
            match known {
                // Its old rules hold still.
                Some(known) => drop(state.connected.insert(id.clone(), known)),
                None => {
                    if let Err(error) = self.disconnect_in(state, id) {
                        let id = id.as_str();
                        tracing::error!(container = id, %error, "taking a half-made connection back failed");
                    }
                    namespace::let_go(keep)?;
                }
            }
        }
        done
    }

    /// In the home namespace.
    fn make(
        &self,
        state: &mut State,
        id: &ContainerId,
        container: &File,
        plan: &BridgePlan,
        known: Option<&BridgePlan>,
    ) -> Result<(), NetworkError> {
        let (runtime, handle) = netlink()?;
        let published = known
            .map(|known| known.lease.ports.as_slice())
            .unwrap_or_default();
        for port in plan
            .lease
            .ports
            .iter()
            .filter(|port| !published.contains(port))
        {
            free_on_host(port)?;
        }
        let bridge = self.names.bridge(&plan.network);
        runtime.block_on(self.bridge(state, &handle, &bridge, plan))?;
        let (link, alias) = (self.names.link(id), self.names.alias(id.as_str()));
        let end = HostEnd {
            name: &link,
            alias: &alias,
            bridge: &bridge,
            spec: &plan.spec,
            lease: &plan.lease,
        };
        if known.is_none() {
            runtime.block_on(end.make(&handle, container.as_fd()))?;
        }
        let mut text = String::new();
        if let Some(known) = known {
            text.push_str(&rules::remove_container(&self.names, id, known));
        }
        text.push_str(&rules::add_container(&self.names, id, &link, plan));
        state.connected.insert(id.clone(), plan.clone());
        self.load(state, &text)?;
        if known.is_none() {
            inside(Some(container), || -> Result<(), NetworkError> {
                let (runtime, handle) = netlink()?;
                Ok(runtime.block_on(link::configure(&handle, &plan.spec, &plan.lease))?)
            })?;
            runtime.block_on(end.up(&handle))?;
        }
        self.loopback(state, &bridge)
    }

    /// Lets the host's loopback addresses onto a bridge as long as a port is published on them, and no longer. In the home
    /// namespace, with the rules loaded that keep containers from them.
    fn loopback(&self, state: &State, bridge: &str) -> Result<(), NetworkError> {
        if state
            .bridges
            .get(bridge)
            .is_none_or(|spec| spec.subnet4.is_none())
        {
            return Ok(());
        }
        let mut there = state.connected.values();
        let may = there.any(|plan| {
            let mut ports = plan.lease.ports.iter();
            self.names.bridge(&plan.network) == bridge
                && ports.any(|port| port.host_address.is_none_or(|at| at.is_loopback()))
        });
        Ok(link::route_loopback(bridge, may)?)
    }

    /// Makes the bridge of a network, and the table with the first one.
    async fn bridge(
        &self,
        state: &mut State,
        handle: &Handle,
        bridge: &str,
        plan: &BridgePlan,
    ) -> Result<(), NetworkError> {
        if state.bridges.get(bridge) == Some(&plan.spec) {
            return Ok(());
        }
        // Its rules first: what is not known to the table may forward whatever it likes.
        state.bridges.insert(bridge.to_owned(), plan.spec.clone());
        if let Err(error) = nft::load(&state.text(&self.names)) {
            state.bridges.remove(bridge);
            return Err(error.into());
        }
        let alias = self.names.alias(&plan.network.digest_hex());
        let made = link::make_bridge(handle, bridge, &alias, &plan.spec).await;
        if made.is_err() {
            state.bridges.remove(bridge);
        }
        Ok(made?)
    }

    /// Loads a change, or everything when the change does not fit what is there.
    fn load(&self, state: &State, change: &str) -> Result<(), NftError> {
        match nft::load(change) {
            Err(NftError::Refused(said)) => {
                tracing::warn!(
                    said,
                    "a change of the firewall does not fit, loading all of it"
                );
                nft::load(&state.text(&self.names))
            }
            other => other,
        }
    }

    /// Takes a container from its network. Idempotent.
    pub(crate) fn disconnect(&self, id: &ContainerId, keep: &Path) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.connected.contains_key(id) {
            self.disconnect_in(&mut state, id)?;
        }
        Ok(namespace::let_go(keep)?)
    }

    fn disconnect_in(&self, state: &mut State, id: &ContainerId) -> Result<(), NetworkError> {
        let Some(plan) = state.connected.remove(id) else {
            return Ok(());
        };
        let done = self.home.run(|| -> Result<(), NetworkError> {
            let (runtime, handle) = netlink()?;
            let end = HostEnd {
                name: &self.names.link(id),
                alias: "",
                bridge: &self.names.bridge(&plan.network),
                spec: &plan.spec,
                lease: &plan.lease,
            };
            runtime.block_on(end.remove(&handle))?;
            self.load(state, &rules::remove_container(&self.names, id, &plan))?;
            match link::is_there(end.bridge) {
                true => self.loopback(state, end.bridge),
                false => Ok(()),
            }
        });
        if done.is_err() {
            // Still known, so that the next attempt finds it.
            state.connected.insert(id.clone(), plan);
        }
        done
    }

    /// Removes the bridge of a network nobody is connected to. Idempotent.
    pub(crate) fn forget(&self, network: &ElementId) -> Result<(), NetworkError> {
        let mut state = self.state();
        let bridge = self.names.bridge(network);
        let Some(spec) = state.bridges.remove(&bridge) else {
            return Ok(());
        };
        let done = self.home.run(|| -> Result<(), NetworkError> {
            let (runtime, handle) = netlink()?;
            runtime.block_on(link::remove(&handle, &bridge))?;
            if state.bridges.is_empty() {
                return Ok(nft::load(
                    &(rules::table(&self.names) + &rules::remove_table(&self.names)),
                )?);
            }
            Ok(self.load(&state, &rules::remove_network(&self.names, &bridge, &spec))?)
        });
        if done.is_err() {
            state.bridges.insert(bridge, spec);
        }
        done
    }

    /// Makes bridges, links and table what they must be for these containers and removes everything else of ours.
    /// A container that cannot be connected again is cut off.
    pub(crate) fn restore(
        &self,
        wanted: &[(ContainerId, BridgePlan)],
        pid_of: &BTreeMap<ContainerId, u32>,
    ) -> Result<(), NetworkError> {
        let mut guard = self.state();
        let state = &mut *guard;
        *state = State::default();
        self.home.run(|| -> Result<(), NetworkError> {
            let (runtime, handle) = netlink()?;
            let found = runtime.block_on(link::list(&handle))?;
            let ours = found.into_iter().filter_map(|interface| {
                let owner = self.names.owner(&interface.alias)?.to_owned();
                Some((interface.name, owner))
            });
            let ours: Vec<(String, String)> = ours.collect();
            if wanted.is_empty() && ours.is_empty() && !audit::table_exists(&self.names)? {
                return Ok(());
            }
            let bridges: BTreeSet<_> = wanted
                .iter()
                .map(|(_, plan)| self.names.bridge(&plan.network))
                .collect();
            let links: BTreeSet<_> = wanted.iter().map(|(id, _)| self.names.link(id)).collect();
            for (name, _) in &ours {
                if !bridges.contains(name) && !links.contains(name) {
                    runtime.block_on(link::remove(&handle, name))?;
                }
            }
            if wanted.is_empty() {
                return Ok(nft::load(
                    &(rules::table(&self.names) + &rules::remove_table(&self.names)),
                )?);
            }
            for (id, plan) in wanted {
                let bridge = self.names.bridge(&plan.network);
                let there = ours.iter().any(|(name, _)| *name == self.names.link(id));
                // What has its link keeps it: its addresses and routes are inside.
                let known = there.then_some(plan);
                let restored = self.restore_one(
                    state,
                    &runtime,
                    &handle,
                    id,
                    plan,
                    known,
                    pid_of.get(id).copied(),
                );
                if let Err(error) = restored {
                    tracing::error!(
                        container = id.as_str(),
                        bridge,
                        error = error_text(&error),
                        "a connection cannot be restored, it is cut off"
                    );
                    state.connected.remove(id);
                    runtime.block_on(link::remove(&handle, &self.names.link(id)))?;
                }
            }
            nft::load(&state.text(&self.names))?;
            let mut bridges = state.bridges.keys();
            bridges.try_for_each(|bridge| self.loopback(state, bridge))
        })
    }

    #[allow(clippy::too_many_arguments, reason = "one loop's body")]
    fn restore_one(
        &self,
        state: &mut State,
        runtime: &tokio::runtime::Runtime,
        handle: &Handle,
        id: &ContainerId,
        plan: &BridgePlan,
        known: Option<&BridgePlan>,
        pid: Option<u32>,
    ) -> Result<(), NetworkError> {
        if known.is_some() {
            let bridge = self.names.bridge(&plan.network);
            runtime.block_on(self.bridge(state, handle, &bridge, plan))?;
            state.connected.insert(id.clone(), plan.clone());
            return Ok(());
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "its init is gone");
        let pid = pid.ok_or_else(missing)?;
        let container = File::open(format!("/proc/{pid}/ns/net"))?;
        self.make(state, id, &container, plan, None)
    }
}

/// Removes everything of an engine directory that is in the kernel's network. Idempotent. Blocks.
pub(crate) fn clean(directory: &Path, engine: &str) -> Result<(), NetworkError> {
    let names = Names::new(engine);
    let home = match std::fs::read_to_string(directory.join(HOME_FILE)) {
        Ok(path) if Path::new(&path).exists() => Home::Named(path.into()),
        // The namespace is gone, and with it all that was in it.
        Ok(_) => return Ok(()),
        Err(_) => Home::Own,
    };
    home.run(|| -> Result<(), NetworkError> {
        let (runtime, handle) = netlink()?;
        let mut any = false;
        for interface in runtime.block_on(link::list(&handle))? {
            if names.owner(&interface.alias).is_some() {
                any = true;
                runtime.block_on(link::remove(&handle, &interface.name))?;
            }
        }
        // Without interfaces of ours there is a table only after a crash between the two, or when somebody else removed
        // them; nft may not even be installed.
        match audit::table_exists(&names) {
            Ok(true) => Ok(nft::load(&rules::remove_table(&names))?),
            Ok(false) => Ok(()),
            Err(NftError::Program(_)) if !any => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

/// Whether a port can be published: nobody listens there now. In the home namespace.
fn free_on_host(port: &portlayer::network::Published) -> Result<(), NetworkError> {
    use portlayer::network::Transport;
    use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = (port.host_address.unwrap_or(any), port.host_port);
    let bound = match port.protocol {
        Transport::Tcp => TcpListener::bind(address).map(drop),
        Transport::Udp => UdpSocket::bind(address).map(drop),
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => NetworkError::PortInUse(port.host_port),
        _ => error.into(),
    })
}
