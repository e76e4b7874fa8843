//! What of ours the kernel's network has, for the audit: looked up there and not remembered.

use portlayer::runtime::{Finding, FindingClass};

use super::names::Names;
use super::namespace::netlink;
use super::nft::{self, NftError};
use super::{NetworkError, Networks, link};

/// Whether the table is there. In the home namespace.
pub(super) fn table_exists(names: &Names) -> Result<bool, NftError> {
    Ok(nft::chains(names.table())?.is_some())
}

impl Networks {
    /// Interfaces and chains, with the container or the digest of the network each is for. Blocks.
    pub(crate) fn audit(&self) -> Result<Vec<Finding>, NetworkError> {
        self.home.run(|| {
            let (runtime, handle) = netlink()?;
            let mut found = Vec::new();
            let mut bridge = None;
            for interface in runtime.block_on(link::list(&handle))? {
                let Some(owner) = self.names.owner(&interface.alias) else {
                    continue;
                };
                if interface.name.starts_with("plb") {
                    bridge = Some(owner.to_owned());
                }
                found.push(Finding {
                    class: FindingClass::Interface,
                    name: interface.name,
                    owner: Some(owner.to_owned()),
                });
            }
            let chains = match nft::chains(self.names.table()) {
                // Where there is no program, we have loaded nothing.
                Err(NftError::Program(_)) if found.is_empty() => None,
                other => other?,
            };
            let table = self.names.table();
            // The table is there for the bridges, whichever.
            found.extend(chains.is_some().then(|| Finding {
                class: FindingClass::Firewall,
                name: table.to_owned(),
                owner: bridge,
            }));
            for chain in chains.into_iter().flatten() {
                let container = chain
                    .strip_prefix("x-")
                    .or_else(|| chain.strip_prefix("i-"));
                found.extend(container.map(|container| Finding {
                    class: FindingClass::Firewall,
                    name: format!("{table} {chain}"),
                    owner: Some(container.to_owned()),
                }));
            }
            Ok(found)
        })
    }
}
