//! Tasks and executors that ask for what they may not have.

use anyhow::Result;
use portlayer::PortLayer;
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, Kind, NewElement, Spec, VolumeSpec};
use portlayer::store::Access;
use portlayer::task::{ExecutorSpec, Isolation, Limits, Rlimit, TaskSpec};

use super::images::judged;
use super::report::{Must, Report};
use crate::node::{run_in, script};

fn of(argv: &[&str]) -> TaskSpec {
    TaskSpec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        ..TaskSpec::default()
    }
}

/// Arguments, environment, users and working directories.
pub(super) async fn tasks(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let secret = report.sentinels().secret().display().to_string();
    let look = script(&format!(
        "pwd; for up in . .. ../.. ../../.. ../../../../../../../../../../../..; do cat $up{secret} 2>/dev/null; done; env; exit 0"
    ));
    let mut cases: Vec<(String, Must, TaskSpec)> = vec![
        ("no arguments".to_owned(), Must::Contained, of(&[])),
        ("empty program".to_owned(), Must::Contained, of(&[""])),
        (
            "NUL in an argument".to_owned(),
            Must::Refused,
            of(&["/bin/echo", "a\0b"]),
        ),
        (
            "argument of 1 MiB".to_owned(),
            Must::Refused,
            of(&["/bin/echo", &"a".repeat(1 << 20)]),
        ),
        (
            "100,000 arguments".to_owned(),
            Must::Contained,
            of(&vec!["/bin/echo"; 100_000]),
        ),
        (
            "arguments of 8 MiB".to_owned(),
            Must::Refused,
            of(&vec!["a".repeat(100_000).as_str(); 80]),
        ),
        // Init without a program stays until it is killed, as it is to: these have one.
        (
            "program is ourselves".to_owned(),
            Must::Contained,
            of(&["/proc/self/exe", "--", "/bin/true"]),
        ),
        (
            "program is a descriptor".to_owned(),
            Must::Contained,
            of(&["/proc/self/fd/6"]),
        ),
        (
            "program is init".to_owned(),
            Must::Contained,
            of(&["/dev/.portlayer/init", "--", "/bin/true"]),
        ),
        (
            "program is a directory".to_owned(),
            Must::Contained,
            of(&["/"]),
        ),
        (
            "program climbs".to_owned(),
            Must::Contained,
            of(&["../../../../../../bin/busybox", "id"]),
        ),
    ];
    for (name, value) in [
        ("LD_PRELOAD", "/tmp/evil.so"),
        ("LD_AUDIT", "/tmp/evil.so"),
        ("A", "1\nLD_PRELOAD=/tmp/evil.so"),
        ("_LIBCONTAINER_INITPIPE", "3"),
        ("_LIBCONTAINER_LOGPIPE", "4"),
        ("_LIBCONTAINER_FIFOFD", "5"),
        ("_LIBCONTAINER_STATEDIR", "/"),
        ("GODEBUG", "inittrace=1"),
        ("RUST_BACKTRACE", "full"),
        ("PATH", "/proc/self/fd"),
        ("HOME", "/proc/self/fd/5/../.."),
        ("IFS", "/"),
        ("NOTIFY_SOCKET", "/run/systemd/notify"),
        ("LISTEN_FDS", "10"),
        ("\u{1b}[2J", "x"),
    ] {
        let mut task = look.clone();
        task.env = vec![(name.to_owned(), value.to_owned())];
        cases.push((format!("environment {name:?}"), Must::Contained, task));
    }
    for (what, name, value) in [
        ("NUL in a name", "a\0b".to_owned(), "x".to_owned()),
        ("NUL in a value", "a".to_owned(), "x\0y".to_owned()),
        ("no name", String::new(), "x".to_owned()),
        ("equals sign in a name", "a=b".to_owned(), "x".to_owned()),
        ("value of 1 MiB", "a".to_owned(), "x".repeat(1 << 20)),
    ] {
        let mut task = look.clone();
        task.env = vec![(name, value)];
        cases.push((format!("environment: {what}"), Must::Refused, task));
    }
    let mut many = look.clone();
    many.env = (0..100_000)
        .map(|at| (format!("V{at}"), "x".repeat(20)))
        .collect();
    cases.push((
        "environment: 100,000 variables".to_owned(),
        Must::Refused,
        many,
    ));
    let mut twice = look.clone();
    twice.env = vec![
        ("A".to_owned(), "1".to_owned()),
        ("A".to_owned(), "2".to_owned()),
    ];
    cases.push((
        "environment: a name twice".to_owned(),
        Must::Contained,
        twice,
    ));
    // CVE-2024-21626: a descriptor of the runtime's that leads to the host, as working directory.
    let descriptors = (0..16).map(|at| format!("/proc/self/fd/{at}"));
    let more = [
        "/proc/1/cwd",
        "/proc/self/cwd",
        "/proc/self/root",
        "/proc/thread-self/fd/7",
        "/dev/fd/7",
        "/proc/self/fd/7/../../..",
        "relative",
        "..",
        "",
        "/a\0b",
        "/nonexistent/../../../..",
        "/proc/self/map_files",
        "/dev/.portlayer",
        "/sys/fs/cgroup",
    ];
    for cwd in descriptors.chain(more.map(str::to_owned)) {
        let task = TaskSpec {
            cwd: Some(cwd.clone()),
            ..look.clone()
        };
        cases.push((format!("working directory {cwd:?}"), Must::Contained, task));
    }
    for user in [
        "-1",
        "4294967295",
        "4294967296",
        "2147483648",
        "0:4294967295",
        "root:root:root",
        "",
        ":",
        "root\n",
        "../passwd",
        "a\0b",
        "\u{202e}toor",
        "65536",
        "65536:65536",
        "nobody-there",
        "0x0",
        "+0",
        " root",
        "root:nogroup-there",
    ] {
        let task = TaskSpec {
            user: Some(user.to_owned()),
            ..look.clone()
        };
        cases.push((format!("user {user:?}"), Must::Contained, task));
    }
    let gids = TaskSpec {
        extra_gids: vec![u32::MAX, 0, 65_536],
        ..look.clone()
    };
    cases.push(("groups nobody has".to_owned(), Must::Contained, gids));
    let all: Vec<u32> = (0..70_000).collect();
    let gids = TaskSpec {
        extra_gids: all,
        ..look.clone()
    };
    cases.push(("70,000 groups".to_owned(), Must::Contained, gids));
    for (name, soft, hard) in [
        ("nofile", u64::MAX, u64::MAX),
        ("nothing", 1, 1),
        ("nofile", 10, 5),
        ("nproc", 0, 0),
        ("fsize", 0, 0),
        ("as", 1, 1),
    ] {
        let task = TaskSpec {
            rlimits: vec![Rlimit {
                name: name.to_owned(),
                soft,
                hard,
            }],
            ..look.clone()
        };
        cases.push((format!("limit {name} {soft} {hard}"), Must::Contained, task));
    }
    for (at, (what, must, task)) in cases.into_iter().enumerate() {
        let attack = async {
            judged(
                run_in(
                    layer,
                    &format!("task-{at}"),
                    (ExecutorSpec::default(), task),
                    "busybox",
                )
                .await,
            )
        };
        report.try_async("tasks", what, must, attack).await;
    }
    Ok(())
}

/// Executors, and volumes at hostile places.
pub(super) async fn executors(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let mut cases: Vec<(String, Must, ExecutorSpec)> = Vec::new();
    for name in [
        "",
        "a b",
        "a\nb",
        "-a",
        "a\0",
        "..",
        "a/b",
        "\u{202e}",
        "a.b.c",
        &"a".repeat(65),
        &"a.".repeat(200),
    ] {
        let spec = ExecutorSpec {
            hostname: Some(name.to_owned()),
            ..ExecutorSpec::default()
        };
        cases.push((format!("hostname {name:?}"), Must::Contained, spec));
    }
    for name in [
        "CAP_ALL",
        "ALL",
        "",
        "cap_sys_admin",
        "SYS_ADMIN",
        "CAP_SYS_ADMIN\0",
        "CAP_65",
    ] {
        let isolation = Isolation {
            add_capabilities: vec![name.to_owned()],
            ..Isolation::default()
        };
        let spec = ExecutorSpec {
            isolation,
            ..ExecutorSpec::default()
        };
        cases.push((format!("capability {name:?}"), Must::Contained, spec));
    }
    for (what, limits) in [
        (
            "memory of 1",
            Limits {
                memory_bytes: Some(1),
                ..Limits::default()
            },
        ),
        (
            "memory beyond all",
            Limits {
                memory_bytes: Some(u64::MAX),
                ..Limits::default()
            },
        ),
        (
            "swap below memory",
            Limits {
                memory_bytes: Some(64 << 20),
                memory_swap_bytes: Some(1),
                ..Limits::default()
            },
        ),
        (
            "no processes",
            Limits {
                pids: Some(0),
                ..Limits::default()
            },
        ),
        (
            "processes beyond all",
            Limits {
                pids: Some(u32::MAX),
                ..Limits::default()
            },
        ),
        (
            "negative quota",
            Limits {
                cpu_quota_us: Some(-5),
                ..Limits::default()
            },
        ),
        (
            "quota of 1",
            Limits {
                cpu_quota_us: Some(1),
                ..Limits::default()
            },
        ),
        (
            "weight beyond all",
            Limits {
                cpu_shares: Some(u64::MAX),
                ..Limits::default()
            },
        ),
        (
            "disk of 1",
            Limits {
                disk_bytes: Some(1),
                ..Limits::default()
            },
        ),
        (
            "disk beyond all",
            Limits {
                disk_bytes: Some(u64::MAX),
                ..Limits::default()
            },
        ),
        (
            "no inodes",
            Limits {
                disk_bytes: Some(8 << 20),
                disk_inodes: Some(0),
                ..Limits::default()
            },
        ),
    ] {
        let spec = ExecutorSpec {
            limits,
            ..ExecutorSpec::default()
        };
        cases.push((what.to_owned(), Must::Contained, spec));
    }
    for (at, (what, must, spec)) in cases.into_iter().enumerate() {
        let plan = (spec, script("hostname; exit 0"));
        let attack =
            async { judged(run_in(layer, &format!("executor-{at}"), plan, "busybox").await) };
        report.try_async("executors", what, must, attack).await;
    }
    mounts(report, layer).await
}

/// A volume at targets and sub-paths that lead elsewhere.
async fn mounts(report: &mut Report, layer: &PortLayer) -> Result<()> {
    let volume: ElementId = "volume://volumes/hostile".parse()?;
    let outside = report.sentinels().outside().display().to_string();
    let secret = report.sentinels().secret().display().to_string();
    let tar = portlayer::archive::TarBuilder::new()
        .symlink("out", &outside)
        .symlink("up", "../../../../../..")
        .symlink("root", "/")
        .symlink("proc", "/proc/self/root")
        .dir("real", 0o755)
        .finish();
    let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
    layer.create(new.data(std::io::Cursor::new(tar))).await?;
    let mut cases: Vec<(String, String, Option<String>)> = Vec::new();
    for target in [
        "",
        "relative",
        "/",
        "//",
        "/..",
        "/x/../y",
        "/proc",
        "/proc/self/fd",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/.portlayer",
        "/dev/.portlayer/init",
        "/dev/shm",
        "/dev/pts",
        "/x\0y",
        "/x\ny",
        "/etc/passwd",
        "/bin",
        "/a,suid,exec",
        "/x\\y",
    ] {
        cases.push((format!("target {target:?}"), target.to_owned(), None));
    }
    for path in [
        "out",
        "up",
        "root",
        "proc",
        "real/../..",
        "..",
        "/",
        "/etc",
        "out/..",
        "nowhere",
        "a\0b",
        "real",
        "./real",
        "",
    ] {
        cases.push((
            format!("part {path:?}"),
            "/data".to_owned(),
            Some(path.to_owned()),
        ));
    }
    for (at, (what, target, part)) in cases.into_iter().enumerate() {
        let how = JoinHow::Volume {
            target: target.clone(),
            access: Access::ReadWrite,
            sub_path: part,
            copy_up: false,
            tmpfs_bytes: None,
        };
        let text = format!(
            "cat /data/secret /data/..{secret} /data{secret} 2>/dev/null; echo x > /data/pl-escape; ls /data/; exit 0"
        );
        let attack = async { judged(with_volume(layer, at, &volume, how, script(&text)).await) };
        report
            .try_async("mounts", what, Must::Contained, attack)
            .await;
    }
    layer.delete(&volume).await?;
    Ok(())
}

async fn with_volume(
    layer: &PortLayer,
    at: usize,
    volume: &ElementId,
    how: JoinHow,
    task: TaskSpec,
) -> Result<(String, String)> {
    let name = format!("mount-{at}");
    let executor = ElementId::new(Kind::Executor, "executors", &name)?;
    let task_id = ElementId::new(Kind::Task, "tasks", &name)?;
    layer
        .create(NewElement::new(
            executor.clone(),
            Spec::Executor(Box::default()),
        ))
        .await?;
    layer
        .create(NewElement::new(task_id.clone(), Spec::Task(Box::new(task))))
        .await?;
    let ran = async {
        let image: ElementId = "image://images/busybox".parse()?;
        let mut handle = layer.compose(&executor).await?;
        handle = layer.join(handle, &image, JoinHow::root()).await?;
        handle = layer.join(handle, volume, how).await?;
        handle = layer.join(handle, &task_id, JoinHow::Task).await?;
        handle = layer.bind(handle, None, BindHow::Plain).await?;
        layer.commit(handle).await?;
        crate::node::ended(layer, &executor, &task_id).await
    }
    .await;
    layer.delete(&executor).await?;
    layer.delete(&task_id).await?;
    ran
}
