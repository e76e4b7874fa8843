//! Every error of every verb, and that nothing happened then.

use std::io::Cursor;

use super::*;
use crate::element::{EntryRule, Patch, metadata};
use crate::error::{Classify, CreateError, DeleteError, LocationError, ReadError, UpdateError};
use crate::ledger::Outcome;
use crate::store::StoreError;
use crate::store::memory::Verb;
use crate::task::{LogChoice, RestartPolicy, Rlimit};

async fn refused(node: &Node, new: NewElement) -> CreateError {
    let before = node.fingerprint();
    let error = node.layer.create(new).await.expect_err("refused");
    assert_eq!(
        node.fingerprint(),
        before,
        "{error}: nothing may have happened"
    );
    error
}

macro_rules! assert_refused {
    ($node:expr, $new:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = refused(&$node, $new).await;
        assert!(matches!(&error, $pattern $(if $guard)?), "got {error:?}");
    }};
}

#[tokio::test]
async fn create_refuses_locations() {
    let node = Node::new().await;
    assert_refused!(node, task("task://nowhere/a"), CreateError::Location(LocationError::Unknown { location, .. }) if location == "nowhere");
    assert_refused!(
        node,
        task("task://images/a"),
        CreateError::Location(LocationError::WrongKind { .. })
    );
    assert_refused!(
        node,
        task("task://fixed/a"),
        CreateError::Location(LocationError::Policy {
            verb: "create",
            policy: Policy::ReadOnly,
            ..
        })
    );
    let network = NewElement::new(
        id("network://bare/n"),
        Spec::Network(std::collections::BTreeMap::default()),
    );
    assert_refused!(
        node,
        network,
        CreateError::Location(LocationError::Policy { .. })
    );
    let log = NewElement::new(
        id("log://node/l"),
        Spec::Log(std::collections::BTreeMap::default()),
    );
    assert_refused!(
        node,
        log,
        CreateError::Location(LocationError::Policy { .. })
    );
    node.layer.create(task("task://append/a")).await.unwrap();
}

#[tokio::test]
async fn create_refuses_shapes() {
    let node = Node::new().await;
    let wrong = NewElement::new(id("task://default/a"), Spec::Volume(VolumeSpec::default()));
    assert_refused!(
        node,
        wrong,
        CreateError::SpecKind {
            spec: Kind::Volume,
            ..
        }
    );
    assert_refused!(node, executor("executor://default/x").data(Cursor::new("x")), CreateError::InvalidField { field, .. } if field == "data");
    assert_refused!(node, task("task://default/a").checksum(sum("x")), CreateError::InvalidField { field, .. } if field == "checksum");
    assert_refused!(node, bare_image("image://images/a"), CreateError::InvalidField { field, .. } if field == "data");
    let scratch = bare_image("image://images/a").parent(id("image://builtin/scratch"));
    assert_refused!(node, scratch, CreateError::InvalidField { field, .. } if field == "data");
    let long = task("task://default/a").data(Cursor::new(vec![b'x'; 1024 * 1024 + 1]));
    assert_refused!(node, long, CreateError::InvalidField { field, .. } if field == "data");
}

#[tokio::test]
async fn create_refuses_metadata() {
    let node = Node::new().await;
    let with = |ro: &[(&str, Option<Vec<u8>>)]| {
        let mut new = task("task://default/m");
        new.ro = ro
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        new
    };
    let cases: Vec<(NewElement, EntryRule)> = vec![
        (with(&[("k", None)]), EntryRule::Nil),
        (with(&[("", Some(vec![]))]), EntryRule::EmptyKey),
        (
            with(&[(&"k".repeat(257), Some(vec![]))]),
            EntryRule::KeyTooLong,
        ),
        (with(&[("a\nb", Some(vec![]))]), EntryRule::KeyCharacter),
        (
            with(&[("k", Some(vec![0; metadata::MAX_VALUE_BYTES + 1]))]),
            EntryRule::ValueTooLong,
        ),
    ];
    for (new, rule) in cases {
        assert_refused!(node, new, CreateError::InvalidEntry { entry, .. } if entry.rule == rule);
    }
    assert_refused!(node, task("task://default/m").ro("k", "1").rw("k", "2"), CreateError::ReadOnlyKey { key, .. } if key == "k");
}

#[tokio::test]
async fn create_refuses_parents_and_owners() {
    let node = Node::new().await;
    node.layer.create(image("image://images/i")).await.unwrap();
    let parent = node
        .layer
        .create(volume("volume://vols/bound"))
        .await
        .unwrap()
        .id;
    let executor_id = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    node.compose(&executor_id, State::Stopped, &[&parent]).await;

    assert_refused!(
        node,
        image("image://images/a").parent(id("image://images/none")),
        CreateError::UnknownParent { .. }
    );
    assert_refused!(
        node,
        image("image://images/a").parent(id("image://nowhere/none")),
        CreateError::UnknownParent { .. }
    );
    let invalid = [
        image("image://images/a").parent(parent.clone()),
        image("image://images/a").parent(id("image://images/a")),
        volume("volume://vols/a").parent(id("task://default/t")),
        task("task://default/a").parent(id("image://images/i")),
        executor("executor://default/a").parent(executor_id.clone()),
        volume("volume://nfs/a").parent(id("image://images/i")),
        volume("volume://vols/a").parent(parent.clone()),
        volume("volume://vols/a")
            .parent(id("image://images/i"))
            .data(Cursor::new("x")),
    ];
    for (at, new) in invalid.into_iter().enumerate() {
        let error = refused(&node, new).await;
        assert!(
            matches!(&error, CreateError::InvalidParent { .. }),
            "case {at}: {error:?}"
        );
    }
    assert_refused!(
        node,
        task("task://default/a").owner(id("volume://vols/none")),
        CreateError::UnknownOwner { .. }
    );
    assert_refused!(
        node,
        task("task://default/a").owner(executor_id.clone()),
        CreateError::InvalidOwner { .. }
    );
    assert_refused!(
        node,
        task("task://default/a").owner(id("image://builtin/scratch")),
        CreateError::InvalidOwner { .. }
    );
    assert_refused!(
        node,
        volume("volume://vols/a").owner(parent.clone()),
        CreateError::InvalidOwner { .. }
    );
}

#[tokio::test]
async fn create_refuses_a_second_one_and_shows_the_sum_of_the_first() {
    let node = Node::new().await;
    node.layer.create(image("image://images/i")).await.unwrap();
    assert_refused!(node, image("image://images/i"), CreateError::AlreadyExists { checksum, .. } if *checksum == Some(sum("image://images/i")));
}

#[tokio::test]
async fn create_passes_on_what_the_store_says_and_keeps_nothing() {
    let node = Node::new().await;
    assert_refused!(
        node,
        image("image://images/i").checksum(sum("other")),
        CreateError::Store {
            source: StoreError::ChecksumMismatch { .. },
            ..
        }
    );
    assert_refused!(
        node,
        task("task://default/t")
            .data(Cursor::new("a"))
            .checksum(sum("b")),
        CreateError::Store {
            source: StoreError::ChecksumMismatch { .. },
            ..
        }
    );
    assert_refused!(
        node,
        image("image://bare/i"),
        CreateError::Store {
            source: StoreError::Unsupported(_),
            ..
        }
    );
    assert_refused!(
        node,
        volume("volume://nfs/v").data(Cursor::new("x")),
        CreateError::Store {
            source: StoreError::Unsupported(_),
            ..
        }
    );
    for verb in [Verb::Put, Verb::PutLate] {
        let full = StoreError::InsufficientSpace {
            need_bytes: 2,
            have_bytes: 1,
        };
        node.volumes.fail(verb, full);
        assert_refused!(
            node,
            volume("volume://vols/v"),
            CreateError::Store {
                source: StoreError::InsufficientSpace { need_bytes: 2, .. },
                ..
            }
        );
    }
    node.layer.create(volume("volume://vols/v")).await.unwrap();
}

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

#[tokio::test]
async fn read_refuses() {
    let node = Node::new().await;
    let unknown = node.layer.read(&id("task://nowhere/a")).await;
    assert!(matches!(
        unknown,
        Err(ReadError::Location(LocationError::Unknown { .. }))
    ));
    let wrong = node.layer.read(&id("task://images/a")).await;
    assert!(matches!(
        wrong,
        Err(ReadError::Location(LocationError::WrongKind { .. }))
    ));
    let missing = node.layer.read(&id("task://default/a")).await;
    assert!(
        matches!(&missing, Err(ReadError::NotFound { id }) if id.as_str() == "task://default/a")
    );
    node.layer.create(task("task://default/a")).await.unwrap();
    node.layer
        .create(executor("executor://default/x"))
        .await
        .unwrap();
    for text in [
        "task://default/a",
        "executor://default/x",
        "image://builtin/scratch",
        "log://node/file",
    ] {
        assert!(matches!(
            node.layer.export(&id(text)).await,
            Err(ReadError::NoData { .. })
        ));
    }
    node.layer.create(volume("volume://vols/v")).await.unwrap();
    node.volumes
        .fail(Verb::Export, StoreError::Missing("v".into()));
    let export = node.layer.export(&id("volume://vols/v")).await;
    assert!(matches!(
        export,
        Err(ReadError::Store {
            source: StoreError::Missing(_),
            ..
        })
    ));
}

#[tokio::test]
async fn update_refuses() {
    let node = Node::new().await;
    let made = node
        .layer
        .create(task("task://default/u").ro("r", "1").rw("w", "1"))
        .await
        .unwrap()
        .id;
    node.layer.create(task("task://append/u")).await.unwrap();
    let set = |key: &str| Patch::from([(key.to_owned(), Some(b"x".to_vec()))]);
    let before = node.fingerprint();
    let update = |at: &str, patch, revision| {
        let (layer, at) = (node.layer.clone(), id(at));
        async move {
            layer
                .update(&at, patch, revision)
                .await
                .expect_err("refused")
        }
    };
    assert!(matches!(
        update("task://nowhere/u", set("k"), None).await,
        UpdateError::Location(LocationError::Unknown { .. })
    ));
    assert!(matches!(
        update("task://append/u", set("k"), None).await,
        UpdateError::Location(LocationError::Policy {
            policy: Policy::CreateOnly,
            verb: "update",
            ..
        })
    ));
    assert!(matches!(
        update("network://node/host", set("k"), None).await,
        UpdateError::Location(LocationError::Policy { .. })
    ));
    assert!(matches!(
        update("task://default/none", set("k"), None).await,
        UpdateError::NotFound { .. }
    ));
    assert!(matches!(
        update("task://default/u", set("k"), Some(7)).await,
        UpdateError::Revision {
            expected: 7,
            actual: 1,
            ..
        }
    ));
    assert!(
        matches!(update("task://default/u", set("r"), None).await, UpdateError::ReadOnlyKey { key, .. } if key == "r")
    );
    assert!(matches!(
        update("task://default/u", Patch::from([("r".into(), None)]), None).await,
        UpdateError::ReadOnlyKey { .. }
    ));
    assert!(matches!(
        update("task://default/u", set(""), None).await,
        UpdateError::InvalidEntry { .. }
    ));
    assert_eq!(node.fingerprint(), before);
    assert_eq!(node.layer.read(&made).await.unwrap().revision, 1);
    let codes: Vec<_> = node
        .audit(&made)
        .into_iter()
        .map(|row| row.outcome)
        .collect();
    assert!(
        codes.contains(&Outcome::Failed("read_only_key".into())),
        "{codes:?}"
    );

    let volume = node
        .layer
        .create(volume("volume://vols/v"))
        .await
        .unwrap()
        .id;
    let executor = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    let no_bytes = node.layer.ensure_freespace(&executor, 1).await;
    assert!(matches!(no_bytes, Err(UpdateError::InvalidState { .. })));
    node.volumes.set_capacity(10);
    let full = node.layer.ensure_freespace(&volume, 11).await;
    assert!(matches!(
        full,
        Err(UpdateError::Store {
            source: StoreError::InsufficientSpace { .. },
            ..
        })
    ));
    node.compose(&executor, State::Running, &[&volume]).await;
    let bound = node.layer.ensure_freespace(&volume, 1).await;
    assert!(matches!(bound, Err(UpdateError::InvalidState { .. })));
}

#[tokio::test]
async fn delete_refuses() {
    let node = Node::new().await;
    node.layer
        .create(image("image://images/base"))
        .await
        .unwrap();
    node.layer
        .create(image("image://images/app").parent(id("image://images/base")))
        .await
        .unwrap();
    let volume = node
        .layer
        .create(volume("volume://vols/v"))
        .await
        .unwrap()
        .id;
    let x = node
        .layer
        .create(executor("executor://default/x"))
        .await
        .unwrap()
        .id;
    node.compose(&x, State::Running, &[&volume]).await;
    node.layer.create(task("task://append/t")).await.unwrap();
    let before = node.fingerprint();
    let delete = |at: &str| {
        let (layer, at) = (node.layer.clone(), id(at));
        async move { layer.delete(&at).await.expect_err("refused") }
    };
    assert!(matches!(
        delete("task://nowhere/a").await,
        DeleteError::Location(LocationError::Unknown { .. })
    ));
    assert!(matches!(
        delete("task://append/t").await,
        DeleteError::Location(LocationError::Policy { verb: "delete", .. })
    ));
    assert!(matches!(
        delete("task://default/none").await,
        DeleteError::NotFound { .. }
    ));
    assert!(matches!(
        delete("image://builtin/none").await,
        DeleteError::NotFound { .. }
    ));
    for built_in in [
        "image://builtin/scratch",
        "network://node/none",
        "network://node/host",
        "log://node/file",
    ] {
        assert!(matches!(
            delete(built_in).await,
            DeleteError::PermissionDenied { .. }
        ));
    }
    assert!(
        matches!(delete("image://images/base").await, DeleteError::InUse { by, .. } if by == [id("image://images/app")])
    );
    assert!(
        matches!(delete("volume://vols/v").await, DeleteError::InUse { by, .. } if by == [x.clone()])
    );
    assert!(matches!(
        delete("executor://default/x").await,
        DeleteError::InvalidState {
            state: State::Running,
            ..
        }
    ));
    assert_eq!(node.fingerprint(), before);
    let last = node.audit(&volume).pop().unwrap();
    assert_eq!(last.outcome, Outcome::Failed("in_use".into()));

    node.compose(&x, State::Stopped, &[]).await;
    assert!(
        matches!(delete("volume://vols/v").await, DeleteError::InUse { .. }),
        "stopped executors use it too"
    );
    node.layer.delete(&x).await.unwrap();
    node.volumes
        .fail(Verb::Remove, StoreError::Unavailable("gone".into()));
    assert!(matches!(
        delete("volume://vols/v").await,
        DeleteError::Store { .. }
    ));
    assert!(matches!(
        node.layer.read(&volume).await,
        Err(ReadError::NotFound { .. })
    ));
    let swept = node.layer.sweep().await.unwrap();
    assert!(
        swept
            .iter()
            .any(|location| location.removed == [volume.digest_hex()])
    );
    assert!(node.volumes.is_empty());
}

#[tokio::test]
async fn an_owner_is_needed_by_what_is_made_from_its_tasks() {
    let node = Node::new().await;
    let owner = node
        .layer
        .create(volume("volume://vols/o"))
        .await
        .unwrap()
        .id;
    let owned = node
        .layer
        .create(task("task://default/o").owner(owner.clone()))
        .await
        .unwrap()
        .id;
    let child = node
        .layer
        .create(task("task://default/child").parent(owned))
        .await
        .unwrap()
        .id;
    let refused = node.layer.delete(&owner).await;
    assert!(matches!(refused, Err(DeleteError::InUse { by, .. }) if by == [child]));
}

#[tokio::test]
async fn errors_name_their_class_and_element() {
    let node = Node::new().await;
    let error: crate::Error = node
        .layer
        .create(task("task://fixed/a"))
        .await
        .unwrap_err()
        .into();
    assert_eq!(
        (error.kind(), error.reason(), error.retryable()),
        (
            crate::ErrorKind::FailedPrecondition,
            "location_policy",
            false
        )
    );
    assert_eq!(error.element(), Some(&id("task://fixed/a")));
    let error = StoreError::Unavailable("x".into());
    assert!(error.class().kind.retryable());
}
