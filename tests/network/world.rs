//! A host and its surroundings, made of network namespaces: what a node calls its home, and peers around it. Nothing of
//! this machine's own network is touched or reached.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use portlayer::compose::{BindHow, CommitError, CommitResult, JoinHow};
use portlayer::element::{ElementId, ImageSpec, NewElement, Spec};
use portlayer::network::{EgressRule, NetworkSpec, NetworkUse, Protocol};
use portlayer::task::TaskSpec;
use portlayer_node::config::Config;
use portlayer_node::{Node, OpenError};
use portlayer_runtime::EngineError;

use crate::support::left;

/// How long a probe waits before what it asks counts as closed. Refusals are answered, so few wait that long.
const PATIENCE: Duration = Duration::from_millis(500);

/// The network every test has.
pub(super) const LAN: &str = "network://node/lan";

/// Runs a program; its output. Panics with what it said when it fails.
pub(super) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace with a name; gone when dropped.
pub(super) struct Space {
    name: String,
}

impl Space {
    fn new() -> Space {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plt-{}-{count}", std::process::id());
        run(&format!("ip netns add {name}"));
        // An address under duplicate detection sends nothing for a second, not even to ask for a neighbour.
        run(&format!(
            "ip netns exec {name} sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0"
        ));
        run(&format!("ip -n {name} link set lo up"));
        Space { name }
    }

    /// The namespace; what is left is none.
    fn take(&mut self) -> Space {
        Space {
            name: std::mem::take(&mut self.name),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip` in it.
    pub(super) fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// The kernel gives a link its link-local address up to a second after its other end came up; until then it does not
    /// even ask for neighbours.
    fn wait_for_ipv6(&self, link: &str) {
        for _ in 0..200 {
            if !self
                .ip(&format!("-6 addr show dev {link} scope link"))
                .is_empty()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{link} got no link-local address");
    }

    /// A program in it.
    pub(super) fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Answers TCP connections and UDP packets to a port with `text` until it is dropped.
    pub(super) fn answer(&self, address: &str, port: u16, text: &str) -> Answers {
        Answers::start(&self.path(), address, port, text)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let ended = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("left behind: network namespace {}: {ended:?}", self.name);
        }
    }
}

/// Runs work in the namespace of a file, in a thread of its own.
pub(super) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A listener in a thread.
pub(super) struct Answers {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Answers {
    /// In the namespace of a file.
    pub(super) fn start(path: &Path, address: &str, port: u16, text: &str) -> Answers {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let (tcp, udp) = inside(path, || {
            (
                TcpListener::bind(address).unwrap(),
                UdpSocket::bind(address).unwrap(),
            )
        });
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (ended, said) = (end.clone(), text.to_owned());
        let of_tcp = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, from)) => {
                        // Whoever hung up needs no answer.
                        let _ = stream.write_all(format!("{said} {}", from.ip()).as_bytes());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (ended, said) = (end.clone(), text.to_owned());
        let of_udp = std::thread::spawn(move || {
            let mut bytes = [0; 100];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut bytes) {
                    let _ = udp.send_to(format!("{said} {}", from.ip()).as_bytes(), from);
                }
            }
        });
        Answers {
            end,
            threads: vec![of_tcp, of_udp],
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What came of a TCP connection from a namespace: the peer's answer, or `None` when it is closed.
pub(super) fn tcp(from: &Path, address: &str, port: u16) -> Option<String> {
    let to = SocketAddr::new(address.parse().unwrap(), port);
    inside(from, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    })
}

/// The same of a UDP packet, from a certain port if it is not 0.
pub(super) fn udp_from(from: &Path, own_port: u16, address: &str, port: u16) -> Option<String> {
    let to = SocketAddr::new(address.parse().unwrap(), port);
    inside(from, || {
        let any: IpAddr = if to.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            [0u16; 8].into()
        };
        let socket = UdpSocket::bind((any, own_port)).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"?", to).ok()?;
        let mut bytes = [0; 100];
        let (count, _) = socket.recv_from(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    })
}

pub(super) fn udp(from: &Path, address: &str, port: u16) -> Option<String> {
    udp_from(from, 0, address, port)
}

/// Whether a ping is answered.
pub(super) fn ping(from: &Path, address: &str) -> bool {
    inside(from, || {
        let six = if address.contains(':') { "-6" } else { "-4" };
        let ping = Command::new("/bin/busybox")
            .args(["ping", six, "-c1", "-W1", address])
            .output();
        ping.unwrap().status.success()
    })
}

/// Home and peers.
pub(super) struct World {
    pub(super) home: Space,
    pub(super) peers: Vec<Space>,
    directory: PathBuf,
}

impl World {
    /// A host with forwarding and two peers: 198.51.100.2 with 2001:db8:1::2, and 203.0.113.2 with 2001:db8:2::2. The host
    /// is .1 for both. The second peer also has the metadata address 169.254.169.254 and 192.0.2.53, and the host has
    /// routes to them.
    pub(super) fn new() -> World {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and needs root"
        );
        let home = Space::new();
        home.run("sysctl -q -w net.ipv4.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=1");
        let mut peers = Vec::new();
        for (number, v4, v6) in [
            (1, "198.51.100", "2001:db8:1:"),
            (2, "203.0.113", "2001:db8:2:"),
        ] {
            let peer = Space::new();
            home.ip(&format!(
                "link add up{number} type veth peer name eth0 netns {}",
                peer.name
            ));
            home.ip(&format!("addr add {v4}.1/24 dev up{number}"));
            home.ip(&format!("addr add {v6}:1/64 dev up{number} nodad"));
            peer.ip(&format!("addr add {v4}.2/24 dev eth0"));
            peer.ip(&format!("addr add {v6}:2/64 dev eth0 nodad"));
            home.ip(&format!("link set up{number} up"));
            peer.ip("link set eth0 up");
            peer.ip(&format!("route add default via {v4}.1"));
            peer.ip(&format!("-6 route add default via {v6}:1"));
            home.wait_for_ipv6(&format!("up{number}"));
            peer.wait_for_ipv6("eth0");
            peers.push(peer);
        }
        for address in ["169.254.169.254", "192.0.2.53", "198.18.0.1"] {
            peers[1].ip(&format!("addr add {address}/32 dev lo"));
            home.ip(&format!("route add {address}/32 via 203.0.113.2"));
        }
        peers[1].ip("addr add fd00:ec2::254/128 dev lo nodad");
        home.ip("-6 route add fd00:ec2::254/128 via 2001:db8:2::2");
        let directory = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp")
            .unwrap();
        World {
            home,
            peers,
            directory: directory.keep(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// A network with both families.
    pub(super) fn lan() -> NetworkSpec {
        let mut spec = NetworkSpec::new(
            "lan",
            Some("10.90.0.0/24".parse().unwrap()),
            Some("fd90::/64".parse().unwrap()),
        );
        spec.dns = vec!["192.0.2.53".parse().unwrap()];
        spec
    }

    /// Opens a node with these networks in the home namespace.
    pub(super) async fn open(&self, networks: Vec<NetworkSpec>) -> Node {
        let mut config = Config::new(self.data());
        config.networks = networks;
        config.engine.network_namespace = Some(self.home.path());
        // A program that another test starts at this moment has our lock until its exec.
        for _ in 0..100 {
            match portlayer_node::open(&config).await {
                Err(OpenError::Engine(EngineError::InUse(_))) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("the engine stays in use");
    }

    /// Opens one with [`World::lan`] and an image.
    pub(super) async fn node(&self) -> Node {
        let node = self.open(vec![World::lan()]).await;
        let binary = Path::new("/bin/busybox");
        let bytes = std::fs::read(binary).expect("the Debian package busybox-static is needed");
        let applets = portlayer_runtime::layout::applets(binary).unwrap();
        let tar = portlayer_runtime::layout::busybox_tar(&bytes, &applets);
        let new = NewElement::new(image(), Spec::Image(ImageSpec::default()));
        node.port_layer
            .create(new.data(std::io::Cursor::new(tar)))
            .await
            .unwrap();
        node
    }

    /// The namespace of an executor's first start.
    pub(super) fn namespace(&self, executor: &ElementId) -> PathBuf {
        let container = format!("{}-1", &executor.digest_hex()[..20]);
        self.data().join("containers").join(container).join("netns")
    }

    /// Ends the node and sees that nothing is left of it in the home namespace.
    pub(super) async fn close(&self, node: Node) {
        let report = node.port_layer.audit().await.unwrap();
        let leaks: Vec<_> = report.leaks().collect();
        assert!(leaks.is_empty(), "{leaks:#?}");
        node.remove().await.unwrap();
        assert_eq!(self.home.run("nft list ruleset"), "", "rules are left");
        let links = self.home.ip("-o link show");
        assert!(!links.contains("plb") && !links.contains("plv"), "{links}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The namespaces go last: what the engine made is in them.
        let spaces = (self.home.take(), std::mem::take(&mut self.peers));
        left::remove(self.data(), self.directory.clone(), spaces);
    }
}

#[test]
fn a_test_that_fails_leaves_nothing_behind() {
    let (tell, told) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let node = world.node().await;
            start(&world, &node, "a", NetworkUse::default()).await;
            let places = node.places().clone();
            tell.send((world.directory.clone(), world.home.path(), places))
                .unwrap();
            panic!("on purpose: the test of what a failing test leaves");
        });
    });
    assert!(failed.join().is_err());
    let (directory, home, places) = told.recv().unwrap();
    assert!(!directory.exists() && !home.exists());
    assert!(!Path::new("/run/portlayer").join(&places.namespace).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "{mounts}");
    let cgroup = Path::new("/sys/fs/cgroup/pids").join(&places.cgroup_parent[1..]);
    assert!(!cgroup.exists(), "{} is left", cgroup.display());
}

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

fn image() -> ElementId {
    id("image://images/busybox")
}

/// Makes an executor with one task on a network and commits it.
pub(super) async fn start_on(
    node: &Node,
    name: &str,
    network: &str,
    wanted: NetworkUse,
    script: &str,
) -> Result<CommitResult, CommitError> {
    let layer = &node.port_layer;
    let executor = id(&format!("executor://executors/{name}"));
    let task = id(&format!("task://tasks/{name}"));
    layer
        .create(NewElement::new(
            executor.clone(),
            Spec::Executor(Box::default()),
        ))
        .await
        .unwrap();
    let spec = TaskSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    };
    layer
        .create(NewElement::new(task.clone(), Spec::Task(Box::new(spec))))
        .await
        .unwrap();
    let handle = layer.compose(&executor).await?;
    let handle = layer.join(handle, &image(), JoinHow::root()).await?;
    let handle = layer
        .join(handle, &id(network), JoinHow::Network(wanted))
        .await?;
    let handle = layer.join(handle, &task, JoinHow::Task).await?;
    let handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await
}

/// The same with a task that does nothing, on the network every test has. Its namespace.
pub(super) async fn start(world: &World, node: &Node, name: &str, wanted: NetworkUse) -> PathBuf {
    let started = start_on(node, name, LAN, wanted, "exec sleep 1000").await;
    started.unwrap_or_else(|error| panic!("{error:#?}"));
    world.namespace(&id(&format!("executor://executors/{name}")))
}

/// Stops everything of an executor and deletes it.
pub(super) async fn end(node: &Node, name: &str) {
    let layer = &node.port_layer;
    let executor = id(&format!("executor://executors/{name}"));
    let handle = layer.compose(&executor).await.unwrap();
    let handle = layer.unbind(handle, None).await.unwrap();
    layer.commit(handle).await.unwrap();
    layer.delete(&executor).await.unwrap();
}

pub(super) fn rule(protocol: Protocol, destinations: &[&str], ports: &[&str]) -> EgressRule {
    EgressRule {
        protocol,
        destinations: destinations.iter().map(|&text| text.to_owned()).collect(),
        ports: ports.iter().map(|&text| text.to_owned()).collect(),
        ..EgressRule::default()
    }
}

pub(super) fn opens(rules: Vec<EgressRule>) -> NetworkUse {
    NetworkUse {
        egress: Some(rules),
        ..NetworkUse::default()
    }
}
