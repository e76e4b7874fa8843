//! The OCI documents, read back as JSON: what is asked for is there, and nothing a library would add.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::id;
use crate::compose::node::Host;
use crate::compose::oci;
use crate::compose::validate::{EffectiveTask, Resolved, Root};
use crate::runtime::HostIsolation;
use crate::store::Access;
use crate::task::{
    ExecutorSpec, ImageDefaults, Interaction, Isolation, LogChoice, RestartPolicy, Rlimit, Secret,
};

fn resolved(change: impl FnOnce(&mut Resolved)) -> Resolved {
    let mut resolved = Resolved {
        spec: ExecutorSpec::default(),
        root: Some(Root {
            id: id("image://images/base"),
            keys: None,
            defaults: ImageDefaults::default(),
            access: Access::ReadWrite,
        }),
        volumes: Vec::new(),
        host_network: false,
        bridge: None,
        tasks: BTreeMap::new(),
    };
    change(&mut resolved);
    resolved
}

fn host() -> Host {
    Host {
        cgroup2: false,
        isolation: HostIsolation {
            capabilities: u64::MAX,
            ..HostIsolation::default()
        },
    }
}

fn document(change: impl FnOnce(&mut Resolved), cgroup2: bool) -> Value {
    let host = Host { cgroup2, ..host() };
    let spec = oci::spec(
        &id("executor://x/jobs/build_1"),
        &resolved(change),
        &host,
        None,
    );
    serde_json::to_value(spec).unwrap()
}

fn task() -> EffectiveTask {
    EffectiveTask {
        argv: vec!["/bin/true".into()],
        env: Vec::new(),
        secrets: Vec::new(),
        cwd: "/work".into(),
        user: String::new(),
        extra_gids: vec![7],
        terminal: false,
        interaction: Interaction::default(),
        stdout: LogChoice::default(),
        stderr: LogChoice::default(),
        outputs: Default::default(),
        rlimits: Vec::new(),
        deadline_ms: None,
        stop_signal: 15,
        grace_ms: 0,
        restart: RestartPolicy::Never,
    }
}

fn process(task: &EffectiveTask, isolation: &Isolation) -> Value {
    serde_json::to_value(oci::process(task, isolation, &host())).unwrap()
}

fn names(value: &Value, pointer: &str, field: &str) -> Vec<String> {
    let list = value.pointer(pointer).unwrap().as_array().unwrap();
    let name = |entry: &Value| entry[field].as_str().unwrap().to_owned();
    list.iter().map(name).collect()
}

#[test]
fn a_plain_container_has_exactly_this() {
    let plain = document(|_| {}, false);
    let keys: Vec<_> = plain.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["hostname", "linux", "mounts", "ociVersion", "root"]);
    assert_eq!(plain["hostname"], "build-1");
    assert_eq!(
        plain["root"],
        json!({ "path": "rootfs", "readonly": false })
    );
    assert_eq!(
        names(&plain, "/linux/namespaces", "type"),
        ["pid", "ipc", "uts", "mount", "network"]
    );
    assert_eq!(
        names(&plain, "/mounts", "destination"),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup"
        ]
    );
    assert_eq!(plain["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    assert_eq!(plain["linux"]["readonlyPaths"].as_array().unwrap().len(), 5);
    assert_eq!(
        plain["linux"]["resources"],
        json!({ "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 1024 } })
    );
    for read_only in ["/sys", "/sys/fs/cgroup"] {
        let mounts = plain["mounts"].as_array().unwrap();
        let mount = mounts
            .iter()
            .find(|mount| mount["destination"] == read_only)
            .unwrap();
        let options = mount["options"].as_array().unwrap();
        assert!(options.contains(&json!("ro")), "{read_only}");
    }
}

#[test]
fn what_is_asked_for_changes_only_its_place() {
    let host = document(|r| r.host_network = true, true);
    assert_eq!(
        names(&host, "/linux/namespaces", "type"),
        ["pid", "ipc", "uts", "mount", "cgroup"]
    );
    let named = document(|r| r.spec.hostname = Some("box".into()), false);
    assert_eq!(named["hostname"], "box");
    let read_only = document(
        |r| r.root.as_mut().unwrap().access = Access::ReadOnly,
        false,
    );
    assert_eq!(read_only["root"]["readonly"], true);
    let limited = document(
        |r| {
            r.spec.limits.memory_bytes = Some(64 << 20);
            r.spec.limits.cpu_shares = Some(512);
            r.spec.limits.cpu_quota_us = Some(50_000);
            r.spec.limits.pids = Some(20);
        },
        false,
    );
    let resources = &limited["linux"]["resources"];
    // No swap unless it is asked for: memory and swap together are no more than memory.
    assert_eq!(
        resources["memory"],
        json!({ "limit": 67_108_864, "swap": 67_108_864 })
    );
    assert_eq!(
        resources["cpu"],
        json!({ "shares": 512, "quota": 50_000, "period": 100_000 })
    );
    assert_eq!(resources["pids"]["limit"], 20);
    let swapping = document(
        |r| {
            r.spec.limits.memory_bytes = Some(64 << 20);
            r.spec.limits.memory_swap_bytes = Some(96 << 20);
        },
        false,
    );
    assert_eq!(swapping["linux"]["resources"]["memory"]["swap"], 96 << 20);
    let privileged = document(|r| r.spec.isolation.privileged = true, false);
    assert!(privileged["linux"].get("maskedPaths").is_none());
    assert!(privileged["linux"].get("readonlyPaths").is_none());
    assert_eq!(
        privileged["linux"]["resources"]["devices"][0]["allow"],
        true
    );
    assert!(privileged["linux"].get("seccomp").is_none());
}

#[test]
fn the_filter_survives_the_library_whole() {
    let plain = document(|_| {}, false);
    let isolation = Isolation::default();
    let bounding = crate::compose::capabilities::bounding(&isolation, u64::MAX);
    let wanted = crate::compose::seccomp::filter(&isolation, &bounding);
    assert_eq!(plain["linux"]["seccomp"], wanted);
    let confined = Host {
        isolation: HostIsolation {
            apparmor: Some("docker-default".into()),
            ..host().isolation
        },
        ..host()
    };
    let process = serde_json::to_value(oci::process(&task(), &Isolation::default(), &confined));
    assert_eq!(process.unwrap()["apparmorProfile"], "docker-default");
}

#[test]
fn a_process_gets_its_environment_in_order_and_no_more() {
    let mut task = task();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    task.env = vec![
        pair("A", "image"),
        pair("B", "image"),
        pair("A", "task"),
        pair("KEY", "task"),
    ];
    task.secrets = vec![Secret {
        name: "KEY".into(),
        value: "secret".into(),
    }];
    let plain = process(&task, &Isolation::default());
    let env: Vec<&str> = plain["env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(env[1..], ["B=image", "A=task", "KEY=secret"]);
    assert!(env[0].starts_with("PATH=/usr/local/sbin:"));
    assert_eq!(plain["args"], json!(["/bin/true"]));
    assert_eq!(plain["cwd"], "/work");
    assert_eq!(plain["user"]["additionalGids"], json!([7]));
    assert_eq!(plain["noNewPrivileges"], true);
    assert_eq!(
        plain["rlimits"],
        json!([{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524_288 }])
    );
    assert_eq!(
        plain["capabilities"]["bounding"].as_array().unwrap().len(),
        10
    );
    for absent in [
        "apparmorProfile",
        "selinuxLabel",
        "oomScoreAdj",
        "scheduler",
        "consoleSize",
    ] {
        assert!(plain.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_user_holds_no_capability_and_a_terminal_is_named() {
    let mut task = task();
    task.user = "1000:1000".into();
    task.terminal = true;
    task.rlimits = vec![Rlimit {
        name: "nofile".into(),
        soft: 10,
        hard: 20,
    }];
    let user = process(&task, &Isolation::default());
    assert_eq!(user["terminal"], true);
    let env = user["env"].as_array().unwrap();
    assert!(env.contains(&json!("TERM=xterm")));
    let home = |entry: &Value| entry.as_str().is_some_and(|e| e.starts_with("HOME="));
    assert!(
        !env.iter().any(home),
        "the runtime looks it up in the image"
    );
    for set in ["effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(user["capabilities"][set], json!([]), "{set}");
    }
    assert_eq!(
        user["rlimits"],
        json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }])
    );
    let isolation = Isolation {
        privileged: true,
        ..Isolation::default()
    };
    let privileged = process(&self::task(), &isolation);
    assert_eq!(privileged["noNewPrivileges"], false);
    assert_eq!(
        privileged["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        41
    );
}

#[test]
fn shares_become_the_weight_of_cgroup_v2() {
    for (shares, weight) in [(2, "1"), (1024, "100"), (262_144, "10000")] {
        let document = document(|r| r.spec.limits.cpu_shares = Some(shares), true);
        let resources = &document["linux"]["resources"];
        assert_eq!(resources["unified"], json!({ "cpu.weight": weight }));
        assert!(resources.get("cpu").is_none());
    }
}
