//! Looks after the table: somebody who flushes the host's rules (`nft flush ruleset`, a firewall's restart) takes ours
//! with them, and then nothing is closed. It is loaded again as soon as that is seen, and until then this says so.

use std::sync::atomic::{AtomicBool, Ordering};

use super::nft;
use super::{NetworkError, Networks, State, names};

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Watched {
    missing: AtomicBool,
}

impl Networks {
    /// Whether the rules were there, or could be loaded again, when they were last looked at.
    pub(crate) fn are_in_force(&self) -> bool {
        !self.watched.missing.load(Ordering::Relaxed)
    }

    /// Looks whether every chain is there and loads the table again when one is not; true = it had to. Blocks, for
    /// milliseconds; does nothing while there is no bridge.
    pub(crate) fn check(&self) -> Result<bool, NetworkError> {
        let state = self.state();
        if state.bridges.is_empty() {
            self.watched.missing.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        let checked = self.home.run(|| -> Result<bool, NetworkError> {
            let there = nft::chains(self.names.table())?.unwrap_or_default();
            let own = state.connected.keys();
            let own = own.flat_map(|id| [names::egress_chain(id), names::ingress_chain(id)]);
            let networks = state.bridges.keys().map(|bridge| format!("n-{bridge}"));
            let fixed = [
                "closed",
                "from_container",
                "to_container",
                "forward",
                "input",
                "loopback",
            ];
            let mut wanted = own.chain(networks).chain(fixed.map(str::to_owned));
            let Some(missing) = wanted.find(|chain| !there.contains(chain)) else {
                return Ok(false);
            };
            self.watched.missing.store(true, Ordering::Relaxed);
            tracing::error!(
                missing,
                "somebody removed rules of the networks, loading them again"
            );
            nft::load(&state.text(&self.names))?;
            Ok(true)
        });
        self.watched
            .missing
            .store(checked.is_err(), Ordering::Relaxed);
        checked
    }

    /// Looks after nothing any more: what is in the kernel is somebody else's from now on. Blocks while a look goes on.
    pub(crate) fn let_go(&self) {
        *self.state() = State::default();
    }

    /// Whether packets of bridges are forwarded by the host; what cannot be read counts as yes.
    pub(crate) fn is_forwarding(&self) -> bool {
        if self.state().bridges.is_empty() {
            return true;
        }
        let read = self
            .home
            .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
        read.map_or(true, |text| text.trim() != "0")
    }
}
