//! How tasks end: by themselves, by signals, by their deadline, for memory; and what starts them again.

use portlayer::compose::{BindHow, ComposeError, Interrupt, Interrupted, JoinHow, TaskError};
use portlayer::element::{ElementId, State};
use portlayer::runtime::SignalScope;
use portlayer::task::{ExitReason, ExitRecord, Limits, RestartPolicy, StopSpec, TaskSpec};
use portlayer_node::Node;

use super::composed::{containers, run};
use super::example::stage;
use super::story::{events, on_node, rows};

/// Catches TERM and ends with 3; everything else goes on.
const PATIENT: &str = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
/// Ignores TERM.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

async fn started(node: &Node, name: &str, spec: TaskSpec) -> (ElementId, ElementId) {
    let image = match node
        .port_layer
        .read(&"image://images/busybox".parse().unwrap())
        .await
    {
        Ok(image) => image.id,
        Err(_) => stage::busybox(node).await.unwrap(),
    };
    let executor = stage::executor(node, name).await.unwrap();
    let task = stage::task(node, name, spec).await.unwrap();
    run(node, &executor, &image, &[&task]).await;
    (executor, task)
}

async fn ready(node: &Node, name: &str, script: &str) -> (ElementId, ElementId) {
    let (executor, task) = started(node, name, shell(script)).await;
    stage::until_it_says(node, &executor, &task, "ready")
        .await
        .unwrap();
    (executor, task)
}

fn shell(script: &str) -> TaskSpec {
    TaskSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    }
}

async fn end(node: &Node, (executor, task): &(ElementId, ElementId)) -> ExitRecord {
    node.port_layer.wait(executor, task, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_and_stops() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let term = Interrupt::Signal {
            signal: 15,
            scope: SignalScope::Process,
        };
        let kill = Interrupt::Signal {
            signal: 9,
            scope: SignalScope::All,
        };

        // A signal that the task handles: the task decided how it ends.
        let one = ready(node, "handled", PATIENT).await;
        assert_eq!(
            layer
                .interrupt(&one.0, Some(&one.1), term.clone())
                .await
                .unwrap(),
            Interrupted::Delivered
        );
        let exit = end(node, &one).await;
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Exited, Some(3), None)
        );
        assert_eq!(
            stage::output(node, &one.0, &one.1).await.unwrap(),
            "ready\ncaught\n"
        );
        // Once more: the answer is how it ended.
        let again = layer
            .interrupt(&one.0, Some(&one.1), term.clone())
            .await
            .unwrap();
        assert_eq!(again, Interrupted::AlreadyExited(Some(Box::new(exit))));

        // A signal that ends it.
        let two = ready(node, "killed", STUBBORN).await;
        layer.interrupt(&two.0, Some(&two.1), kill).await.unwrap();
        let exit = end(node, &two).await;
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Cancelled, None, Some(9))
        );

        // A staged stop of one that does not listen: SIGKILL after the grace.
        let three = ready(node, "stubborn", STUBBORN).await;
        let how = Some(StopSpec {
            signal: Some(15),
            grace_ms: 50,
        });
        layer
            .interrupt(&three.0, None, Interrupt::Stop { how })
            .await
            .unwrap();
        let exit = end(node, &three).await;
        assert_eq!((exit.reason, exit.signal), (ExitReason::Cancelled, Some(9)));

        // What cannot be.
        let other: ElementId = "task://tasks/handled".parse().unwrap();
        let refused = layer.interrupt(&three.0, Some(&other), term.clone()).await;
        assert!(
            matches!(
                refused,
                Err(TaskError::Compose(ComposeError::NotJoined { .. }))
            ),
            "{refused:?}"
        );
        let odd = Interrupt::Signal {
            signal: 65,
            scope: SignalScope::Process,
        };
        let refused = layer.interrupt(&three.0, Some(&three.1), odd).await;
        assert!(
            matches!(
                refused,
                Err(TaskError::Compose(ComposeError::InvalidField { .. }))
            ),
            "{refused:?}"
        );
        let fresh = stage::executor(node, "fresh").await.unwrap();
        assert_eq!(
            layer.interrupt(&fresh, None, term).await.unwrap(),
            Interrupted::NotRunning
        );
        layer.settle().await;
        assert_eq!(containers(node).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_and_kill_while_paused() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let both = ready(node, "x1", PATIENT).await;
        let (executor, task) = &both;
        assert_eq!(
            layer
                .interrupt(executor, None, Interrupt::Pause)
                .await
                .unwrap(),
            Interrupted::Delivered
        );
        assert_eq!(layer.read(executor).await.unwrap().state, State::Paused);
        assert_eq!(
            layer
                .interrupt(executor, None, Interrupt::Resume)
                .await
                .unwrap(),
            Interrupted::Delivered
        );
        assert_eq!(layer.read(executor).await.unwrap().state, State::Running);
        layer
            .interrupt(executor, None, Interrupt::Pause)
            .await
            .unwrap();
        let kill = Interrupt::Signal {
            signal: 9,
            scope: SignalScope::Process,
        };
        layer.interrupt(executor, Some(task), kill).await.unwrap();
        let exit = end(node, &both).await;
        assert_eq!((exit.reason, exit.signal), (ExitReason::Cancelled, Some(9)));
        let told = events(node).await;
        let states = told
            .iter()
            .filter(|line| line.ends_with(" modified state"))
            .count();
        // Paused, resumed, paused; then thawed by the kill, unless its end was recorded before that.
        assert!(matches!(states, 3 | 4), "{told:#?}");
        let interrupts = rows(node, executor.as_str()).await;
        assert_eq!(
            interrupts
                .iter()
                .filter(|row| row.starts_with("interrupt "))
                .count(),
            states,
            "{interrupts:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline() {
    on_node(async |node, _| {
        let spec = TaskSpec {
            deadline_ms: Some(300),
            stop: StopSpec {
                signal: None,
                grace_ms: 50,
            },
            ..shell("sleep 1000")
        };
        let exit = end(node, &started(node, "x1", spec).await).await;
        assert_eq!(exit.reason, ExitReason::Deadline);
        assert_eq!(
            events(node)
                .await
                .iter()
                .filter(|line| line.contains("unbound deadline"))
                .count(),
            1
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        // `tail` keeps what it reads; without line ends that is all of it.
        let task = stage::shell(node, "t1", "exec tail -n 1 /dev/zero")
            .await
            .unwrap();
        let limits = Limits {
            memory_bytes: Some(16 << 20),
            ..Limits::default()
        };
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer
            .bind(handle, Some(&executor), BindHow::Executor(limits))
            .await
            .unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer.join(handle, &task, JoinHow::Task).await.unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        layer.commit(handle).await.unwrap();
        let exit = layer.wait(&executor, &task, None).await.unwrap();
        assert_eq!(
            (exit.reason, exit.signal, exit.code),
            (ExitReason::Oom, Some(9), None),
            "{exit:?}"
        );
        assert!(
            exit.memory_peak_bytes
                .is_some_and(|peak| peak > 8 << 20 && peak <= 16 << 20),
            "{exit:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let spec = TaskSpec {
            argv: vec!["/bin/nothing".into()],
            ..TaskSpec::default()
        };
        let task = stage::task(node, "t1", spec).await.unwrap();
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer.join(handle, &task, JoinHow::Task).await.unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        let refused = layer.commit(handle).await.unwrap_err();
        let class = portlayer::error::Classify::class(&refused);
        assert_eq!(class.reason, "executable_not_found", "{refused:?}");
        assert_eq!(layer.read(&executor).await.unwrap().state, State::Created);
        assert_eq!(
            containers(node).await,
            Vec::<String>::new(),
            "everything was undone"
        );
        let last = rows(node, executor.as_str()).await.pop().unwrap();
        assert_eq!(last, "commit 1>1 executable_not_found");
        let never = layer.wait(&executor, &task, None).await;
        assert!(
            matches!(
                never,
                Err(TaskError::Compose(_) | TaskError::NeverStarted { .. })
            ),
            "{never:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        // Fails twice: once in its first container and once in its second. The root does not outlive a container, so
        // what it remembers is in a volume.
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let memory: ElementId = "volume://volumes/memory".parse().unwrap();
        let new = portlayer::element::NewElement::new(
            memory.clone(),
            portlayer::element::Spec::Volume(portlayer::element::VolumeSpec::default()),
        );
        layer.create(new).await.unwrap();
        let spec = TaskSpec {
            restart: RestartPolicy::OnFailure {
                max: 5,
                backoff_ms: 10,
            },
            ..shell("echo run >> /memory/runs; test $(wc -l < /memory/runs) -ge 3")
        };
        let task = stage::task(node, "t1", spec).await.unwrap();
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer
            .join(handle, &memory, JoinHow::volume("/memory"))
            .await
            .unwrap();
        let handle = layer.join(handle, &task, JoinHow::Task).await.unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        layer.commit(handle).await.unwrap();
        let mut codes = Vec::new();
        for run in 1..=3 {
            codes.push(run_of(node, &executor, &task, run).await.code);
        }
        assert_eq!(codes, [Some(1), Some(1), Some(0)]);
        let told = events(node).await;
        let of_task: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("task://tasks/t1 "))
            .collect();
        let once = ["bound", "unbound exited 1"];
        let expected = [
            &["created", "joined"][..],
            &once,
            &once,
            &["bound", "unbound exited 0"],
        ]
        .concat();
        assert_eq!(of_task, expected);
    })
    .await;
}

/// The exit record of one run, which may not have been started yet.
async fn run_of(node: &Node, executor: &ElementId, task: &ElementId, run: u32) -> ExitRecord {
    use futures::StreamExt;
    let mut events = node
        .port_layer
        .subscribe(Some(1), &[format!("id=={task}")])
        .unwrap();
    while let Some(event) = events.next().await {
        if let portlayer::event::Change::Unbound {
            exit: Some(exit), ..
        } = &event.unwrap().change
            && exit.run == run
        {
            assert_eq!(exit.executor, *executor);
            return *exit.clone();
        }
    }
    panic!("the events ended before run {run} did");
}
