//! Hostile and mistaken compositions: a typed error that names the element, no call to the engine, nothing changed.

use super::support::{Edit, IMAGE, Node, X, id};
use crate::compose::{BindHow, CommitError, ComposeError, JoinHow, TaskBind};
use crate::element::{Body, ElementId, TaskBody};
use crate::error::Classify;
use crate::store::Access;
use crate::task::{ExecutorSpec, Limits, LogChoice, RestartPolicy, Rlimit, StopSpec, TaskSpec};

/// What a case ends in: the first refusal of the edit or of the commit.
async fn refused(node: &Node, name: &str, edit: Edit<'_>, element: &str) -> CommitError {
    let before: Vec<_> = all_records(node);
    let events = node.events().len();
    node.engine.clear_journal();
    let error = match edit.commit().await {
        Ok(result) => panic!("{name}: committed {result:?}"),
        Err(error) => error,
    };
    assert_eq!(node.engine.journal(), Vec::<String>::new(), "{name}");
    assert_eq!(all_records(node), before, "{name}");
    assert_eq!(node.events().len(), events, "{name}");
    assert!(node.volumes.attached().is_empty(), "{name}");
    let named = error.element().map(ToString::to_string);
    assert_eq!(named.as_deref(), Some(element), "{name}: {error}");
    let text = error.to_string();
    assert!(!text.contains("hunter2"), "{name}: {text}");
    error
}

fn all_records(node: &Node) -> Vec<crate::element::Record> {
    node.layer
        .shared
        .ledger
        .list("", None, 10_000, |_| true)
        .unwrap()
        .records
}

#[tokio::test]
async fn targets_that_are_none() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let volume = node.volume("volume://v/data").await;
    let long = format!("/{}", "a".repeat(256));
    let deep = "/a".repeat(2048);
    let targets = [
        "",
        "relative",
        "./x",
        "/",
        "//",
        "/x/",
        "/x//y",
        "/x/../y",
        "/..",
        "/x/.",
        "/./x",
        "/proc",
        "/proc/1/root",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/sda",
        "/x\0y",
        "/x\ny",
        "/x\u{1b}[2Jy",
        &long,
        &deep,
    ];
    for target in targets {
        let edit = node
            .open()
            .await
            .root()
            .await
            .task(&task)
            .await
            .part(&volume, JoinHow::volume(target))
            .await;
        let error = refused(&node, target, edit, "volume://v/data").await;
        let field = match &error {
            CommitError::Compose(ComposeError::InvalidField { field, .. }) => field.as_str(),
            other => panic!("{target:?}: {other}"),
        };
        assert_eq!(field, "target", "{target:?}");
    }
}

#[tokio::test]
async fn roles_and_settings_that_do_not_fit() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let (image, executor) = (id(IMAGE), id(X));
    let [one, two] = [
        node.volume("volume://v/one").await,
        node.volume("volume://v/two").await,
    ];
    node.put("image://images/other", Body::Image(Box::default()))
        .await;
    let other = id("image://images/other");
    let absent = id("volume://v/absent");
    let strange = id("volume://nowhere/x");
    let tmpfs = |access, sub_path: Option<&str>| JoinHow::Volume {
        target: "/t".into(),
        access,
        sub_path: sub_path.map(str::to_owned),
        copy_up: false,
        tmpfs_bytes: Some(0),
    };
    let sub = |path: &str| JoinHow::Volume {
        target: "/t".into(),
        access: Access::ReadWrite,
        sub_path: Some(path.to_owned()),
        copy_up: false,
        tmpfs_bytes: None,
    };
    let copy_up = JoinHow::Volume {
        target: "/t".into(),
        access: Access::ReadOnly,
        sub_path: None,
        copy_up: true,
        tmpfs_bytes: None,
    };
    let not_root = JoinHow::Image {
        target: "/image".into(),
        access: Access::ReadWrite,
    };
    let plain = || BindHow::Plain;
    let task_bind = || BindHow::Task(TaskBind::default());
    let cases: Vec<(&str, Edit<'_>, &str)> = vec![
        (
            "image as volume",
            node.open().await.join(&image, JoinHow::volume("/x")).await,
            IMAGE,
        ),
        (
            "volume as root",
            node.open().await.join(&one, JoinHow::root()).await,
            "volume://v/one",
        ),
        (
            "task as network",
            node.open().await.join(&task, JoinHow::network()).await,
            "task://t/a",
        ),
        (
            "executor in executor",
            node.open().await.join(&executor, JoinHow::Task).await,
            X,
        ),
        (
            "image not at /",
            node.open().await.join(&image, not_root).await,
            IMAGE,
        ),
        (
            "second root",
            node.open()
                .await
                .root()
                .await
                .join(&other, JoinHow::root())
                .await,
            "image://images/other",
        ),
        (
            "one target twice",
            node.open()
                .await
                .part(&one, JoinHow::volume("/x"))
                .await
                .part(&two, JoinHow::volume("/x"))
                .await,
            "volume://v/two",
        ),
        (
            "one volume twice",
            node.open()
                .await
                .part(&one, JoinHow::volume("/x"))
                .await
                .part(&one, JoinHow::volume("/y"))
                .await,
            "volume://v/one",
        ),
        (
            "absent volume",
            node.open().await.join(&absent, JoinHow::volume("/x")).await,
            "volume://v/absent",
        ),
        (
            "unknown location",
            node.open()
                .await
                .join(&strange, JoinHow::volume("/x"))
                .await,
            "volume://nowhere/x",
        ),
        (
            "bind of a stranger",
            node.open().await.bind(Some(&one), plain()).await,
            "volume://v/one",
        ),
        (
            "unbind of a stranger",
            node.open().await.unbind(Some(&one)).await,
            "volume://v/one",
        ),
        (
            "leave of a stranger",
            node.open().await.leave(&one).await,
            "volume://v/one",
        ),
        (
            "leave while bound",
            node.open().await.root().await.leave(&image).await,
            IMAGE,
        ),
        (
            "task settings for an image",
            node.open()
                .await
                .join(&image, JoinHow::root())
                .await
                .bind(Some(&image), task_bind())
                .await,
            IMAGE,
        ),
        (
            "task settings for the executor",
            node.open().await.bind(Some(&executor), task_bind()).await,
            X,
        ),
        (
            "task settings for everything",
            node.open().await.bind(None, task_bind()).await,
            X,
        ),
        (
            "limits for a task",
            node.open()
                .await
                .join(&task, JoinHow::Task)
                .await
                .bind(Some(&task), BindHow::Executor(Limits::default()))
                .await,
            "task://t/a",
        ),
        (
            "sub path out",
            node.open().await.join(&one, sub("../x")).await,
            "volume://v/one",
        ),
        (
            "sub path absolute",
            node.open().await.join(&one, sub("/etc")).await,
            "volume://v/one",
        ),
        (
            "sub path empty",
            node.open().await.join(&one, sub("")).await,
            "volume://v/one",
        ),
        (
            "sub path with NUL",
            node.open().await.join(&one, sub("a\0b")).await,
            "volume://v/one",
        ),
        (
            "read-only tmpfs",
            node.open()
                .await
                .join(&one, tmpfs(Access::ReadOnly, None))
                .await,
            "volume://v/one",
        ),
        (
            "sub path of a tmpfs",
            node.open()
                .await
                .join(&one, tmpfs(Access::ReadWrite, Some("a")))
                .await,
            "volume://v/one",
        ),
        (
            "copy-up of a read-only volume",
            node.open().await.join(&one, copy_up).await,
            "volume://v/one",
        ),
        ("task without root", node.open().await.task(&task).await, X),
        (
            "root not bound",
            node.open()
                .await
                .join(&image, JoinHow::root())
                .await
                .task(&task)
                .await,
            "task://t/a",
        ),
    ];
    assert!(cases.len() >= 27);
    for (name, edit, element) in cases {
        refused(&node, name, edit, element).await;
    }
}

#[tokio::test]
async fn bind_settings_that_break_a_rule() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let bind = |change: &dyn Fn(&mut TaskBind)| {
        let mut bind = TaskBind::default();
        change(&mut bind);
        bind
    };
    let stop = |signal, grace_ms| Some(StopSpec { signal, grace_ms });
    let image = id(IMAGE);
    let cases: Vec<(&str, TaskBind)> = vec![
        ("cwd", bind(&|b| b.cwd = Some("tmp".into()))),
        ("cwd", bind(&|b| b.cwd = Some("/proc/self/fd/7".into()))),
        ("cwd", bind(&|b| b.cwd = Some("/a/../../b".into()))),
        ("user", bind(&|b| b.user = Some("a:b:c".into()))),
        ("user", bind(&|b| b.user = Some("-1".into()))),
        ("user", bind(&|b| b.user = Some("4294967295".into()))),
        ("deadline_ms", bind(&|b| b.deadline_ms = Some(0))),
        ("deadline_ms", bind(&|b| b.deadline_ms = Some(u64::MAX))),
        ("stop.signal", bind(&|b| b.stop = stop(Some(65), 0))),
        ("stop.signal", bind(&|b| b.stop = stop(Some(-9), 0))),
        ("stop.grace_ms", bind(&|b| b.stop = stop(None, u64::MAX))),
        (
            "restart.backoff_ms",
            bind(&|b| b.restart = Some(RestartPolicy::Always { backoff_ms: 0 })),
        ),
        (
            "stdout.sink",
            bind(&|b| {
                b.stdout = Some(LogChoice {
                    sink: Some(image.clone()),
                    ..LogChoice::default()
                })
            }),
        ),
        (
            "stderr.required",
            bind(&|b| {
                b.stderr = Some(LogChoice {
                    required: true,
                    discard: true,
                    ..LogChoice::default()
                })
            }),
        ),
    ];
    for (expected, settings) in cases {
        let name = format!("{settings:?}");
        let edit = node
            .open()
            .await
            .root()
            .await
            .task_bound(&task, settings)
            .await;
        let error = refused(&node, &name, edit, "task://t/a").await;
        let CommitError::Compose(ComposeError::InvalidField { field, .. }) = &error else {
            panic!("{name}: {error}");
        };
        assert_eq!(field, expected, "{name}");
    }
    let executor = id(X);
    let tight = Limits {
        memory_bytes: Some(1),
        ..Limits::default()
    };
    let edit = node
        .open()
        .await
        .bind(Some(&executor), BindHow::Executor(tight))
        .await;
    refused(&node, "limits", edit, X).await;
}

/// Definitions that no create would take, as an older or damaged ledger may hold them: commit checks again.
#[tokio::test]
async fn stored_tasks_that_break_a_rule() {
    let node = Node::new().await;
    let spec = |change: &dyn Fn(&mut TaskSpec)| {
        let mut spec = TaskSpec {
            argv: vec!["exit".into(), "0".into()],
            ..TaskSpec::default()
        };
        change(&mut spec);
        spec
    };
    let rlimit = |name: &str, soft, hard| Rlimit {
        name: name.into(),
        soft,
        hard,
    };
    let secret = |name: &str| crate::task::Secret {
        name: name.into(),
        value: "hunter2".into(),
    };
    let cases: Vec<TaskSpec> = vec![
        spec(&|s| s.argv.clear()),
        spec(&|s| s.argv = vec![String::new()]),
        spec(&|s| s.argv.push("a\0b".into())),
        spec(&|s| s.argv.push("a".repeat(3 << 20))),
        spec(&|s| s.env.push((String::new(), "x".into()))),
        spec(&|s| s.env.push(("A=B".into(), "x".into()))),
        spec(&|s| s.env.push(("A".into(), "x\0".into()))),
        spec(&|s| s.secrets.push(secret("A\0"))),
        spec(&|s| s.cwd = Some("../..".into())),
        spec(&|s| s.user = Some("root:root:root".into())),
        spec(&|s| s.rlimits.push(rlimit("open_files", 1, 1))),
        spec(&|s| s.rlimits.push(rlimit("nofile", 2, 1))),
        spec(&|s| s.rlimits = vec![rlimit("nofile", 1, 1), rlimit("nofile", 2, 2)]),
        spec(&|s| s.deadline_ms = Some(0)),
        spec(&|s| s.stop.signal = Some(0)),
    ];
    for (number, spec) in cases.into_iter().enumerate() {
        let text = format!("task://t/n{number}");
        let task = node
            .put(&text, Body::Task(Box::new(TaskBody { spec })))
            .await;
        let edit = node.open().await.root().await.task(&task).await;
        let error = refused(&node, &text, edit, &text).await;
        assert!(
            matches!(error, CommitError::Invalid { .. }),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn requirements_nothing_provides() {
    let node = Node::new().await;
    let sink = id("log://node/file");
    let logged = |field: &'static str| {
        let sink = sink.clone();
        move |spec: &mut TaskSpec| {
            let choice = LogChoice {
                sink: Some(sink),
                required: true,
                discard: false,
            };
            match field {
                "stdout" => spec.stdout = choice,
                _ => spec.stderr = choice,
            }
        }
    };
    for (text, field) in [("task://t/out", "stdout"), ("task://t/err", "stderr")] {
        let task = node.task_with(text, "exit 0", logged(field)).await;
        let edit = node.open().await.root().await.task(&task).await;
        let error = refused(&node, text, edit, text).await;
        assert!(
            matches!(&error, CommitError::UnresolvedRequirement { requirement, .. } if requirement.contains("log://node/file")),
            "{error}"
        );
    }
    // A task stored with a volume needs it in the composition, and stays below it.
    let volume = node.volume("volume://v/tools").await;
    let mut owned = Vec::new();
    for (text, program) in [
        ("task://t/owned", "/exit"),
        ("task://t/escape", "/../bin/sh"),
        ("task://t/bare", "sh"),
    ] {
        let task = node.task(text, program).await;
        let mut record = node.record(&task);
        record.owner = Some(volume.clone());
        node.write(record).await;
        owned.push(task);
    }
    let edit = node.open().await.root().await.task(&owned[0]).await;
    let error = refused(&node, "owner missing", edit, "task://t/owned").await;
    assert!(
        matches!(error, CommitError::UnresolvedRequirement { .. }),
        "{error}"
    );
    for task in &owned[1..] {
        let edit = node
            .open()
            .await
            .root()
            .await
            .part(&volume, JoinHow::volume("/tools"))
            .await
            .task(task)
            .await;
        let error = refused(&node, "escape", edit, task.as_str()).await;
        assert!(
            matches!(&error, CommitError::Invalid { field, .. } if field == "argv[0]"),
            "{error}"
        );
    }
    let task = node.task("task://t/plain", "exit 0").await;
    let edit = node.open().await.task(&task).await;
    assert!(matches!(
        refused(&node, "no root", edit, X).await,
        CommitError::NoRoot { .. }
    ));
}

#[tokio::test]
async fn executors_that_are_none_or_hold_bad_settings() {
    let node = Node::new().await;
    for text in ["executor://x/absent", "task://t/absent", IMAGE] {
        let error = node.layer.compose(&id(text)).await.unwrap_err();
        assert_eq!(error.element(), Some(&id(text)), "{error}");
    }
    let bad = |change: &dyn Fn(&mut ExecutorSpec)| {
        let mut spec = ExecutorSpec::default();
        change(&mut spec);
        spec
    };
    let cases = [
        bad(&|s| s.hostname = Some("a b".into())),
        bad(&|s| s.hostname = Some("../x".into())),
        bad(&|s| s.limits.memory_bytes = Some(1)),
        bad(&|s| s.limits.memory_swap_bytes = Some(1 << 30)),
        bad(&|s| s.limits.cpu_shares = Some(1)),
        bad(&|s| s.limits.pids = Some(0)),
        bad(&|s| s.isolation.add_capabilities.push("ALL".into())),
    ];
    let task = node.task("task://t/a", "exit 0").await;
    for (number, spec) in cases.into_iter().enumerate() {
        let executor = node
            .executor_with(&format!("executor://x/n{number}"), spec)
            .await;
        let edit = node.open_of(&executor).await.root().await.task(&task).await;
        let error = refused(&node, executor.as_str(), edit, executor.as_str()).await;
        assert!(matches!(error, CommitError::Invalid { .. }), "{error}");
    }
}

#[tokio::test]
async fn tokens_that_are_no_handles() {
    let node = Node::new().await;
    let handle = node.open().await.root().await.handle();
    let mut token = handle.to_token();
    assert_eq!(crate::compose::Handle::from_token(&token).unwrap(), handle);
    token.truncate(token.len() / 2);
    for bytes in [&b""[..], b"null", b"{}", b"\xff\xfe", &token] {
        assert!(crate::compose::Handle::from_token(bytes).is_err());
    }
    let foreign = br#"{"executor":"image://images/base","revision":1,"ops":[]}"#;
    let handle = crate::compose::Handle::from_token(foreign).unwrap();
    let error = node.layer.commit(handle).await.unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::Compose(ComposeError::NotAnExecutor { .. })
        ),
        "{error}"
    );
    // A handle that was tampered with is checked like any other.
    let ops = br#"{"executor":"executor://x/x1","revision":1,"ops":[{"join":{"id":"volume://v/x","how":{"volume":{"target":"/proc","access":"read-write","sub_path":null,"copy_up":false,"tmpfs_bytes":null}},"revision":1}}]}"#;
    let handle = crate::compose::Handle::from_token(ops).unwrap();
    node.volume("volume://v/x").await;
    node.engine.clear_journal();
    let error = node.layer.commit(handle).await.unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::Compose(ComposeError::InvalidField { .. })
        ),
        "{error}"
    );
    assert!(node.engine.journal().is_empty());
    let _: &ElementId = error.element().unwrap();
}
