//! Limits this node may give. Without CAP_SYS_RESOURCE (a node inside a container) the kernel lets nobody raise a hard
//! limit, and runc then refuses the whole process; the port layer's default for open files may be more than we have.

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{PosixRlimitBuilder, PosixRlimitType, Process};

/// Bit of CAP_SYS_RESOURCE in `CapEff` (linux/capability.h).
const CAP_SYS_RESOURCE: u32 = 24;

/// Lowers the limit of open files to ours where we may not raise it.
pub(crate) fn fit(process: &mut Process) {
    if may_raise() {
        return;
    }
    let (Ok((_, ours)), Some(mut limits)) = (
        getrlimit(Resource::RLIMIT_NOFILE),
        process.rlimits().clone(),
    ) else {
        return;
    };
    for limit in &mut limits {
        if limit.typ() == PosixRlimitType::RlimitNofile {
            let fitting = PosixRlimitBuilder::default()
                .typ(limit.typ())
                .soft(limit.soft().min(ours))
                .hard(limit.hard().min(ours))
                .build();
            *limit = fitting.expect("all three fields are set");
        }
    }
    process.set_rlimits(Some(limits));
}

fn may_raise() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits & (1 << CAP_SYS_RESOURCE) != 0)
}
