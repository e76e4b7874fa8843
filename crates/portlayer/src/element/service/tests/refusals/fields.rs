//! Create: every field of every kind.

use super::super::*;
use super::refused;
use crate::error::CreateError;
use crate::task::{LogChoice, RestartPolicy, Rlimit};

#[tokio::test]
async fn create_refuses_every_field_that_breaks_a_rule() {
    let node = Node::new().await;
    type Change = fn(&mut TaskSpec);
    let tasks: &[(&str, Change)] = &[
        ("argv[0]", |t| t.argv = vec![String::new()]),
        ("argv[1]", |t| t.argv.push("a\0b".into())),
        ("argv[1]", |t| t.argv.push("x".repeat(128 * 1024))),
        ("argv", |t| t.argv.extend(vec!["x".repeat(100_000); 20])),
        ("env[0].name", |t| t.env = vec![(String::new(), "v".into())]),
        ("env[0].name", |t| t.env = vec![("A=B".into(), "v".into())]),
        ("env[1].name", |t| {
            t.env = vec![("A".into(), "v".into()), ("A\0".into(), "v".into())]
        }),
        ("env[0].value", |t| t.env = vec![("A".into(), "\0".into())]),
        ("secrets[0].name", |t| {
            t.secrets = vec![crate::task::Secret {
                name: String::new(),
                value: "v".into(),
            }]
        }),
        ("secrets[0].value", |t| {
            t.secrets = vec![crate::task::Secret {
                name: "S".into(),
                value: "\0".into(),
            }]
        }),
        ("cwd", |t| t.cwd = Some("relative".into())),
        ("cwd", |t| t.cwd = Some("/a\0".into())),
        ("cwd", |t| t.cwd = Some("/a/../b".into())),
        ("cwd", |t| t.cwd = Some("/proc/self/fd/7".into())),
        ("cwd", |t| t.cwd = Some("//./proc/1".into())),
        ("cwd", |t| t.cwd = Some(format!("/{}", "a".repeat(4096)))),
        ("user", |t| t.user = Some(String::new())),
        ("user", |t| t.user = Some("a:b:c".into())),
        ("user", |t| t.user = Some("a:".into())),
        ("user", |t| t.user = Some("ro ot".into())),
        ("user", |t| t.user = Some("-1".into())),
        ("user", |t| t.user = Some("4294967296".into())),
        ("user", |t| t.user = Some("1:2147483648".into())),
        ("extra_gids[0]", |t| t.extra_gids = vec![u32::MAX]),
        ("stdout.sink", |t| {
            t.stdout.sink = Some(id("volume://vols/v"))
        }),
        ("stderr.required", |t| {
            t.stderr = LogChoice {
                sink: None,
                required: true,
                discard: true,
            }
        }),
        ("stderr.discard", |t| {
            t.stderr = LogChoice {
                sink: Some(id("log://node/file")),
                required: false,
                discard: true,
            }
        }),
        ("rlimits[0].name", |t| {
            t.rlimits = vec![Rlimit {
                name: "NOFILE".into(),
                soft: 1,
                hard: 1,
            }]
        }),
        ("rlimits[0].soft", |t| {
            t.rlimits = vec![Rlimit {
                name: "nofile".into(),
                soft: 2,
                hard: 1,
            }]
        }),
        ("rlimits[1].name", |t| {
            t.rlimits = vec![
                Rlimit {
                    name: "core".into(),
                    soft: 0,
                    hard: 0
                };
                2
            ]
        }),
        ("deadline_ms", |t| t.deadline_ms = Some(0)),
        ("deadline_ms", |t| t.deadline_ms = Some(u64::MAX)),
        ("stop.signal", |t| t.stop.signal = Some(0)),
        ("stop.signal", |t| t.stop.signal = Some(65)),
        ("stop.grace_ms", |t| t.stop.grace_ms = u64::MAX),
        ("restart.backoff_ms", |t| {
            t.restart = RestartPolicy::Always { backoff_ms: 0 }
        }),
        ("restart.backoff_ms", |t| {
            t.restart = RestartPolicy::OnFailure {
                max: 1,
                backoff_ms: 60_001,
            }
        }),
    ];
    for (path, change) in tasks {
        let mut new = task("task://default/f");
        if let Spec::Task(spec) = &mut new.spec {
            change(spec);
        }
        assert_refused!(node, new, CreateError::InvalidField { field, .. } if field == path);
    }
    type ChangeExecutor = fn(&mut ExecutorSpec);
    let executors: &[(&str, ChangeExecutor)] = &[
        ("hostname", |x| x.hostname = Some(String::new())),
        ("hostname", |x| x.hostname = Some("-a".into())),
        ("hostname", |x| x.hostname = Some("a..b".into())),
        ("hostname", |x| x.hostname = Some("a_b".into())),
        ("hostname", |x| x.hostname = Some("a".repeat(65))),
        ("limits.memory_bytes", |x| x.limits.memory_bytes = Some(1)),
        ("limits.memory_bytes", |x| {
            x.limits.memory_bytes = Some(u64::MAX)
        }),
        ("limits.memory_swap_bytes", |x| {
            x.limits.memory_swap_bytes = Some(1 << 30)
        }),
        ("limits.memory_swap_bytes", |x| {
            x.limits.memory_bytes = Some(1 << 30);
            x.limits.memory_swap_bytes = Some(1);
        }),
        ("limits.cpu_shares", |x| x.limits.cpu_shares = Some(1)),
        ("limits.cpu_shares", |x| x.limits.cpu_shares = Some(262_145)),
        ("limits.cpu_quota_us", |x| x.limits.cpu_quota_us = Some(-1)),
        ("limits.pids", |x| x.limits.pids = Some(0)),
        ("isolation.add_capabilities[0]", |x| {
            x.isolation.add_capabilities = vec!["NET_RAW".into()]
        }),
        ("isolation.drop_capabilities[0]", |x| {
            x.isolation.drop_capabilities = vec!["CAP_ALL".into()]
        }),
        ("isolation.drop_capabilities[0]", |x| {
            x.isolation.add_capabilities = vec!["CAP_KILL".into()];
            x.isolation.drop_capabilities = vec!["CAP_KILL".into()];
        }),
    ];
    for (path, change) in executors {
        let mut new = executor("executor://default/f");
        if let Spec::Executor(spec) = &mut new.spec {
            change(spec);
        }
        assert_refused!(node, new, CreateError::InvalidField { field, .. } if field == path);
    }
    type ChangeVolume = fn(&mut VolumeSpec);
    let volumes: &[(&str, ChangeVolume)] = &[
        ("freespace_bytes", |v| v.freespace_bytes = u64::MAX),
        ("size_bytes", |v| v.size_bytes = u64::MAX),
        ("freespace_bytes", |v| {
            v.size_bytes = 1;
            v.freespace_bytes = 2;
        }),
        ("uid", |v| v.uid = u32::MAX),
        ("gid", |v| v.gid = u32::MAX),
        ("mode", |v| v.mode = Some(0o4755)),
    ];
    for (path, change) in volumes {
        let mut spec = VolumeSpec::default();
        change(&mut spec);
        let new = NewElement::new(id("volume://vols/f"), Spec::Volume(spec));
        assert_refused!(node, new, CreateError::InvalidField { field, .. } if field == path);
    }
}
