//! The seccomp filter of an executor: an allow-list, from the versioned data file beside this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::task::Isolation;

/// The version of the list; the first line of the file names the same.
pub(crate) const VERSION: u32 = 2;
const LIST: &str = include_str!("syscalls.txt");

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `CLONE_NEW*` but NEWTIME, which `clone` does not take (sched.h): a task makes no namespaces, and so has no user namespace
/// in which it would have every capability.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains that are harmless: Linux, 32-bit Linux, both with UNAME26, and the question which one it is. Others
/// switch off address randomisation or page protections.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// UNIX, INET, INET6, NETLINK, PACKET (which needs CAP_NET_RAW as well). The others are rarely used and often broken kernel
/// code (ALG, VSOCK, RDS, TIPC, ...); VSOCK reaches past every network namespace.
const FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];

/// The byte of an `ioctl`'s number that says whose it is, and btrfs's. Everybody may make subvolumes of a btrfs, and they would be in
/// no quota group of ours (`pool.rs` of the runtime).
const IOCTL_OF: u64 = 0xff00;
const BTRFS: u64 = 0x9400;
/// Numbers among those of btrfs that are of all file systems: FICLONE, FICLONERANGE, FIDEDUPERANGE.
const SHARING: [u64; 3] = [0x9409, 0x940d, 0x9436];

/// The sections of the file.
#[derive(Debug, Default)]
struct List {
    always: BTreeSet<&'static str>,
    by_architecture: BTreeMap<&'static str, BTreeSet<&'static str>>,
    by_capability: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

static PARSED: LazyLock<List> = LazyLock::new(|| parse(LIST));

fn parse(text: &'static str) -> List {
    let mut list = List::default();
    let mut section = "";
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            continue;
        }
        let names = match section.split_once(' ') {
            Some(("architecture", name)) => list.by_architecture.entry(name).or_default(),
            Some(("capability", name)) => list.by_capability.entry(name).or_default(),
            _ => &mut list.always,
        };
        names.extend(line.split_ascii_whitespace());
    }
    list
}

/// Names of the calls that are allowed whatever their arguments, sorted.
pub(crate) fn allowed(bounding: &BTreeSet<&str>) -> BTreeSet<&'static str> {
    let list = &*PARSED;
    let own = list.by_architecture.get(std::env::consts::ARCH);
    let held = bounding
        .iter()
        .filter_map(|name| list.by_capability.get(name));
    own.into_iter()
        .chain(held)
        .chain([&list.always])
        .flatten()
        .copied()
        .collect()
}

/// The filter of a container whose processes can have these capabilities at most.
pub(crate) fn filter(isolation: &Isolation, bounding: &BTreeSet<&str>) -> Value {
    let names = allowed(bounding);
    let mut calls = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    for (name, values) in [("personality", PERSONALITIES), ("socket", FAMILIES)] {
        // Rules of one call are alternatives.
        calls.extend(values.map(|value| {
            json!({ "names": [name], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
        }));
    }
    // There is no rule for "not equal by mask": of whatever is not btrfs's, one of the eight bits is another.
    let others = (8..16)
        .map(|bit| 1u64 << bit)
        .map(|bit| (bit, !BTRFS & bit));
    let shared = SHARING.map(|number| (IOCTL_OF | 0xff, number));
    calls.extend(others.chain(shared).map(|(mask, value)| {
        json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }] })
    }));
    if !names.contains("clone") {
        // The order of clone's arguments is another one on s390.
        let index = u32::from(std::env::consts::ARCH == "s390x");
        calls.push(json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": index, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] }));
        // Its flags are behind a pointer no filter sees; the C library falls back to clone when there is no clone3.
        calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(isolation),
        "syscalls": calls,
    })
}

/// Instruction sets whose calls are filtered; the first call of any other ends its thread. Never x32: no distribution's kernel
/// runs it, and building the filter for it costs as much as for the others.
pub(crate) fn architectures(isolation: &Isolation) -> &'static [&'static str] {
    let (all, own): (&[_], _) = match std::env::consts::ARCH {
        "x86_64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], 1),
        "aarch64" => (&["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"], 1),
        "riscv64" => (&["SCMP_ARCH_RISCV64"], 1),
        "s390x" => (&["SCMP_ARCH_S390X", "SCMP_ARCH_S390"], 1),
        // An empty list is the machine's own.
        _ => (&[], 0),
    };
    match isolation.compat_programs {
        true => all,
        false => &all[..own],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(filter: &Value, name: &str) -> Vec<Value> {
        let all = filter["syscalls"].as_array().unwrap();
        all.iter()
            .filter(|call| call["names"].as_array().unwrap().contains(&json!(name)))
            .cloned()
            .collect()
    }

    #[test]
    fn the_file_names_its_version_and_sections_are_what_is_known() {
        let first = LIST.lines().next().unwrap();
        assert!(first.ends_with(&format!("version {VERSION}.")), "{first}");
        for name in PARSED.by_capability.keys() {
            assert!(super::super::capabilities::parse(name).is_some(), "{name}");
        }
        assert!(PARSED.always.len() > 300 && PARSED.always.contains("openat2"));
    }

    #[test]
    fn what_reaches_the_kernels_rarely_used_parts_is_not_allowed() {
        let names = allowed(&BTreeSet::new());
        for name in [
            "add_key",
            "bpf",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mount",
            "move_mount",
            "open_by_handle_at",
            "perf_event_open",
            "pivot_root",
            "process_vm_readv",
            "reboot",
            "request_key",
            "setns",
            "socket",
            "socketcall",
            "swapon",
            "syslog",
            "umount2",
            "unshare",
            "userfaultfd",
            "vhangup",
        ] {
            assert!(!names.contains(name), "{name}");
        }
    }

    #[test]
    fn calls_with_rules_about_arguments() {
        let isolation = Isolation::default();
        let plain = filter(&isolation, &BTreeSet::new());
        assert_eq!(calls(&plain, "socket").len(), FAMILIES.len());
        assert_eq!(calls(&plain, "personality").len(), PERSONALITIES.len());
        assert_eq!(
            calls(&plain, "clone")[0]["args"][0]["value"],
            NEW_NAMESPACES
        );
        assert_eq!(calls(&plain, "clone3")[0]["errnoRet"], ENOSYS);
        let admin = filter(&isolation, &BTreeSet::from(["CAP_SYS_ADMIN"]));
        assert_eq!(calls(&admin, "clone").len(), 1);
        assert!(calls(&admin, "clone")[0].get("args").is_none());
        assert_eq!(calls(&admin, "mount").len(), 1);
    }

    #[test]
    fn of_the_ioctls_of_btrfs_only_those_of_all_file_systems_are_allowed() {
        let filter = filter(&Isolation::default(), &BTreeSet::new());
        let rules = calls(&filter, "ioctl");
        let allowed = |number: u64| {
            rules.iter().any(|rule| {
                let of = |key: &str| rule["args"][0][key].as_u64().unwrap();
                number & of("value") == of("valueTwo")
            })
        };
        // TCGETS, FIONREAD, SIOCGIFCONF, FS_IOC_GETFLAGS, LOOP_SET_FD, FICLONE, FICLONERANGE, FIDEDUPERANGE.
        for number in [
            0x5401,
            0x541b,
            0x8912,
            0x8008_6601,
            0x4c00,
            0x4004_9409,
            0x4020_940d,
            0xc018_9436,
        ] {
            assert!(allowed(number), "{number:#x}");
        }
        // BTRFS_IOC_SUBVOL_CREATE, _V2, SNAP_CREATE, _V2, QUOTA_CTL, and with bits no kernel looks at.
        for number in [
            0x5000_940e,
            0x5000_9418,
            0x5000_9401,
            0x5000_9417,
            0xc010_9428,
            0xff_5000_940e,
        ] {
            assert!(!allowed(number), "{number:#x}");
        }
        assert!(!super::allowed(&BTreeSet::new()).contains("ioctl"));
    }

    #[test]
    fn other_instruction_sets_are_asked_for() {
        let with = |compat_programs| {
            let isolation = Isolation {
                compat_programs,
                ..Isolation::default()
            };
            architectures(&isolation)
        };
        assert!(with(false).len() <= 1);
        assert!(with(true).starts_with(with(false)));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(with(true), ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    }
}
