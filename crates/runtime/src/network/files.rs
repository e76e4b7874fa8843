//! The files by which a container knows names: made by us for each, mounted read-only over the image's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portlayer::runtime::{BridgePlan, NetworkPlan};

/// A file and its place in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameFile {
    /// On the host.
    pub(crate) source: PathBuf,
    /// In the container.
    pub(crate) target: &'static str,
}

const RESOLVER: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Makes the files of a container in its directory: the network's resolvers and the container's own name on a bridge, the
/// host's files on the host's network. A container without a network keeps what its image has. Idempotent. Blocks.
pub(crate) fn make(directory: &Path, network: &NetworkPlan) -> io::Result<Vec<NameFile>> {
    let texts = match network {
        NetworkPlan::None => return Ok(Vec::new()),
        NetworkPlan::Host => vec![
            (RESOLVER, fs::read_to_string(RESOLVER).unwrap_or_default()),
            (HOSTS, fs::read_to_string(HOSTS).unwrap_or_default()),
        ],
        NetworkPlan::Bridge(plan) => vec![(RESOLVER, resolver(plan)), (HOSTS, hosts(plan))],
    };
    let directory = directory.join("etc");
    fs::create_dir_all(&directory)?;
    let mut files = Vec::new();
    for (target, text) in texts {
        let name = target.rsplit('/').next().unwrap_or(target);
        let source = directory.join(name);
        fs::write(&source, text)?;
        files.push(NameFile { source, target });
    }
    Ok(files)
}

fn resolver(plan: &BridgePlan) -> String {
    let servers = plan.dns.iter();
    servers
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

fn hosts(plan: &BridgePlan) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = &plan.hostname;
    text.extend(plan.lease.v4.map(|v4| format!("{v4}\t{name}\n")));
    text.extend(plan.lease.v6.map(|v6| format!("{v6}\t{name}\n")));
    text
}

#[cfg(test)]
mod tests {
    use portlayer::network::{NetworkLease, NetworkSpec};

    use super::*;

    #[test]
    fn a_container_on_a_bridge_knows_its_resolvers_and_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let spec = NetworkSpec::new("lan", Some("10.9.0.0/24".parse().unwrap()), None);
        let network = spec.id().unwrap();
        let lease = NetworkLease {
            network: network.clone(),
            number: 2,
            v4: Some([10, 9, 0, 2].into()),
            v6: None,
            ports: Vec::new(),
        };
        let plan = BridgePlan {
            network,
            spec,
            lease,
            egress: None,
            dns: vec!["192.0.2.53".parse().unwrap()],
            hostname: "web".into(),
        };
        let files = make(directory.path(), &NetworkPlan::Bridge(Box::new(plan))).unwrap();
        let text = |at: usize| fs::read_to_string(&files[at].source).unwrap();
        assert_eq!(
            (files[0].target, text(0).as_str()),
            (RESOLVER, "nameserver 192.0.2.53\n")
        );
        assert!(text(1).ends_with("10.9.0.2\tweb\n"), "{}", text(1));
        assert_eq!(make(directory.path(), &NetworkPlan::None).unwrap(), []);
    }
}
