//! Capabilities by name, and the sets an executor's processes get.

use std::collections::BTreeSet;

use crate::task::Isolation;

/// Every capability of Linux up to 5.9, in the kernel's order.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// containerd's fourteen without MKNOD, NET_RAW, AUDIT_WRITE and SETFCAP, which hardly any task needs.
const DEFAULT: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The kernel's spelling of a capability's name, if it is one. Only the full upper-case name is.
pub(crate) fn parse(name: &str) -> Option<&'static str> {
    ALL.into_iter().find(|known| *known == name)
}

/// What a process may ever have, and what it has from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sets {
    /// The bounding set.
    pub(crate) bounding: BTreeSet<&'static str>,
    /// Permitted and effective.
    pub(crate) held: BTreeSet<&'static str>,
    /// Inheritable and ambient: kept over the execution of a program by a user who is not root.
    pub(crate) ambient: BTreeSet<&'static str>,
}

/// The most a process of an executor may ever have: never more than `host`, of which bit n is the capability n.
pub(crate) fn bounding(isolation: &Isolation, host: u64) -> BTreeSet<&'static str> {
    sets(isolation, host, true).bounding
}

/// The sets of a process. Root holds all it may have; another user only what the executor adds explicitly. What `host` does
/// not have is left out: the OCI runtime refuses a process that is to have it.
pub(crate) fn sets(isolation: &Isolation, host: u64, root: bool) -> Sets {
    let present = |name: &&str| {
        ALL.iter()
            .position(|known| known == name)
            .is_some_and(|bit| host & (1 << bit) != 0)
    };
    let added: BTreeSet<_> = isolation
        .add_capabilities
        .iter()
        .filter_map(|name| parse(name))
        .collect();
    let dropped: BTreeSet<_> = isolation
        .drop_capabilities
        .iter()
        .filter_map(|name| parse(name))
        .collect();
    let base: BTreeSet<_> = match isolation.privileged {
        true => ALL.into_iter().collect(),
        false => DEFAULT.into_iter().collect(),
    };
    let bounding: BTreeSet<_> = base
        .union(&added)
        .copied()
        .filter(|name| !dropped.contains(name))
        .filter(present)
        .collect();
    let explicit: BTreeSet<_> = added.intersection(&bounding).copied().collect();
    match root {
        true => Sets {
            held: bounding.clone(),
            ambient: BTreeSet::new(),
            bounding,
        },
        false => Sets {
            held: explicit.clone(),
            ambient: explicit,
            bounding,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_holds_only_what_was_added() {
        let isolation = Isolation {
            add_capabilities: vec!["CAP_NET_RAW".into(), "CAP_CHOWN".into()],
            drop_capabilities: vec!["CAP_CHOWN".into(), "CAP_KILL".into()],
            ..Isolation::default()
        };
        let user = sets(&isolation, u64::MAX, false);
        assert_eq!(user.held, BTreeSet::from(["CAP_NET_RAW"]));
        assert_eq!(user.ambient, user.held);
        assert!(!user.bounding.contains("CAP_CHOWN") && !user.bounding.contains("CAP_KILL"));
        let root = sets(&isolation, u64::MAX, true);
        assert_eq!(root.held, root.bounding);
        assert_eq!(root.bounding.len(), 9);
        assert!(root.ambient.is_empty());
    }

    #[test]
    fn the_default_has_none_of_the_four_that_are_rarely_needed() {
        let root = sets(&Isolation::default(), u64::MAX, true);
        for name in [
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_AUDIT_WRITE",
            "CAP_SETFCAP",
            "CAP_SYS_ADMIN",
        ] {
            assert!(!root.bounding.contains(name), "{name}");
        }
    }

    #[test]
    fn nothing_comes_from_a_host_that_does_not_have_it() {
        let isolation = Isolation {
            privileged: true,
            ..Isolation::default()
        };
        // Bit 24 is CAP_SYS_RESOURCE.
        let most = bounding(&isolation, 0x1ff_ffff_ffff & !(1 << 24));
        assert_eq!(most.len(), 40);
        assert!(!most.contains("CAP_SYS_RESOURCE"));
    }
}
