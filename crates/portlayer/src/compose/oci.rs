//! The OCI documents of an executor and of a task, built field by field. Pure.
//!
//! They are written as JSON values, as the OCI specification prints them, and only then given their types: the
//! library's builders fill what is left out with defaults of their own (a shell, capabilities, mounts), which must
//! never reach a container. Tests check that no field is lost on the way.
//!
//! What belongs to the runtime crate is left out: cgroup path, init, numeric user, volume mounts. There are no hooks: they
//! would run as root on the host. docs/security.md has every row of the profile with its reason.

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use super::node::Host;
use super::validate::{EffectiveTask, Resolved};
use super::{capabilities, seccomp};
use crate::element::ElementId;
use crate::runtime::IdRange;
use crate::store::Access;
use crate::task::{Isolation, Limits};

/// The release of the specification the documents follow: what the oldest supported OCI runtime knows.
const VERSION: &str = "1.0.2";
/// Processes and threads of an executor that asks for nothing else.
const DEFAULT_PIDS: u32 = 1024;
/// Open files of a process that asks for nothing else, soft and hard: the kernel's own and systemd's.
const DEFAULT_NOFILE: (u64, u64) = (1024, 524_288);
/// Period of the CPU quota, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's lists: places of procfs and sysfs that tell about or reach into the host.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Who may use ICMP echo sockets: every group of the container, so that `ping` works without CAP_NET_RAW.
const PING_GROUPS: &str = "0 65535";

/// The container's document, without process and volume mounts.
pub(crate) fn spec(
    executor: &ElementId,
    resolved: &Resolved,
    host: &Host,
    ids: Option<IdRange>,
) -> Spec {
    let read_only = resolved
        .root
        .as_ref()
        .is_none_or(|root| root.access == Access::ReadOnly);
    let document = json!({
        "ociVersion": VERSION,
        "root": { "path": "rootfs", "readonly": read_only },
        "hostname": hostname(executor, resolved.spec.hostname.as_deref()),
        "mounts": mounts(resolved, ids),
        "linux": linux(resolved, host, ids),
    });
    serde_json::from_value(document)
        .expect("the document follows the specification, as tests of every branch show")
}

/// The document of one process. The user is the runtime's to fill in.
pub(crate) fn process(task: &EffectiveTask, isolation: &Isolation, host: &Host) -> Process {
    let root = runs_as_root(&task.user);
    let sets = capabilities::sets(isolation, host.isolation.capabilities, root);
    let mut document = json!({
        "terminal": task.terminal,
        "user": { "uid": 0, "gid": 0, "additionalGids": task.extra_gids },
        "args": task.argv,
        "env": environment(task),
        "cwd": task.cwd,
        "capabilities": {
            "bounding": sets.bounding,
            "effective": sets.held,
            "permitted": sets.held,
            "inheritable": sets.ambient,
            "ambient": sets.ambient,
        },
        "rlimits": rlimits(task),
        "noNewPrivileges": !isolation.allow_new_privileges && !isolation.privileged,
    });
    if let (Some(profile), false) = (&host.isolation.apparmor, isolation.privileged) {
        document["apparmorProfile"] = json!(profile);
    }
    serde_json::from_value(document)
        .expect("the document follows the specification, as tests of every branch show")
}

fn runs_as_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// The host name that was asked for, else one from the last segment of the executor's name.
pub(crate) fn hostname(executor: &ElementId, given: Option<&str>) -> String {
    if let Some(name) = given {
        return name.to_owned();
    }
    let last = executor.name().rsplit('/').next().unwrap_or_default();
    let kept = last
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let name: String = kept.take(63).collect();
    match name.trim_matches('-') {
        "" => executor.digest_hex()[..12].to_owned(),
        name => name.to_owned(),
    }
}

fn mounts(resolved: &Resolved, ids: Option<IdRange>) -> Value {
    let access = if resolved.spec.isolation.privileged {
        "rw"
    } else {
        "ro"
    };
    let sys = match (ids, resolved.host_network) {
        // A sysfs shows a network name space, and only those who own that one may mount it.
        (Some(_), true) => json!({ "destination": "/sys", "type": "bind", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] }),
        _ => json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access] }),
    };
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
        sys,
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", access] },
    ])
}

fn linux(resolved: &Resolved, host: &Host, ids: Option<IdRange>) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if !resolved.host_network {
        namespaces.push("network");
    }
    // On cgroup v1 the namespace would hide nothing: the mount shows the container's own directories anyway.
    if host.cgroup2 {
        namespaces.push("cgroup");
    }
    if ids.is_some() {
        namespaces.push("user");
    }
    let namespaces: Vec<Value> = namespaces
        .into_iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let privileged = resolved.spec.isolation.privileged;
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": resources(&resolved.spec.limits, privileged, host.cgroup2),
    });
    if let Some(ids) = ids {
        let map = json!([{ "containerID": 0, "hostID": ids.first, "size": ids.count }]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    if !resolved.host_network {
        linux["sysctl"] = json!({ "net.ipv4.ping_group_range": PING_GROUPS });
    }
    if !privileged {
        let isolation = &resolved.spec.isolation;
        let bounding = capabilities::bounding(isolation, host.isolation.capabilities);
        linux["seccomp"] = seccomp::filter(isolation, &bounding);
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    linux
}

fn resources(limits: &Limits, privileged: bool, cgroup2: bool) -> Value {
    let mut resources = json!({
        // The OCI runtime adds the harmless devices (null, zero, random, tty, ...) to a list that denies all.
        "devices": [{ "allow": privileged, "access": "rwm" }],
        "pids": { "limit": limits.pids.unwrap_or(DEFAULT_PIDS) },
    });
    if let Some(memory) = limits.memory_bytes {
        let with_swap = limits.memory_swap_bytes.unwrap_or(memory);
        resources["memory"] = json!({ "limit": memory, "swap": with_swap });
    }
    let mut cpu = serde_json::Map::new();
    match limits.cpu_shares {
        Some(shares) if cgroup2 => {
            resources["unified"] = json!({ "cpu.weight": weight(shares).to_string() });
        }
        Some(shares) => drop(cpu.insert("shares".into(), json!(shares))),
        None => {}
    }
    if let Some(quota) = limits.cpu_quota_us {
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(CPU_PERIOD_US));
    }
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    resources
}

/// Shares of cgroup v1 (2 to 262144) as a weight of v2 (1 to 10000), so that the default of one is the default of the other:
/// 1024 becomes 100. The OCI runtime's own conversion makes it 39, and every executor with shares would get less than its due
/// beside those without. The curve through the three points is runc 1.3's (opencontainers/cgroups#20).
fn weight(shares: u64) -> u64 {
    let log = (shares.max(2) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10000 for every allowed number of shares.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is clamped"
    )]
    let weight = 10f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64;
    weight
}

/// Defaults, then the image, the task, its secrets; a later variable of a name replaces an earlier one. HOME is the
/// runtime's to add: it is the user's in the image.
fn environment(task: &EffectiveTask) -> Vec<String> {
    let mut all = vec![("PATH", PATH)];
    if task.terminal {
        all.push(("TERM", "xterm"));
    }
    all.extend(
        task.env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    all.extend(
        task.secrets
            .iter()
            .map(|secret| (secret.name.as_str(), secret.value.as_str())),
    );
    let last_of =
        |index: usize, name: &str| all[index + 1..].iter().all(|(later, _)| *later != name);
    let kept = all
        .iter()
        .enumerate()
        .filter(|(index, (name, _))| last_of(*index, name));
    kept.map(|(_, (name, value))| format!("{name}={value}"))
        .collect()
}

fn rlimits(task: &EffectiveTask) -> Vec<Value> {
    let limit = |name: &str, soft: u64, hard: u64| json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard });
    let mut limits: Vec<Value> = task
        .rlimits
        .iter()
        .map(|l| limit(&l.name, l.soft, l.hard))
        .collect();
    if task.rlimits.iter().all(|given| given.name != "nofile") {
        limits.push(limit("nofile", DEFAULT_NOFILE.0, DEFAULT_NOFILE.1));
    }
    limits
}
