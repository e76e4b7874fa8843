//! What every [`Runtime`] must do, as one function to call from a test of an implementation.
//!
//! Panics with the broken rule. Leaves nothing behind: that is one of the rules.

use std::sync::Arc;

use futures::TryStreamExt;
use oci_spec::runtime::{Process, ProcessBuilder, Spec};

use super::{
    ContainerId, ContainerPlan, Delivery, FoundContainer, LogQuery, LogStreams, NetworkPlan,
    OutputPlan, ProcessExit, ProcessId, ProcessPlan, ProcessState, RootPlan, Runtime,
    RuntimeErrorKind, Scope, SignalScope,
};
use crate::element::{ElementId, StoreKeys};
use crate::store::Access;
use crate::task::ExitReason;

/// What the programs of the suite do; the argument vectors for them depend on what the runtime can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Writes `hello` and a newline to standard output, then returns 7.
    HelloThenSeven,
    /// Runs until a signal ends it.
    Hang,
    /// Copies standard input to standard output, then returns 0.
    Copy,
    /// A program that does not exist.
    Missing,
}

/// A runtime under test.
pub struct Subject {
    /// The runtime; nothing of the suite's names may be in it.
    pub runtime: Arc<dyn Runtime>,
    /// Keys of an image in which the scripts run.
    pub image: Option<StoreKeys>,
    /// The container's specification without process and volumes.
    pub spec: Spec,
    /// The argument vector of a script.
    pub argv: fn(Script) -> Vec<String>,
}

/// Runs every check.
pub async fn run(subject: &Subject) {
    let before = subject.runtime.audit().await.expect("audit");
    ends_are_kept(subject).await;
    signals_are_answered(subject).await;
    further_processes(subject).await;
    a_missing_program_is_named(subject).await;
    purge_removes_everything(subject).await;
    what_is_half_made_is_found(subject).await;
    let after = subject.runtime.audit().await.expect("audit");
    assert_eq!(after, before, "the suite removed what it made");
}

/// One executor of the suite.
struct Bench<'a> {
    subject: &'a Subject,
    executor: ElementId,
    container: ContainerId,
    scope: Scope,
}

impl<'a> Bench<'a> {
    fn new(subject: &'a Subject, name: &str) -> Self {
        let executor = id(&format!("executor://suite/{name}"));
        let container = ContainerId::new(&executor, 1);
        let scope = Scope::new(&container, 1);
        Bench {
            subject,
            executor,
            container,
            scope,
        }
    }

    fn runtime(&self) -> &dyn Runtime {
        &*self.subject.runtime
    }

    fn process(&self, task: &str, script: Script, primary: bool) -> ProcessPlan {
        let task = id(&format!("task://suite/{task}"));
        let process: Process = ProcessBuilder::default()
            .args((self.subject.argv)(script))
            .env(vec!["PATH=/bin:/usr/bin".to_owned()])
            .cwd("/")
            .no_new_privileges(true)
            .build()
            .expect("all that is needed is set");
        ProcessPlan {
            id: ProcessId::new(self.container.clone(), &task, 1),
            primary,
            task,
            run: 1,
            process,
            user_text: String::new(),
            stdin: script == Script::Copy,
            sinks: Vec::new(),
            redact: Vec::new(),
            stdout: OutputPlan::Required,
            stderr: OutputPlan::Required,
        }
    }

    fn plan(&self) -> ContainerPlan {
        ContainerPlan {
            id: self.container.clone(),
            executor: self.executor.clone(),
            revision: 1,
            root: RootPlan {
                image: self.subject.image.clone(),
                access: Access::ReadWrite,
                ids: None,
                disk: None,
            },
            mounts: Vec::new(),
            network: NetworkPlan::None,
            spec: self.subject.spec.clone(),
            several: false,
        }
    }

    async fn create(&self, primary: &ProcessPlan) {
        let (runtime, plan) = (self.runtime(), self.plan());
        // Opening a scope and making a root may be repeated, as after a crash.
        for _ in 0..2 {
            runtime
                .begin(&self.scope)
                .await
                .expect("begin is idempotent");
            runtime
                .prepare_root(&self.scope, &self.container, &plan.root)
                .await
                .expect("prepare_root is idempotent");
        }
        runtime
            .check_mounts(&plan)
            .await
            .expect("a plan without mounts has no bad one");
        runtime
            .create_container(&self.scope, &plan, primary)
            .await
            .expect("create_container");
        let again = runtime.create_container(&self.scope, &plan, primary).await;
        assert_eq!(
            again.expect_err("a second create is refused").kind,
            RuntimeErrorKind::AlreadyExists
        );
        runtime
            .create_process(primary)
            .await
            .expect("create_process");
        assert_eq!(self.state(primary).await, ProcessState::Created);
        runtime.end(&self.scope).await.expect("end");
        runtime.end(&self.scope).await.expect("end is idempotent");
    }

    async fn start(&self, primary: &ProcessPlan) {
        self.create(primary).await;
        self.runtime()
            .start_process(&primary.id, true)
            .await
            .expect("start_process");
    }

    async fn state(&self, plan: &ProcessPlan) -> ProcessState {
        self.runtime()
            .process_state(&plan.id, plan.primary)
            .await
            .expect("process_state")
    }

    async fn wait(&self, plan: &ProcessPlan) -> ProcessExit {
        self.runtime()
            .wait_process(&plan.id, plan.primary)
            .await
            .expect("wait_process")
    }

    async fn signal(&self, plan: &ProcessPlan, signal: i32) -> Delivery {
        self.runtime()
            .signal(&plan.id, plan.primary, signal, SignalScope::Process)
            .await
            .expect("signal")
    }

    async fn output(&self, plan: &ProcessPlan) -> Vec<u8> {
        let query = LogQuery {
            executor: self.executor.clone(),
            task: plan.task.clone(),
            streams: LogStreams::Stdout,
            since: None,
            tail: None,
            follow: false,
        };
        let log = self.runtime().logs(&query).await.expect("logs");
        log.map_ok(|chunk| chunk.bytes)
            .try_concat()
            .await
            .expect("every chunk is read")
    }

    async fn remove(&self, primary: &ProcessPlan) {
        let runtime = self.runtime();
        for _ in 0..2 {
            runtime
                .delete_process(&primary.id, true, true)
                .await
                .expect("delete_process is idempotent");
            runtime
                .delete_container(&self.container)
                .await
                .expect("delete_container is idempotent");
            runtime
                .remove_root(&self.container)
                .await
                .expect("remove_root is idempotent");
            runtime
                .remove_logs(&self.executor)
                .await
                .expect("remove_logs is idempotent");
        }
        assert_eq!(
            self.state(primary).await,
            ProcessState::Unknown,
            "a deleted process is unknown"
        );
        assert_eq!(
            self.signal(primary, 15).await,
            Delivery::NotRunning,
            "a deleted process is not running"
        );
        let lost = self.wait(primary).await;
        assert_eq!(
            (lost.reason, lost.code),
            (ExitReason::Lost, None),
            "an unknown process is lost, never 0"
        );
    }
}

fn id(text: &str) -> ElementId {
    text.parse().expect("a valid id")
}

async fn ends_are_kept(subject: &Subject) {
    let bench = Bench::new(subject, "ends");
    let primary = bench.process("main", Script::HelloThenSeven, true);
    bench.start(&primary).await;
    let exit = bench.wait(&primary).await;
    assert_eq!(
        (exit.reason, exit.code, exit.signal),
        (ExitReason::Exited, Some(7), None)
    );
    assert_eq!(
        bench.wait(&primary).await,
        exit,
        "every wait gets the same answer"
    );
    assert_eq!(bench.state(&primary).await, ProcessState::Stopped(exit));
    assert_eq!(
        bench.output(&primary).await,
        b"hello\n",
        "output is stored before the end is told"
    );
    assert_eq!(bench.signal(&primary, 15).await, Delivery::AlreadyExited);
    bench.remove(&primary).await;
}

async fn signals_are_answered(subject: &Subject) {
    for signal in [15, 9] {
        let bench = Bench::new(subject, "signals");
        let primary = bench.process("main", Script::Hang, true);
        bench.start(&primary).await;
        assert_eq!(bench.state(&primary).await, ProcessState::Running);
        assert_eq!(bench.signal(&primary, signal).await, Delivery::Delivered);
        let exit = bench.wait(&primary).await;
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Signaled, None, Some(signal))
        );
        bench.remove(&primary).await;
    }
}

async fn further_processes(subject: &Subject) {
    let bench = Bench::new(subject, "further");
    let primary = bench.process("main", Script::Hang, true);
    bench.start(&primary).await;
    let further = bench.process("further", Script::Copy, false);
    let runtime = bench.runtime();
    runtime
        .create_process(&further)
        .await
        .expect("create a further process");
    runtime
        .start_process(&further.id, false)
        .await
        .expect("start a further process");
    runtime
        .write_stdin(&further.id, false, Box::pin(&b"copied\n"[..]))
        .await
        .expect("write_stdin");
    assert_eq!(bench.wait(&further).await.code, Some(0));
    assert_eq!(bench.output(&further).await, b"copied\n");
    runtime
        .delete_process(&further.id, false, false)
        .await
        .expect("delete_process");
    assert_eq!(
        bench.state(&primary).await,
        ProcessState::Running,
        "the end of one is not the end of the other"
    );
    let found = runtime.list().await.expect("list");
    let ours = found
        .iter()
        .find(|found| found.id == bench.container)
        .expect("the container is listed");
    assert_eq!(
        (&ours.executor, &ours.primary),
        (&Some(bench.executor.clone()), &Some(ProcessState::Running))
    );
    bench.remove(&primary).await;
}

async fn a_missing_program_is_named(subject: &Subject) {
    let bench = Bench::new(subject, "missing");
    let primary = bench.process("main", Script::Missing, true);
    bench.create(&primary).await;
    let error = bench
        .runtime()
        .start_process(&primary.id, true)
        .await
        .expect_err("it cannot be started");
    assert_eq!(error.kind, RuntimeErrorKind::ExecutableNotFound);
    bench.remove(&primary).await;
}

async fn purge_removes_everything(subject: &Subject) {
    let bench = Bench::new(subject, "purge");
    let primary = bench.process("main", Script::Hang, true);
    bench.start(&primary).await;
    for _ in 0..2 {
        bench
            .runtime()
            .purge(&bench.container)
            .await
            .expect("purge is idempotent");
    }
    bench
        .runtime()
        .remove_logs(&bench.executor)
        .await
        .expect("remove_logs");
    assert_eq!(bench.state(&primary).await, ProcessState::Unknown);
    let found = bench.runtime().list().await.expect("list");
    assert!(
        found.iter().all(|found| found.id != bench.container),
        "it is not listed any more"
    );
}

/// A commit that died early has made a lease, or a root too, and no record of a container.
async fn what_is_half_made_is_found(subject: &Subject) {
    for (name, with_root) in [("leased", false), ("rooted", true)] {
        let bench = Bench::new(subject, name);
        let (runtime, plan) = (bench.runtime(), bench.plan());
        runtime.begin(&bench.scope).await.expect("begin");
        if with_root {
            let root = runtime.prepare_root(&bench.scope, &bench.container, &plan.root);
            root.await.expect("prepare_root");
        }
        let half_made = FoundContainer::half_made(bench.container.clone());
        let found = runtime.list().await.expect("list");
        assert!(found.contains(&half_made), "{name}: {found:?}");
        runtime.purge(&bench.container).await.expect("purge");
        let found = runtime.list().await.expect("list");
        assert!(!found.contains(&half_made), "{name}: {found:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeRuntime;

    #[tokio::test]
    async fn the_fake_passes() {
        let argv = |script| {
            let argv: &[&str] = match script {
                Script::HelloThenSeven => &["echo", "hello", "exit", "7"],
                Script::Hang => &["hang"],
                Script::Copy => &["cat"],
                Script::Missing => &["no-such-program"],
            };
            argv.iter().map(|&word| word.to_owned()).collect()
        };
        let runtime = Arc::new(FakeRuntime::new());
        run(&Subject {
            runtime,
            image: None,
            spec: Spec::default(),
            argv,
        })
        .await;
    }
}
