//! The rules of every field of a spec, each error with the path of the field.
//!
//! Checked before anything else is looked at, so that what could never work (a NUL in an argument, a relative
//! working directory) is refused here and not by the kernel half-way through a commit.

use crate::element::{ElementId, ImageSpec, Kind, Spec, VolumeSpec};
use crate::error::CreateError;
use crate::log::LogSpec;
use crate::network::NetworkSpec;
use crate::task::{
    ExecutorSpec, Isolation, Limits, LogChoice, RestartPolicy, Rlimit, StopSpec, TaskSpec,
};

/// A refused field: its path into the spec and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// Path, `limits.memory_bytes` or `env[3].name`.
    pub(crate) field: String,
    /// The rule.
    pub(crate) rule: String,
}

impl FieldError {
    pub(super) fn of(self, id: &ElementId) -> CreateError {
        CreateError::InvalidField {
            id: id.clone(),
            field: self.field,
            rule: self.rule,
        }
    }
}

type Checked = Result<(), FieldError>;

fn refuse(field: impl Into<String>, rule: impl Into<String>) -> Checked {
    Err(FieldError {
        field: field.into(),
        rule: rule.into(),
    })
}

/// The longest single string execve takes (MAX_ARG_STRLEN, 32 pages).
const MAX_STRING_BYTES: usize = 128 * 1024;
/// Arguments and environment together; execve refuses more than a quarter of the stack limit (2 MiB of 8 MiB).
const MAX_STRINGS_BYTES: usize = 2 * 1024 * 1024 - 128 * 1024;
/// PATH_MAX without its NUL.
const MAX_PATH_BYTES: usize = 4095;
/// The largest user or group id; higher ones are negative in the engine's arithmetic (CVE-2024-40635).
const MAX_UID: u32 = i32::MAX as u32;
/// The longest deadline: ten years, so that no clock arithmetic overflows.
const MAX_DEADLINE_MS: u64 = 10 * 366 * 24 * 3600 * 1000;
/// The longest grace of a stop: a day.
const MAX_GRACE_MS: u64 = 24 * 3600 * 1000;
/// The longest wait before a restart: a minute.
const MAX_BACKOFF_MS: u64 = 60 * 1000;
/// The least memory a container starts in; the limit docker and runc agree on.
/// Smaller, and a file system's own tables leave nothing.
const MIN_DISK_BYTES: u64 = 4 << 20;
const MIN_MEMORY_BYTES: u64 = 6 * 1024 * 1024;
/// pid_max on 64-bit kernels.
const MAX_PIDS: u32 = 4_194_304;

const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
];

/// Checks a spec by itself, without looking at anything else.
pub(crate) fn check(id: &ElementId, spec: &Spec) -> Checked {
    match spec {
        Spec::Image(image) => check_image(image),
        Spec::Volume(volume) => check_volume(volume),
        Spec::Task(task) => check_task(task),
        Spec::Executor(executor) => check_executor(executor),
        Spec::Network(settings) => {
            if id.name().contains('/') {
                return refuse("id", "the name of a network has no slash");
            }
            let read = NetworkSpec::of_settings(id.name(), settings);
            read.map(drop)
                .or_else(|error| refuse(error.field, error.rule))
        }
        Spec::Log(settings) => {
            let read = LogSpec::of_settings(settings);
            read.map(drop)
                .or_else(|error| refuse(error.field, error.rule))
        }
    }
}

fn check_image(spec: &ImageSpec) -> Checked {
    check_bytes("freespace_bytes", spec.freespace_bytes)
}

fn check_volume(spec: &VolumeSpec) -> Checked {
    check_bytes("freespace_bytes", spec.freespace_bytes)?;
    check_bytes("size_bytes", spec.size_bytes)?;
    if spec.size_bytes > 0 && spec.freespace_bytes > spec.size_bytes {
        return refuse("freespace_bytes", "more than size_bytes can never be free");
    }
    check_id("uid", spec.uid)?;
    check_id("gid", spec.gid)?;
    match spec.mode {
        Some(mode) if mode > 0o1777 => {
            refuse("mode", "permission bits are at most 01777 (no set-id bits)")
        }
        _ => Ok(()),
    }
}

/// File sizes are signed 64-bit numbers in the kernel.
fn check_bytes(field: &str, bytes: u64) -> Checked {
    if i64::try_from(bytes).is_err() {
        return refuse(field, "at most 9223372036854775807 bytes");
    }
    Ok(())
}

fn check_id(field: impl Into<String>, id: u32) -> Checked {
    if id > MAX_UID {
        return refuse(field, "an id is at most 2147483647");
    }
    Ok(())
}

/// Checks the fields of a task as its caller wrote them.
pub(crate) fn check_task(task: &TaskSpec) -> Checked {
    let mut bytes = 0;
    for (at, arg) in task.argv.iter().enumerate() {
        check_string(format!("argv[{at}]"), arg)?;
        bytes += arg.len() + 1;
    }
    if task.argv.first().is_some_and(String::is_empty) {
        return refuse("argv[0]", "the program is empty");
    }
    for (at, (name, value)) in task.env.iter().enumerate() {
        check_variable(&format!("env[{at}]"), name, value)?;
        bytes += name.len() + value.len() + 2;
    }
    for (at, secret) in task.secrets.iter().enumerate() {
        check_variable(&format!("secrets[{at}]"), &secret.name, &secret.value)?;
        bytes += secret.name.len() + secret.value.len() + 2;
    }
    if bytes > MAX_STRINGS_BYTES {
        return refuse(
            "argv",
            "arguments and environment together are longer than 1966080 bytes",
        );
    }
    if let Some(cwd) = &task.cwd {
        check_cwd("cwd", cwd)?;
    }
    if let Some(user) = &task.user {
        check_user("user", user)?;
    }
    for (at, gid) in task.extra_gids.iter().enumerate() {
        check_id(format!("extra_gids[{at}]"), *gid)?;
    }
    check_log("stdout", &task.stdout)?;
    check_log("stderr", &task.stderr)?;
    check_rlimits(&task.rlimits)?;
    if let Some(deadline) = task.deadline_ms {
        check_deadline("deadline_ms", deadline)?;
    }
    check_stop("stop", &task.stop)?;
    check_restart("restart", &task.restart)
}

fn check_string(field: String, text: &str) -> Checked {
    if text.contains('\0') {
        return refuse(field, "a NUL is not allowed");
    }
    if text.len() >= MAX_STRING_BYTES {
        return refuse(field, "longer than 131071 bytes");
    }
    Ok(())
}

fn check_variable(field: &str, name: &str, value: &str) -> Checked {
    let name_field = format!("{field}.name");
    if name.is_empty() {
        return refuse(name_field, "the name of a variable is empty");
    }
    if name.contains('=') {
        return refuse(name_field, "the name of a variable holds '='");
    }
    check_string(name_field, name)?;
    check_string(format!("{field}.value"), value)?;
    if name.len() + value.len() + 2 > MAX_STRING_BYTES {
        return refuse(
            format!("{field}.value"),
            "longer than 131071 bytes with its name",
        );
    }
    Ok(())
}

/// A working directory: absolute, no NUL, no `..`, not below `/proc` (CVE-2024-21626 got out through
/// `/proc/self/fd`).
pub(crate) fn check_cwd(field: &str, cwd: &str) -> Checked {
    if !cwd.starts_with('/') {
        return refuse(field, "not an absolute path");
    }
    if cwd.contains('\0') {
        return refuse(field, "a NUL is not allowed");
    }
    if cwd.len() > MAX_PATH_BYTES {
        return refuse(field, "longer than 4095 bytes");
    }
    let mut parts = cwd.split('/').filter(|part| !matches!(*part, "" | "."));
    if parts.clone().any(|part| part == "..") {
        return refuse(field, "'..' is not allowed");
    }
    if parts.next() == Some("proc") {
        return refuse(field, "a directory in /proc is not allowed");
    }
    Ok(())
}

/// A user text: `name`, `uid`, `uid:gid` or `name:group`.
pub(crate) fn check_user(field: &str, user: &str) -> Checked {
    let mut parts = user.split(':');
    let (name, group) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return refuse(field, "more than one ':'");
    }
    for part in [Some(name), group].into_iter().flatten() {
        if part.is_empty() {
            return refuse(field, "a user or group is empty");
        }
        if part.len() > 256 {
            return refuse(field, "a user or group is longer than 256 bytes");
        }
        if part
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '/')
        {
            return refuse(
                field,
                "a user or group holds a space, a slash or a control character",
            );
        }
        if part.starts_with(['-', '+']) {
            return refuse(field, "a user or group begins with a sign");
        }
        if part.bytes().all(|c| c.is_ascii_digit())
            && part.parse().is_ok_and(|id: u32| id <= MAX_UID)
        {
            continue;
        }
        if part.bytes().all(|c| c.is_ascii_digit()) {
            return refuse(field, "an id is at most 2147483647");
        }
    }
    Ok(())
}

fn check_rlimits(rlimits: &[Rlimit]) -> Checked {
    for (at, limit) in rlimits.iter().enumerate() {
        if !RLIMITS.contains(&limit.name.as_str()) {
            return refuse(
                format!("rlimits[{at}].name"),
                "not a resource limit (lower case, without RLIMIT_)",
            );
        }
        if limit.soft > limit.hard {
            return refuse(format!("rlimits[{at}].soft"), "above the hard limit");
        }
        if rlimits[..at].iter().any(|other| other.name == limit.name) {
            return refuse(format!("rlimits[{at}].name"), "given twice");
        }
    }
    Ok(())
}

/// A destination: a log element, and no contradiction.
pub(crate) fn check_log(field: &str, choice: &LogChoice) -> Checked {
    if choice
        .sink
        .as_ref()
        .is_some_and(|sink| sink.kind() != Kind::Log)
    {
        return refuse(format!("{field}.sink"), "not a log element");
    }
    if choice.discard && choice.sink.is_some() {
        return refuse(format!("{field}.discard"), "a discarded stream has no sink");
    }
    if choice.discard && choice.required {
        return refuse(
            format!("{field}.required"),
            "a discarded stream cannot be required",
        );
    }
    Ok(())
}

/// A deadline in milliseconds.
pub(crate) fn check_deadline(field: &str, deadline_ms: u64) -> Checked {
    match deadline_ms {
        0 => refuse(field, "a deadline is at least 1 millisecond"),
        ms if ms > MAX_DEADLINE_MS => refuse(field, "a deadline is at most ten years"),
        _ => Ok(()),
    }
}

/// A stop signal and grace.
pub(crate) fn check_stop(field: &str, stop: &StopSpec) -> Checked {
    if stop
        .signal
        .is_some_and(|signal| !(1..=64).contains(&signal))
    {
        return refuse(format!("{field}.signal"), "a signal is 1 to 64");
    }
    if stop.grace_ms > MAX_GRACE_MS {
        return refuse(format!("{field}.grace_ms"), "a grace is at most a day");
    }
    Ok(())
}

/// A restart policy.
pub(crate) fn check_restart(field: &str, restart: &RestartPolicy) -> Checked {
    match restart {
        RestartPolicy::Never => Ok(()),
        RestartPolicy::OnFailure { backoff_ms, .. } | RestartPolicy::Always { backoff_ms } => {
            if (1..=MAX_BACKOFF_MS).contains(backoff_ms) {
                Ok(())
            } else {
                refuse(
                    format!("{field}.backoff_ms"),
                    "a first wait is 1 to 60000 milliseconds",
                )
            }
        }
    }
}

/// Checks an executor as its caller wrote it.
pub(crate) fn check_executor(executor: &ExecutorSpec) -> Checked {
    if let Some(hostname) = &executor.hostname {
        check_hostname(hostname)?;
    }
    check_limits("limits", &executor.limits)?;
    check_isolation(&executor.isolation)
}

/// RFC 1123, and the 64 bytes of the kernel's `sethostname`.
fn check_hostname(hostname: &str) -> Checked {
    if hostname.is_empty() || hostname.len() > 64 {
        return refuse("hostname", "a host name is 1 to 64 bytes");
    }
    for label in hostname.split('.') {
        let good = (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !good {
            return refuse(
                "hostname",
                "each part is 1 to 63 of A-Z a-z 0-9 -, not beginning or ending with -",
            );
        }
    }
    Ok(())
}

/// Limits of an executor, in its spec or in a bind.
pub(crate) fn check_limits(field: &str, limits: &Limits) -> Checked {
    if let Some(memory) = limits.memory_bytes {
        if memory < MIN_MEMORY_BYTES {
            return refuse(
                format!("{field}.memory_bytes"),
                "at least 6291456 bytes (6 MiB)",
            );
        }
        check_bytes(&format!("{field}.memory_bytes"), memory)?;
    }
    if let Some(swap) = limits.memory_swap_bytes {
        let name = format!("{field}.memory_swap_bytes");
        match limits.memory_bytes {
            None => return refuse(name, "needs memory_bytes"),
            Some(memory) if swap < memory => return refuse(name, "below memory_bytes"),
            Some(_) => check_bytes(&name, swap)?,
        }
    }
    if limits
        .cpu_shares
        .is_some_and(|shares| !(2..=262_144).contains(&shares))
    {
        return refuse(format!("{field}.cpu_shares"), "shares are 2 to 262144");
    }
    // The kernel refuses quotas below a millisecond.
    if limits.cpu_quota_us.is_some_and(|quota| quota < 1000) {
        return refuse(
            format!("{field}.cpu_quota_us"),
            "at least 1000 microseconds",
        );
    }
    if limits
        .pids
        .is_some_and(|pids| !(1..=MAX_PIDS).contains(&pids))
    {
        return refuse(format!("{field}.pids"), "1 to 4194304");
    }
    if let Some(disk) = limits.disk_bytes {
        let name = format!("{field}.disk_bytes");
        if disk < MIN_DISK_BYTES {
            return refuse(name, "at least 4194304 bytes (4 MiB)");
        }
        check_bytes(&name, disk)?;
    }
    if let Some(inodes) = limits.disk_inodes {
        let name = format!("{field}.disk_inodes");
        if limits.disk_bytes.is_none() {
            return refuse(name, "needs disk_bytes");
        }
        if !(1..=u64::from(u32::MAX)).contains(&inodes) {
            return refuse(name, "1 to 4294967295");
        }
    }
    Ok(())
}

fn check_isolation(isolation: &Isolation) -> Checked {
    let lists = [
        ("add_capabilities", &isolation.add_capabilities),
        ("drop_capabilities", &isolation.drop_capabilities),
    ];
    for (name, list) in lists {
        for (at, capability) in list.iter().enumerate() {
            if !CAPABILITIES.contains(&capability.as_str()) {
                return refuse(
                    format!("isolation.{name}[{at}]"),
                    "not a capability (CAP_ and upper case)",
                );
            }
        }
    }
    for (at, capability) in isolation.drop_capabilities.iter().enumerate() {
        if isolation.add_capabilities.contains(capability) {
            return refuse(
                format!("isolation.drop_capabilities[{at}]"),
                "added and dropped",
            );
        }
    }
    Ok(())
}
