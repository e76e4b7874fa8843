//! What a hostile task tries from inside its container, call by call. One static program, run as process of a task; its only
//! argument is the path on the host of a secret. For each attempt it prints a line: name, tab, `held` or `escaped`, tab, what
//! was seen.
//!
//! System calls are made by number: the C library has no wrappers for most of what is tried.

use std::ffi::{CString, c_long};
use std::fs;
use std::path::Path;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// A call by number; the error number when it fails.
fn call(number: c_long, arguments: [usize; 6]) -> Result<c_long, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every caller passes numbers, or pointers to buffers that live during the call and are as large as it needs.
    let answer = unsafe { syscall(number, a, b, c, d, e, f) };
    match answer {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        answer => Ok(answer),
    }
}

fn text(of: &str) -> CString {
    CString::new(of).unwrap_or_default()
}

fn at(of: &CString) -> usize {
    of.as_ptr() as usize
}

/// Calls no task may make: name, number on x86-64, arguments.
fn calls() -> Vec<(&'static str, c_long, [usize; 6])> {
    const NEW: [(&str, usize); 8] = [
        ("unshare users", 0x1000_0000),
        ("unshare mounts", 0x0002_0000),
        ("unshare network", 0x4000_0000),
        ("unshare processes", 0x2000_0000),
        ("unshare IPC", 0x0800_0000),
        ("unshare host name", 0x0400_0000),
        ("unshare cgroups", 0x0200_0000),
        ("unshare time", 0x80),
    ];
    let mut all: Vec<_> = NEW
        .iter()
        .map(|(name, flag)| (*name, 272, [*flag, 0, 0, 0, 0, 0]))
        .collect();
    for (name, flag) in [
        ("clone users", 0x1000_0000_usize),
        ("clone mounts", 0x0002_0000),
        ("clone network", 0x4000_0000),
    ] {
        all.push((name, 56, [flag | 17, 0, 0, 0, 0, 0]));
    }
    all.extend([
        ("clone3", 435, [0, 88, 0, 0, 0, 0]),
        ("bpf", 321, [0, 0, 0, 0, 0, 0]),
        ("keyctl: session keyring", 250, [0, 0xffff_fffd, 0, 0, 0, 0]),
        ("keyctl: join a session", 250, [1, 0, 0, 0, 0, 0]),
        ("add_key", 248, [0, 0, 0, 0, 0, 0]),
        ("request_key", 249, [0, 0, 0, 0, 0, 0]),
        ("perf_event_open", 298, [0, 0, 0, 0, 0, 0]),
        ("userfaultfd", 323, [0, 0, 0, 0, 0, 0]),
        ("userfaultfd, of users", 323, [1, 0, 0, 0, 0, 0]),
        ("io_uring_setup", 425, [1, 0, 0, 0, 0, 0]),
        ("kexec_load", 246, [0, 0, 0, 0, 0, 0]),
        ("kexec_file_load", 320, [0, 0, 0, 0, 0, 0]),
        ("init_module", 175, [0, 0, 0, 0, 0, 0]),
        ("finit_module", 313, [0, 0, 0, 0, 0, 0]),
        ("delete_module", 176, [0, 0, 0, 0, 0, 0]),
        ("iopl", 172, [3, 0, 0, 0, 0, 0]),
        ("ioperm", 173, [0x70, 2, 1, 0, 0, 0]),
        ("swapon", 167, [0, 0, 0, 0, 0, 0]),
        ("swapoff", 168, [0, 0, 0, 0, 0, 0]),
        (
            "reboot, only arming",
            169,
            [0xfee1_dead, 672_274_793, 0, 0, 0, 0],
        ),
        ("ioctl: a subvolume", 16, [0, 0x5000_940e, 0, 0, 0, 0]),
        ("ioctl: a subvolume, newer", 16, [0, 0x5000_9418, 0, 0, 0, 0]),
        ("ioctl: a snapshot", 16, [0, 0x5000_9401, 0, 0, 0, 0]),
        ("ioctl: a snapshot, newer", 16, [0, 0x5000_9417, 0, 0, 0, 0]),
        (
            "ioctl: a subvolume, high bits",
            16,
            [0, 0x1_5000_940e, 0, 0, 0, 0],
        ),
        ("acct", 163, [0, 0, 0, 0, 0, 0]),
        ("quotactl", 179, [0, 0, 0, 0, 0, 0]),
        ("syslog: read the kernel's log", 103, [3, 0, 0, 0, 0, 0]),
        ("syslog: size", 103, [10, 0, 0, 0, 0, 0]),
        ("fsopen", 430, [0, 0, 0, 0, 0, 0]),
        ("fanotify_init", 300, [0, 0, 0, 0, 0, 0]),
        ("open_by_handle_at", 304, [0, 0, 0, 0, 0, 0]),
        ("lookup_dcookie", 212, [0, 0, 0, 0, 0, 0]),
        ("setns", 308, [0, 0, 0, 0, 0, 0]),
        ("vhangup", 153, [0; 6]),
        ("settimeofday", 164, [0; 6]),
        ("nfsservctl", 180, [0; 6]),
        ("uselib", 134, [0; 6]),
        ("migrate_pages", 256, [0; 6]),
        ("move_pages", 279, [1_000_000, 1, 0, 0, 0, 0]),
        ("socket of VSOCK", 41, [40, 1, 0, 0, 0, 0]),
        ("socket of ALG", 41, [38, 5, 0, 0, 0, 0]),
        ("socket of KEY", 41, [15, 3, 2, 0, 0, 0]),
        ("socket of BLUETOOTH", 41, [31, 3, 0, 0, 0, 0]),
        ("socket of TIPC", 41, [30, 1, 0, 0, 0, 0]),
        ("socket of RDS", 41, [21, 5, 0, 0, 0, 0]),
        ("raw socket", 41, [2, 3, 1, 0, 0, 0]),
        ("raw IPv6 socket", 41, [10, 3, 58, 0, 0, 0]),
        ("packet socket", 41, [17, 3, 0, 0, 0, 0]),
    ]);
    all
}

/// Calls with texts: mounts and nodes.
fn calls_with_texts(secret: &str) -> Vec<(String, Result<c_long, i32>)> {
    let mut all = Vec::new();
    fs::create_dir_all("/tmp/at").ok();
    let target = text("/tmp/at");
    for (kind, source) in [
        ("proc", "proc"),
        ("sysfs", "sysfs"),
        ("tmpfs", "none"),
        ("devtmpfs", "none"),
        ("cgroup", "none"),
        ("cgroup2", "none"),
        ("debugfs", "none"),
        ("tracefs", "none"),
        ("securityfs", "none"),
        ("bpf", "none"),
        ("ext4", "/dev/sda"),
        ("ext4", "/dev/vda"),
        ("overlay", "overlay"),
        ("binfmt_misc", "none"),
        ("fuse", "none"),
        ("mqueue", "none"),
    ] {
        let (kind_text, source_text, data) = (
            text(kind),
            text(source),
            text("lowerdir=/,upperdir=/tmp,workdir=/tmp"),
        );
        let done = call(
            165,
            [
                at(&source_text),
                at(&target),
                at(&kind_text),
                0,
                at(&data),
                0,
            ],
        );
        all.push((format!("mount {kind} of {source}"), done));
    }
    for (name, flags) in [
        ("bind", 4096),
        ("bind, all", 4096 | 16384),
        ("remount of / writable", 32),
        ("move", 8192),
        ("make / shared", 1 << 20),
    ] {
        let root = text("/");
        let onto = match name {
            "remount of / writable" | "make / shared" => &root,
            _ => &target,
        };
        all.push((
            format!("mount: {name}"),
            call(165, [at(&root), at(onto), 0, flags, 0, 0]),
        ));
    }
    for path in [
        "/proc",
        "/proc/kcore",
        "/proc/sys",
        "/sys",
        "/dev",
        "/dev/.portlayer/init",
        "/",
    ] {
        let path_text = text(path);
        all.push((
            format!("umount {path}"),
            call(166, [at(&path_text), 2, 0, 0, 0, 0]),
        ));
    }
    let root = text("/");
    all.push((
        "pivot_root".to_owned(),
        call(155, [at(&root), at(&root), 0, 0, 0, 0]),
    ));
    all.push((
        "open_tree, a clone".to_owned(),
        call(428, [usize::MAX - 99, at(&root), 1, 0, 0, 0]),
    ));
    all.push((
        "move_mount".to_owned(),
        call(
            429,
            [
                usize::MAX - 99,
                at(&root),
                usize::MAX - 99,
                at(&target),
                0,
                0,
            ],
        ),
    ));
    all.push((
        "mount_setattr".to_owned(),
        call(442, [usize::MAX - 99, at(&root), 0, at(&root), 32, 0]),
    ));
    for (name, mode, device) in [
        ("memory", 0o020_666_usize, (1 << 8) | 1),
        ("kernel log", 0o020_666, (1 << 8) | 11),
        ("first disk", 0o060_666, 8 << 8),
        ("first virtual disk", 0o060_666, 254 << 8),
        ("loop", 0o060_666, 7 << 8),
        ("fuse", 0o020_666, (10 << 8) | 229),
        ("kvm", 0o020_666, (10 << 8) | 232),
        ("null", 0o020_666, (1 << 8) | 3),
    ] {
        let node = text(&format!("/tmp/node-{device}"));
        let made = call(133, [at(&node), mode, device, 0, 0, 0]);
        // Made is not yet opened: the cgroup may deny that.
        let made = made.and_then(|_| call(2, [at(&node), 2, 0, 0, 0, 0]));
        all.push((format!("mknod: {name}"), made));
    }
    let secret = text(secret);
    let mut handle = [0_u32; 40];
    handle[0] = 128;
    let mut id = 0_i32;
    let named = call(
        303,
        [
            usize::MAX - 99,
            at(&secret),
            handle.as_mut_ptr() as usize,
            (&raw mut id) as usize,
            0,
            0,
        ],
    );
    all.push(("a handle of the secret".to_owned(), named));
    all
}

/// Files whose writing reaches the host.
const WRITES: [(&str, &str); 26] = [
    ("/proc/sys/kernel/core_pattern", "|/tmp/pl-escape"),
    ("/proc/sys/kernel/modprobe", "/tmp/pl-escape"),
    ("/proc/sys/kernel/hotplug", "/tmp/pl-escape"),
    ("/proc/sys/kernel/poweroff_cmd", "/tmp/pl-escape"),
    ("/proc/sys/kernel/randomize_va_space", "0"),
    ("/proc/sys/kernel/sysrq", "511"),
    ("/proc/sys/kernel/hostname", "pl-escape"),
    ("/proc/sys/kernel/pid_max", "400"),
    ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/x:"),
    ("/proc/sys/fs/suid_dumpable", "2"),
    ("/proc/sys/vm/drop_caches", "1"),
    ("/proc/sys/vm/overcommit_memory", "2"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/core/bpf_jit_enable", "0"),
    ("/proc/sysrq-trigger", "h"),
    ("/proc/irq/default_smp_affinity", "1"),
    ("/proc/self/oom_score_adj", "-1000"),
    ("/proc/1/oom_score_adj", "-1000"),
    ("/proc/self/timerslack_ns/x", "0"),
    ("/sys/kernel/uevent_helper", "/tmp/pl-escape"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    ("/sys/power/state", "mem"),
    ("/sys/fs/cgroup/release_agent", "/tmp/pl-escape"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"),
    ("/sys/fs/cgroup/pids/pids.max", "max"),
    ("/sys/fs/cgroup/devices/devices.allow", "a"),
];

/// Files whose reading tells about the host.
const READS: [&str; 15] = [
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/interrupts",
    "/proc/acpi/wakeup",
    "/proc/scsi/scsi",
    "/proc/latency_stats",
    "/sys/firmware/dmi/tables/DMI",
    "/sys/kernel/debug/sched_features",
    "/sys/kernel/security/lsm",
    "/dev/kmsg",
    "/dev/mem",
    "/dev/port",
];

fn tell(name: &str, escaped: Option<String>, seen: &str) {
    match escaped {
        Some(how) => println!("{name}\tescaped\t{how}"),
        None => println!("{name}\theld\t{seen}"),
    }
}

fn main() {
    let secret = std::env::args().nth(1).unwrap_or_default();
    for (name, number, arguments) in calls() {
        let done = call(number, arguments);
        // A clone that worked has two of us: the child ends.
        if number == 56 && done == Ok(0) {
            std::process::exit(0);
        }
        // Wrong arguments may be refused as that only by a call that is let through.
        let let_through = match done {
            Ok(_) => true,
            Err(errno) => !matches!(errno, 1 | 13 | 38 | 97 | 93 | 94),
        };
        let escaped = let_through.then(|| format!("answered {done:?}"));
        tell(&format!("call: {name}"), escaped, &format!("{done:?}"));
    }
    for (name, done) in calls_with_texts(&secret) {
        let escaped = done.is_ok().then(|| "it worked".to_owned());
        tell(&format!("call: {name}"), escaped, &format!("{done:?}"));
    }
    for (path, value) in WRITES {
        let written = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| {
                use std::io::Write;
                file.write_all(value.as_bytes())
            });
        let escaped = written.is_ok().then(|| "it was written".to_owned());
        tell(&format!("write {path}"), escaped, &format!("{written:?}"));
    }
    for path in READS {
        let mut byte = [0_u8; 16];
        let read =
            fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut byte));
        // Masked files are empty.
        let escaped = matches!(read, Ok(n) if n > 0).then(|| format!("it says {byte:?}"));
        tell(&format!("read {path}"), escaped, &format!("{read:?}"));
    }
    cgroups();
    processes();
    descriptors(&secret);
    ways_up(&secret);
    users();
    fill();
}

/// Release agents and foreign cgroups (CVE-2022-0492).
fn cgroups() {
    let mut escaped = None;
    for controller in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        for file in [
            "release_agent",
            "notify_on_release",
            "cgroup.procs",
            "tasks",
            "cgroup.clone_children",
        ] {
            let path = controller.path().join(file);
            if fs::OpenOptions::new().write(true).open(&path).is_ok() {
                escaped = Some(format!("{} can be written", path.display()));
            }
        }
        if fs::create_dir(controller.path().join("mine")).is_ok() {
            escaped = Some(format!("a cgroup made in {}", controller.path().display()));
        }
    }
    tell("cgroups", escaped, "none can be written");
}

/// Processes outside.
fn processes() {
    let mine = fs::read_link("/proc/self/ns/pid").ok();
    let (mut foreign, mut seen) = (None, 0);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        seen += 1;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        // Of those that are kept from us there is nothing to know.
        if theirs.is_some() && theirs != mine {
            foreign = Some(format!("process {pid} is of another name space"));
        }
    }
    tell(
        "processes of others in /proc",
        foreign,
        &format!("{seen} of our own"),
    );
    let mut reached = Vec::new();
    for pid in 100..33_000_usize {
        // Signal 0 only asks; so do the others for nobody.
        for (name, number, arguments) in [
            ("kill", 62, [pid, 0, 0, 0, 0, 0]),
            ("pidfd_open", 434, [pid, 0, 0, 0, 0, 0]),
        ] {
            if call(number, arguments).is_ok() && !Path::new(&format!("/proc/{pid}")).exists() {
                reached.push(format!("{name} {pid}"));
            }
        }
    }
    tell(
        "signals to processes outside",
        (!reached.is_empty()).then(|| format!("{reached:?}")),
        "none",
    );
    let traced = call(101, [16, 1_000_000, 0, 0, 0, 0]);
    tell(
        "ptrace of a process outside",
        traced.is_ok().then(String::new),
        &format!("{traced:?}"),
    );
    let exe = fs::OpenOptions::new().write(true).open("/proc/1/exe");
    tell(
        "writing the program of process 1 (CVE-2019-5736)",
        exe.is_ok().then(|| "it can be".to_owned()),
        &format!("{exe:?}"),
    );
    let exe = fs::OpenOptions::new()
        .write(true)
        .open("/dev/.portlayer/init");
    tell(
        "writing init",
        exe.is_ok().then(|| "it can be".to_owned()),
        &format!("{exe:?}"),
    );
}

/// Descriptors that were left open (CVE-2024-21626).
fn descriptors(secret: &str) {
    for process in ["self", "1"] {
        let (mut leaked, mut count) = (None, 0);
        for entry in fs::read_dir(format!("/proc/{process}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            count += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let is_directory = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir());
            for up in ["", "/..", "/../..", "/../../../../../../.."] {
                if fs::metadata(format!("{}{up}{secret}", entry.path().display())).is_ok() {
                    leaked = Some(format!("{} leads to the host", target.display()));
                }
            }
            let own = target.starts_with("/proc") || fs::metadata(&target).is_ok();
            if is_directory && !own {
                leaked = Some(format!("a directory: {}", target.display()));
            }
        }
        tell(
            &format!("descriptors of process {process}"),
            leaked,
            &format!("{count} of them"),
        );
    }
}

/// Ways to the root of the host.
fn ways_up(secret: &str) {
    let mut found = None;
    let mut look = |way: String| {
        if fs::read(&way).is_ok() {
            found = Some(way);
        }
    };
    look(secret.to_owned());
    for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for link in ["root", "cwd"] {
            for up in ["", "/..", "/../../.."] {
                look(format!("{}/{link}{up}{secret}", pid.path().display()));
            }
        }
    }
    tell("ways to the secret", found.take(), "none");
    // The old way out of chroot: keep a directory, change the root below it, climb.
    let (below, dots) = (text("/tmp/at"), text(".."));
    let changed = call(161, [at(&below), 0, 0, 0, 0, 0]);
    for _ in 0..64 {
        let _ = call(80, [at(&dots), 0, 0, 0, 0, 0]);
    }
    let here = text(".");
    let _ = call(161, [at(&here), 0, 0, 0, 0, 0]);
    let escaped = fs::read(secret)
        .is_ok()
        .then(|| "the secret was read".to_owned());
    tell("chroot and climb", escaped, &format!("chroot {changed:?}"));
}

/// Ids outside the range.
fn users() {
    let mut escaped = None;
    for id in [65_536_usize, 268_435_456, 4_294_967_294] {
        for (name, number) in [("setuid", 105), ("setgid", 106), ("setfsuid", 122)] {
            let done = call(number, [id, 0, 0, 0, 0, 0]);
            if done.is_ok() && number != 122 {
                escaped = Some(format!("{name} {id}"));
            }
        }
        let path = text("/tmp/at");
        if call(92, [at(&path), id, id, 0, 0, 0]).is_ok() {
            escaped = Some(format!("chown to {id}"));
        }
    }
    tell("ids outside the range", escaped, "none was taken");
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first = map
        .split_whitespace()
        .nth(1)
        .and_then(|id| id.parse::<u64>().ok());
    let escaped = (first == Some(0)).then(|| "root is the host's root".to_owned());
    tell("who root is", escaped, map.trim());
    for file in [
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/self/setgroups",
    ] {
        let written = fs::write(file, "0 0 1\n");
        tell(
            &format!("write {file}"),
            written.is_ok().then(|| "it was written".to_owned()),
            &format!("{written:?}"),
        );
    }
}

/// Places in memory that could be filled: all must be bounded.
fn fill() {
    for directory in ["/dev", "/dev/shm", "/run", "/dev/.portlayer"] {
        let path = format!("{directory}/filler");
        let mut written = 0_u64;
        if let Ok(mut file) = fs::File::create(&path) {
            let piece = vec![1_u8; 1 << 20];
            while written < 300 << 20 && std::io::Write::write_all(&mut file, &piece).is_ok() {
                written += 1 << 20;
            }
        }
        fs::remove_file(&path).ok();
        let is_memory = fs::read_to_string("/proc/mounts").is_ok_and(|mounts| {
            mounts
                .lines()
                .any(|line| line.split(' ').nth(1) == Some(directory) && line.contains(" tmpfs "))
        });
        let escaped = (is_memory && written >= 300 << 20).then(|| "300 MiB of memory".to_owned());
        tell(
            &format!("fill {directory}"),
            escaped,
            &format!("{} MiB", written >> 20),
        );
    }
}
