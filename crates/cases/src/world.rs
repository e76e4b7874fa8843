//! A host and a peer, made of network namespaces: nothing of this machine's own network is touched.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Address of the peer, which answers on tcp 80 and 8080 and to ping.
pub(crate) const PEER: &str = "198.51.100.2";
/// A range that holds it.
pub(crate) const PEER_RANGE: &str = "198.51.100.2-198.51.100.9";

/// The namespaces; gone when dropped.
pub(crate) struct World {
    home: String,
    peer: String,
    servers: Vec<Child>,
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| line.to_owned())?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl World {
    /// A home that forwards, with the peer beside it. Needs root and iproute2.
    pub(crate) fn new() -> Result<Self> {
        let id = std::process::id();
        let mut world = Self {
            home: format!("plc-{id}-home"),
            peer: format!("plc-{id}-peer"),
            servers: Vec::new(),
        };
        let (home, peer) = (&world.home, &world.peer);
        for line in [
            format!("ip netns add {home}"),
            format!("ip netns add {peer}"),
            format!("ip -n {home} link set lo up"),
            format!("ip -n {peer} link set lo up"),
            format!("ip netns exec {home} sysctl -q -w net.ipv4.conf.all.forwarding=1"),
            format!("ip -n {home} link add up1 type veth peer name eth0 netns {peer}"),
            format!("ip -n {home} addr add 198.51.100.1/24 dev up1"),
            format!("ip -n {peer} addr add {PEER}/24 dev eth0"),
            format!("ip -n {home} link set up1 up"),
            format!("ip -n {peer} link set eth0 up"),
            format!("ip -n {peer} route add default via 198.51.100.1"),
        ] {
            run(&line)?;
        }
        for port in ["80", "8080"] {
            let mut server = Command::new("ip");
            server.args([
                "netns",
                "exec",
                &world.peer,
                "/bin/busybox",
                "httpd",
                "-f",
                "-p",
                port,
                "-h",
                "/proc/sys/net",
            ]);
            let server = server
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            world
                .servers
                .push(server.context("starting a server of the peer")?);
        }
        Ok(world)
    }

    /// The namespace a node is to call its home.
    pub(crate) fn home(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.home)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // One that has ended already is as good.
            let _ = server.kill();
            let _ = server.wait();
        }
        for name in [&self.home, &self.peer] {
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}
