//! Names of what we make in the kernel: derived from the engine's namespace and from what they are for, so that a later
//! process of ours finds them and no two engines meet.

use portlayer::element::ElementId;
use portlayer::runtime::ContainerId;
use sha2::{Digest, Sha256};

/// The names of one engine.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    namespace: String,
}

impl Names {
    pub(crate) fn new(namespace: &str) -> Names {
        Names {
            namespace: namespace.to_owned(),
        }
    }

    /// The table of the firewall.
    pub(crate) fn table(&self) -> &str {
        &self.namespace
    }

    /// A bridge. The kernel takes 15 bytes.
    pub(crate) fn bridge(&self, network: &ElementId) -> String {
        format!("plb{}", &self.digest(network.as_str())[..10])
    }

    /// The host's end of a container's link.
    pub(crate) fn link(&self, id: &ContainerId) -> String {
        format!("plv{}", &self.digest(id.as_str())[..10])
    }

    /// The alias by which an interface is known to be ours, and whose it is: a container or the digest of a network.
    pub(crate) fn alias(&self, owner: &str) -> String {
        format!("{} {owner}", self.namespace)
    }

    /// The owner in an alias of ours.
    pub(crate) fn owner<'a>(&self, alias: &'a str) -> Option<&'a str> {
        alias.strip_prefix(&self.namespace)?.strip_prefix(' ')
    }

    fn digest(&self, text: &str) -> String {
        hex::encode(Sha256::digest(format!("{} {text}", self.namespace)))
    }
}

/// The mark of a container's flows: what another container began from the same address does not carry it.
pub(crate) fn mark(id: &ContainerId) -> u32 {
    let digest = Sha256::digest(id.as_str());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]).max(1)
}

/// The hardware address for a number of a network; locally administered.
pub(crate) fn hardware(number: u32) -> [u8; 6] {
    let [_, a, b, c] = number.to_be_bytes();
    [0x02, 0x70, 0x6c, a, b, c]
}

/// A hardware address as people and the firewall write it.
pub(crate) fn hardware_text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// The chain of a container's rules.
pub(crate) fn egress_chain(id: &ContainerId) -> String {
    format!("x-{}", id.as_str())
}

/// The chain that looks at what a container sends before anything else does.
pub(crate) fn ingress_chain(id: &ContainerId) -> String {
    format!("i-{}", id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ_by_engine() {
        let (one, other) = (Names::new("portlayer-1"), Names::new("portlayer-2"));
        let network: ElementId = "network://node/lan".parse().unwrap();
        let id = ContainerId::from_engine("0123456789abcdef0123-1");
        assert!(one.bridge(&network).len() <= 15 && one.link(&id).len() <= 15);
        assert_ne!(one.bridge(&network), other.bridge(&network));
        assert_eq!(one.owner(&one.alias("x-1")), Some("x-1"));
        assert_eq!(one.owner(&other.alias("x-1")), None);
        assert_eq!(hardware_text(hardware(258)), "02:70:6c:00:01:02");
    }
}
