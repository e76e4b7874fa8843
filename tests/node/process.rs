//! Containers and processes through the `Runtime` trait, against a real containerd.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use futures::TryStreamExt;
use oci_spec::runtime::{
    LinuxBuilder, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, MountBuilder, Process, ProcessBuilder, Spec, SpecBuilder,
};
use portlayer::{
    element::ElementId,
    runtime::suite::{self, Script, Subject},
    runtime::{
        ContainerId, ContainerPlan, Delivery, LogQuery, LogStreams, MountPlan, NetworkPlan,
        OutputPlan, ProcessExit, ProcessId, ProcessPlan, ProcessState, RootPlan, Runtime,
        RuntimeErrorKind, Scope, SignalScope,
    },
    store::{Access, MountSource},
    task::ExitReason,
};
use portlayer_runtime::{Containerd, image::KEY_SNAPSHOT};

use crate::support::node::{Room, busybox};

fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

/// A specification as commit would build it, small.
fn spec(memory_bytes: Option<i64>) -> Spec {
    let mount = |target: &str, kind: &str, options: &[&str]| {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        MountBuilder::default()
            .destination(target)
            .typ(kind)
            .source(kind)
            .options(options)
            .build()
            .unwrap()
    };
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Network,
    ];
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().unwrap())
        .collect();
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(limit) = memory_bytes {
        resources = resources.memory(
            LinuxMemoryBuilder::default()
                .limit(limit)
                .swap(limit)
                .build()
                .unwrap(),
        );
    }
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources.build().unwrap())
        .build()
        .unwrap();
    SpecBuilder::default()
        .version("1.0.2")
        .hostname("test")
        .mounts(vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                ],
            ),
        ])
        .linux(linux)
        .build()
        .unwrap()
}

fn process(argv: &[&str], terminal: bool) -> Process {
    ProcessBuilder::default()
        .args(
            argv.iter()
                .map(|&argument| argument.to_owned())
                .collect::<Vec<_>>(),
        )
        .env(vec!["PATH=/bin".to_owned()])
        .cwd("/")
        .terminal(terminal)
        .no_new_privileges(true)
        .build()
        .unwrap()
}

/// One executor under test.
struct Executor {
    runtime: Arc<Containerd>,
    executor: ElementId,
    container: ContainerId,
    scope: Scope,
    root: RootPlan,
    mounts: Vec<MountPlan>,
    memory_bytes: Option<i64>,
    several: bool,
}

impl Executor {
    async fn new(runtime: &Arc<Containerd>, name: &str) -> Executor {
        let executor = id(&format!("executor://local/{name}"));
        let container = ContainerId::new(&executor, 1);
        let scope = Scope::new(&container, 1);
        let keys = BTreeMap::from([(KEY_SNAPSHOT.to_owned(), "busybox".to_owned())]);
        let root = RootPlan {
            image: Some(keys),
            access: Access::ReadWrite,
            ids: None,
            disk: None,
        };
        Executor {
            runtime: Arc::clone(runtime),
            executor,
            container,
            scope,
            root,
            mounts: Vec::new(),
            memory_bytes: None,
            several: false,
        }
    }

    fn plan(&self, task: &str, argv: &[&str], primary: bool) -> ProcessPlan {
        let task = id(&format!("task://local/{task}"));
        ProcessPlan {
            id: ProcessId::new(self.container.clone(), &task, 1),
            primary,
            task,
            run: 1,
            process: process(argv, false),
            user_text: String::new(),
            stdin: false,
            sinks: Vec::new(),
            redact: Vec::new(),
            stdout: OutputPlan::Required,
            stderr: OutputPlan::Required,
        }
    }

    fn container_plan(&self) -> ContainerPlan {
        ContainerPlan {
            id: self.container.clone(),
            executor: self.executor.clone(),
            revision: 1,
            root: self.root.clone(),
            mounts: self.mounts.clone(),
            network: NetworkPlan::None,
            spec: spec(self.memory_bytes),
            several: self.several,
        }
    }

    async fn create(&self, primary: &ProcessPlan) {
        let plan = self.container_plan();
        self.runtime.begin(&self.scope).await.unwrap();
        self.runtime
            .prepare_root(&self.scope, &self.container, &self.root)
            .await
            .unwrap();
        self.runtime.check_mounts(&plan).await.unwrap();
        self.runtime
            .create_container(&self.scope, &plan, primary)
            .await
            .unwrap();
        self.runtime.create_process(primary).await.unwrap();
        self.runtime.end(&self.scope).await.unwrap();
    }

    async fn start(&self, primary: &ProcessPlan) {
        self.create(primary).await;
        self.runtime.start_process(&primary.id, true).await.unwrap();
    }

    /// Runs one command to its end; the container stays.
    async fn run(&self, argv: &[&str]) -> (ProcessExit, String, ProcessPlan) {
        let plan = self.plan("main", argv, true);
        self.start(&plan).await;
        let exit = self.runtime.wait_process(&plan.id, true).await.unwrap();
        (exit, self.output("main").await, plan)
    }

    async fn output(&self, task: &str) -> String {
        let query = LogQuery {
            executor: self.executor.clone(),
            task: id(&format!("task://local/{task}")),
            streams: LogStreams::Both,
            since: None,
            tail: None,
            follow: false,
        };
        text(self.runtime.as_ref(), &query).await
    }

    async fn remove(&self, primary: &ProcessPlan) {
        self.runtime
            .delete_process(&primary.id, true, true)
            .await
            .unwrap();
        self.runtime
            .delete_container(&self.container)
            .await
            .unwrap();
        self.runtime.remove_root(&self.container).await.unwrap();
        self.runtime.remove_logs(&self.executor).await.unwrap();
        // All of it again: what is gone is fine.
        self.runtime
            .delete_process(&primary.id, true, true)
            .await
            .unwrap();
        self.runtime
            .delete_container(&self.container)
            .await
            .unwrap();
        self.runtime.remove_root(&self.container).await.unwrap();
        self.runtime.remove_logs(&self.executor).await.unwrap();
        let left: Vec<_> = self
            .runtime
            .audit()
            .await
            .unwrap()
            .into_iter()
            .filter(|finding| {
                finding.owner.as_deref() == Some(self.container.as_str())
                    || finding.name == self.container.as_str()
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn text(runtime: &Containerd, query: &LogQuery) -> String {
    let chunks: Vec<_> = runtime
        .logs(query)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    chunks
        .into_iter()
        .map(|chunk| String::from_utf8(chunk.bytes).unwrap())
        .collect()
}

async fn node() -> (Room, Arc<Containerd>) {
    let room = Room::new();
    let runtime = room.runtime().await;
    busybox(&runtime.client()).await;
    (room, runtime)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_leaves_nothing() {
    let (room, runtime) = node().await;
    let before = runtime.audit().await.unwrap();
    let executor = Executor::new(&runtime, "run").await;
    let (exit, output, plan) = executor
        .run(&["sh", "-c", "echo out; echo err >&2; exit 7"])
        .await;
    assert_eq!(
        (exit.reason, exit.code, exit.signal),
        (ExitReason::Exited, Some(7), None)
    );
    assert!(
        exit.cpu_ns.unwrap() > 0 && exit.memory_peak_bytes.unwrap() > 0,
        "{exit:?}"
    );
    assert!(
        output.contains("out\n") && output.contains("err\n"),
        "{output:?}"
    );
    // Asked again, in a state where it has ended.
    assert_eq!(runtime.wait_process(&plan.id, true).await.unwrap(), exit);
    assert_eq!(
        runtime.process_state(&plan.id, true).await.unwrap(),
        ProcessState::Stopped(exit)
    );
    assert_eq!(
        runtime
            .signal(&plan.id, true, 15, SignalScope::Process)
            .await
            .unwrap(),
        Delivery::AlreadyExited
    );
    executor.remove(&plan).await;
    assert_eq!(runtime.audit().await.unwrap(), before);
    runtime.stop().await.unwrap();
    assert!(!room.directory().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_apart() {
    let (_room, runtime) = node().await;
    let mut executor = Executor::new(&runtime, "ends").await;
    executor.memory_bytes = Some(32 << 20);

    let (exit, _, plan) = executor.run(&["sh", "-c", "exit 137"]).await;
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(137)));
    executor.remove(&plan).await;

    let plan = executor.plan("main", &["sleep", "1000"], true);
    executor.start(&plan).await;
    assert_eq!(
        runtime
            .signal(&plan.id, true, 9, SignalScope::Process)
            .await
            .unwrap(),
        Delivery::Delivered
    );
    let exit = runtime.wait_process(&plan.id, true).await.unwrap();
    assert_eq!((exit.reason, exit.signal), (ExitReason::Signaled, Some(9)));
    executor.remove(&plan).await;

    let (exit, _, plan) = executor.run(&["sh", "-c", "tail /dev/zero"]).await;
    assert_eq!(exit.reason, ExitReason::Oom, "{exit:?}");
    executor.remove(&plan).await;

    for (program, kind) in [
        ("/no/such", RuntimeErrorKind::ExecutableNotFound),
        ("/etc/passwd", RuntimeErrorKind::NotExecutable),
    ] {
        let plan = executor.plan("main", &[program], true);
        executor.create(&plan).await;
        let error = runtime.start_process(&plan.id, true).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error:?}");
        let exit = runtime.wait_process(&plan.id, true).await.unwrap();
        assert_eq!(exit.reason, ExitReason::StartFailed);
        executor.remove(&plan).await;
    }
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn further_tasks_outlive_the_primary() {
    let (_room, runtime) = node().await;
    let executor = Executor::new(&runtime, "further").await;
    let primary = executor.plan("main", &["sh", "-c", "read line; echo $line; exit 3"], true);
    let primary = ProcessPlan {
        stdin: true,
        ..primary
    };
    executor.start(&primary).await;

    let further = ProcessPlan {
        stdin: true,
        ..executor.plan("further", &["sh", "-c", "cat; kill -TERM $$"], false)
    };
    runtime.create_process(&further).await.unwrap();
    runtime.start_process(&further.id, false).await.unwrap();
    let missing = executor.plan("missing", &["no-such"], false);
    runtime.create_process(&missing).await.unwrap();
    let error = runtime.start_process(&missing.id, false).await.unwrap_err();
    assert_eq!(
        error.kind,
        RuntimeErrorKind::ExecutableNotFound,
        "{error:?}"
    );
    runtime
        .delete_process(&missing.id, false, true)
        .await
        .unwrap();

    runtime
        .write_stdin(&primary.id, true, Box::pin(&b"hello\n"[..]))
        .await
        .unwrap();
    let exit = runtime.wait_process(&primary.id, true).await.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(3)));
    assert_eq!(executor.output("main").await, "hello\n");
    assert_eq!(
        runtime.process_state(&further.id, false).await.unwrap(),
        ProcessState::Running
    );

    runtime
        .write_stdin(&further.id, false, Box::pin(&b"more\n"[..]))
        .await
        .unwrap();
    let exit = runtime.wait_process(&further.id, false).await.unwrap();
    // The engine gives a signal and a code above 128 alike; who sent the signal knows more.
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(143)));
    assert_eq!(executor.output("further").await, "more\n");
    runtime
        .delete_process(&further.id, false, false)
        .await
        .unwrap();
    executor.remove(&primary).await;
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_ours_and_of_the_engine_loses_nothing() {
    let (room, runtime) = node().await;
    let executor = Executor::new(&runtime, "again").await;
    let plan = executor.plan(
        "main",
        &["sh", "-c", "echo one; read line; echo two; exit 9"],
        true,
    );
    let plan = ProcessPlan {
        stdin: true,
        ..plan
    };
    executor.start(&plan).await;
    drop(executor);
    drop(runtime);
    let mut engine = room.engine().await;
    engine.restart().await.unwrap();
    let runtime = Arc::new(Containerd::open(engine).await.unwrap());
    let executor = Executor::new(&runtime, "again").await;
    let found = runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].id, &found[0].executor),
        (&executor.container, &Some(executor.executor.clone()))
    );
    assert_eq!(found[0].primary, Some(ProcessState::Running));
    runtime
        .write_stdin(&plan.id, true, Box::pin(&b"go\n"[..]))
        .await
        .unwrap();
    let exit = runtime.wait_process(&plan.id, true).await.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(9)));
    assert_eq!(executor.output("main").await, "one\ntwo\n");
    executor.remove(&plan).await;
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_attached_and_detached() {
    let (_room, runtime) = node().await;
    let volume = tempfile::tempdir().unwrap();
    std::fs::create_dir(volume.path().join("sub")).unwrap();
    std::fs::write(volume.path().join("sub/file"), "in sub\n").unwrap();
    let mut executor = Executor::new(&runtime, "mounts").await;
    let mount = |target: &str, access, sub_path: Option<&str>| MountPlan {
        volume: id("volume://local/v"),
        source: MountSource::Path(volume.path().to_owned()),
        target: target.to_owned(),
        access,
        sub_path: sub_path.map(str::to_owned),
        copy_up: false,
    };
    executor.mounts = vec![
        mount("/data", Access::ReadWrite, None),
        mount("/part", Access::ReadOnly, Some("sub")),
        MountPlan {
            source: MountSource::Tmpfs {
                size_bytes: 1 << 20,
                mode: 0o1777,
            },
            ..mount("/scratch", Access::ReadWrite, None)
        },
    ];
    let script = "echo written > /data/new; cat /part/file; touch /part/x 2>/dev/null || echo read-only; touch /scratch/x && echo tmp; read go";
    let plan = ProcessPlan {
        stdin: true,
        ..executor.plan("main", &["sh", "-c", script], true)
    };
    executor.start(&plan).await;

    let live = mount("/live/deep", Access::ReadOnly, None);
    runtime
        .attach_mount(&executor.container, &live)
        .await
        .unwrap();
    let look = executor.plan(
        "look",
        &[
            "sh",
            "-c",
            "cat /live/deep/sub/file; touch /live/deep/x 2>/dev/null || echo refused",
        ],
        false,
    );
    runtime.create_process(&look).await.unwrap();
    runtime.start_process(&look.id, false).await.unwrap();
    runtime.wait_process(&look.id, false).await.unwrap();
    runtime
        .delete_process(&look.id, false, false)
        .await
        .unwrap();
    assert_eq!(executor.output("look").await, "in sub\nrefused\n");
    runtime
        .detach_mount(&executor.container, "/live/deep")
        .await
        .unwrap();
    runtime
        .detach_mount(&executor.container, "/live/deep")
        .await
        .unwrap();
    let gone = executor.plan("gone", &["ls", "/live/deep"], false);
    runtime.create_process(&gone).await.unwrap();
    runtime.start_process(&gone.id, false).await.unwrap();
    runtime.wait_process(&gone.id, false).await.unwrap();
    assert_eq!(executor.output("gone").await, "");

    assert_eq!(
        runtime
            .signal(&plan.id, true, 9, SignalScope::All)
            .await
            .unwrap(),
        Delivery::Delivered
    );
    runtime.wait_process(&plan.id, true).await.unwrap();
    assert_eq!(executor.output("main").await, "in sub\nread-only\ntmp\n");
    assert_eq!(
        std::fs::read_to_string(volume.path().join("new")).unwrap(),
        "written\n"
    );
    executor.remove(&plan).await;
    assert!(volume.path().join("sub/file").exists());
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_targets_and_users_are_refused_before_anything_runs() {
    let (_room, runtime) = node().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut executor = Executor::new(&runtime, "bad").await;
    let mount = |target: &str, source: &Path| MountPlan {
        volume: id("volume://local/v"),
        source: MountSource::Path(source.to_owned()),
        target: target.to_owned(),
        access: Access::ReadWrite,
        sub_path: None,
        copy_up: false,
    };
    executor.root.access = Access::ReadOnly;
    runtime.begin(&executor.scope).await.unwrap();
    runtime
        .prepare_root(&executor.scope, &executor.container, &executor.root)
        .await
        .unwrap();
    let cases = [
        (
            mount("/missing", Path::new("/var/tmp")),
            "is missing in a read-only root",
        ),
        (
            mount("/bin", file.path()),
            "is a directory and the source is a file",
        ),
        (
            mount("/bin/busybox", Path::new("/var/tmp")),
            "is a file and the source is a directory",
        ),
    ];
    for (mount, expected) in cases {
        executor.mounts = vec![mount];
        let error = runtime
            .check_mounts(&executor.container_plan())
            .await
            .unwrap_err();
        assert!(
            matches!(&error.kind, RuntimeErrorKind::MountTarget { rule, .. } if *rule == expected),
            "{error:?}"
        );
    }
    executor.mounts.clear();
    let plan = ProcessPlan {
        user_text: "nobody-here".into(),
        ..executor.plan("main", &["true"], true)
    };
    let error = runtime
        .create_container(&executor.scope, &executor.container_plan(), &plan)
        .await
        .unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::UnknownUser);
    runtime.purge(&executor.container).await.unwrap();
    runtime.purge(&executor.container).await.unwrap();
    let left: Vec<_> = runtime
        .audit()
        .await
        .unwrap()
        .into_iter()
        .filter(|finding| finding.owner.as_deref() == Some(executor.container.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_for_several_tasks_outlives_the_first() {
    let (_room, runtime) = node().await;
    let mut executor = Executor::new(&runtime, "several").await;
    executor.several = true;
    let (exit, _, primary) = executor.run(&["true"]).await;
    assert_eq!(exit.code, Some(0));
    let later = ProcessPlan {
        user_text: "web".into(),
        ..executor.plan("later", &["sh", "-c", "id; echo $HOME"], false)
    };
    runtime.create_process(&later).await.unwrap();
    runtime.start_process(&later.id, false).await.unwrap();
    assert_eq!(
        runtime.wait_process(&later.id, false).await.unwrap().code,
        Some(0)
    );
    let output = executor.output("later").await;
    assert!(
        output.starts_with("uid=33(web) gid=34(web)") && output.contains("40(logs)"),
        "{output}"
    );
    assert!(output.ends_with("/srv\n"), "{output}");
    // A further task's own code above 128 is not taken for a signal.
    let coded = executor.plan("coded", &["sh", "-c", "exit 139"], false);
    runtime.create_process(&coded).await.unwrap();
    runtime.start_process(&coded.id, false).await.unwrap();
    let exit = runtime.wait_process(&coded.id, false).await.unwrap();
    assert_eq!(
        (exit.reason, exit.code, exit.signal),
        (ExitReason::Exited, Some(139), None)
    );
    executor.remove(&primary).await;
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_terminal_and_a_second_writer() {
    let (_room, runtime) = node().await;
    let executor = Executor::new(&runtime, "terminal").await;
    let plan = executor.plan("main", &["sh", "-c", "read a; echo got $a; read b"], true);
    let plan = ProcessPlan {
        stdin: true,
        process: process(&["sh", "-c", "read a; echo got $a; read b"], true),
        ..plan
    };
    executor.start(&plan).await;
    runtime.resize(&plan.id, true, 100, 40).await.unwrap();
    assert_eq!(
        runtime.set_paused(&executor.container, true).await.unwrap(),
        Delivery::Delivered
    );
    assert_eq!(
        runtime.set_paused(&executor.container, true).await.unwrap(),
        Delivery::Delivered
    );
    assert_eq!(
        runtime.process_state(&plan.id, true).await.unwrap(),
        ProcessState::Paused
    );
    assert_eq!(
        runtime
            .set_paused(&executor.container, false)
            .await
            .unwrap(),
        Delivery::Delivered
    );

    let (mut writer, reader) = tokio::io::duplex(64);
    let (first, id) = (Arc::clone(&runtime), plan.id.clone());
    let writing = tokio::spawn(async move { first.write_stdin(&id, true, Box::pin(reader)).await });
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"it\n")
        .await
        .unwrap();
    let query = LogQuery {
        executor: executor.executor.clone(),
        task: plan.task.clone(),
        streams: LogStreams::Both,
        since: None,
        tail: None,
        follow: true,
    };
    let mut log = runtime.logs(&query).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("got it") {
        seen += std::str::from_utf8(&log.try_next().await.unwrap().unwrap().bytes).unwrap();
    }
    let refused = runtime
        .write_stdin(&plan.id, true, Box::pin(tokio::io::empty()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, RuntimeErrorKind::Busy);
    // A paused container can be removed too.
    runtime.set_paused(&executor.container, true).await.unwrap();
    executor.remove(&plan).await;
    writing.await.unwrap().unwrap();
    // The follower learns that nobody writes any more.
    while log.try_next().await.unwrap().is_some() {}
    runtime.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_runtimes() {
    let (_room, runtime) = node().await;
    let subject = Subject {
        runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
        image: Some(BTreeMap::from([(
            KEY_SNAPSHOT.to_owned(),
            "busybox".to_owned(),
        )])),
        spec: spec(None),
        argv: |script| {
            let argv: &[&str] = match script {
                Script::HelloThenSeven => &["sh", "-c", "echo hello; exit 7"],
                Script::Hang => &["sleep", "100000"],
                Script::Copy => &["cat"],
                Script::Missing => &["no-such-program"],
            };
            argv.iter().map(|&argument| argument.to_owned()).collect()
        },
    };
    suite::run(&subject).await;
    runtime.stop().await.unwrap();
}
