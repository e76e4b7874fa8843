//! The life of an executor: start, further tasks, ends, starting again.

use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::support::{IMAGE, Node, X, id};
use crate::compose::{
    BindHow, CommitError, ElementResult, Interrupt, Interrupted, JoinHow, RunState, StepError,
    TaskBind, TaskError,
};
use crate::element::State;
use crate::runtime::{LogQuery, LogStreams, RuntimeErrorKind, SignalScope};
use crate::task::{ExecutorSpec, ExitReason, Limits, RestartPolicy, StopSpec};

#[tokio::test]
async fn a_task_runs_and_leaves_nothing_but_its_records() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "echo hello exit 7").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node.open().await.root().await;
    let edit = edit
        .part(&volume, JoinHow::volume("/data"))
        .await
        .task(&task)
        .await;
    let plan = node
        .layer
        .plan(edit.handle.as_ref().unwrap())
        .await
        .unwrap();
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(steps.len(), 10, "{steps:#?}");
    assert!(
        node.engine
            .journal()
            .iter()
            .all(|call| call.starts_with("list") || call.starts_with("restore_networks"))
    );

    let result = edit.commit().await.unwrap();
    for element in [X, IMAGE, "volume://v/data", "task://t/a"] {
        assert!(
            matches!(result.elements[&id(element)], ElementResult::Success),
            "{element}"
        );
    }
    assert_eq!(result.runs.len(), 1);
    let exit = node.wait(&task).await;
    assert_eq!(
        (exit.run, exit.reason, exit.code),
        (1, ExitReason::Exited, Some(7))
    );
    node.settled().await;
    assert_eq!(node.state(), State::Stopped);
    assert_eq!(node.body().composition.runs[&task].state, RunState::Ended);
    let story = node.story();
    assert_eq!(
        story,
        [
            "joined image://images/base",
            "bound image://images/base",
            "joined task://t/a",
            "bound task://t/a",
            "joined volume://v/data",
            "bound volume://v/data",
            "bound executor://x/x1",
            "unbound task://t/a",
            "unbound executor://x/x1",
        ]
    );
}

#[tokio::test]
async fn an_equal_commit_is_a_no_op_and_a_bind_after_the_end_is_a_new_run() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let first = node.run(&[&task]).await;
    let again = node.run(&[&task]).await;
    assert_eq!(again.revision, first.revision);
    assert!(
        again
            .elements
            .values()
            .all(|result| matches!(result, ElementResult::NoOp)),
        "{again:?}"
    );
    assert!(again.runs.is_empty());

    let stopped = node
        .open()
        .await
        .unbind(Some(&task))
        .await
        .commit()
        .await
        .unwrap();
    assert!(!stopped.is_error());
    assert_eq!(node.wait(&task).await.reason, ExitReason::Cancelled);
    node.settled().await;

    let result = node.run(&[&task]).await;
    assert_eq!(result.runs[0].run, 2);
    assert_eq!(node.body().composition.generation, 2);
    node.layer
        .interrupt(&id(X), None, Interrupt::Stop { how: None })
        .await
        .unwrap();
    assert_eq!(node.wait(&task).await.run, 2);
    assert_eq!(
        node.layer.wait(&id(X), &task, Some(1)).await.unwrap().run,
        1
    );
    assert_eq!(node.exits(&task), 2);
    node.settled().await;
}

#[tokio::test]
async fn a_further_task_runs_in_the_container_and_the_last_end_takes_it_down() {
    let node = Node::new().await;
    let first = node.task("task://t/a", "sleep 20 exit 1").await;
    let second = node.task("task://t/b", "hang").await;
    let third = node.task("task://t/c", "echo here exit 3").await;
    let started = node.run(&[&second, &first]).await;
    assert_eq!(started.runs[0].task, second);
    assert!(node.body().composition.runs[&second].primary);
    let run = node
        .layer
        .exec(&id(X), &third, TaskBind::default())
        .await
        .unwrap();
    assert_eq!(run.run, 1);
    assert_eq!(node.wait(&third).await.code, Some(3));
    assert_eq!(node.wait(&first).await.code, Some(1));
    assert_eq!(node.state(), State::Running);
    let creates = node
        .engine
        .journal()
        .iter()
        .filter(|call| call.starts_with("create_container"))
        .count();
    assert_eq!(creates, 1);
    let query = LogQuery {
        executor: id(X),
        task: third.clone(),
        streams: LogStreams::Both,
        since: None,
        tail: None,
        follow: true,
    };
    let chunks: Vec<_> = node
        .layer
        .logs(&query)
        .await
        .unwrap()
        .map(|chunk| chunk.unwrap().bytes)
        .collect()
        .await;
    assert_eq!(chunks.concat(), b"here\n");
    let killed = Interrupt::Signal {
        signal: 9,
        scope: SignalScope::Process,
    };
    assert_eq!(
        node.layer
            .interrupt(&id(X), Some(&second), killed.clone())
            .await
            .unwrap(),
        Interrupted::Delivered
    );
    let exit = node.wait(&second).await;
    assert_eq!((exit.reason, exit.signal), (ExitReason::Cancelled, Some(9)));
    let late = node
        .layer
        .interrupt(&id(X), Some(&second), killed)
        .await
        .unwrap();
    assert_eq!(late, Interrupted::AlreadyExited(Some(Box::new(exit))));
    node.settled().await;
    assert_eq!(node.state(), State::Stopped);
}

#[tokio::test]
async fn a_stop_escalates_after_its_grace() {
    let node = Node::new().await;
    let task = node
        .task_with("task://t/a", "trap 15 hang", |spec| spec.stop.grace_ms = 20)
        .await;
    node.run(&[&task]).await;
    // Until its trap is set the first signal would end it.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    node.open().await.unbind(None).await.commit().await.unwrap();
    let exit = node.wait(&task).await;
    assert_eq!((exit.reason, exit.signal), (ExitReason::Cancelled, Some(9)));
    node.settled().await;
}

#[tokio::test]
async fn a_task_that_cannot_be_killed_keeps_no_commit_waiting() {
    let node = Node::new().await;
    let task = node
        .task_with("task://t/a", "hang", |spec| spec.stop.grace_ms = 20)
        .await;
    node.run(&[&task]).await;
    let hold = node.engine.hold("signal");
    let edit = node.open().await.unbind(Some(&task)).await;
    let result = edit.leave(&task).await.commit().await.unwrap();
    assert!(result.is_error());
    assert!(
        matches!(&result.elements[&task], ElementResult::Error(StepError::StillRunning { task: of, .. }) if *of == task),
        "{result:?}"
    );
    let joined = &node.body().composition.joined[&task];
    assert!(!joined.bound, "what still runs stays joined, unbound");
    assert_eq!(node.exits(&task), 0);

    drop(hold);
    let exit = node.wait(&task).await;
    assert_eq!(exit.reason, ExitReason::Cancelled);
    node.settled().await;
    node.open().await.leave(&task).await.commit().await.unwrap();
    assert!(!node.body().composition.joined.contains_key(&task));
}

#[tokio::test]
async fn a_deadline_ends_a_task_and_says_so() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let bind = TaskBind {
        deadline_ms: Some(30),
        ..TaskBind::default()
    };
    node.open()
        .await
        .root()
        .await
        .task_bound(&task, bind)
        .await
        .commit()
        .await
        .unwrap();
    assert_eq!(node.wait(&task).await.reason, ExitReason::Deadline);
    node.settled().await;
}

#[tokio::test]
async fn a_failing_task_is_started_again_as_often_as_its_policy_says() {
    let node = Node::new().await;
    let policy = RestartPolicy::OnFailure {
        max: 2,
        backoff_ms: 1,
    };
    let task = node
        .task_with("task://t/a", "exit 1", |spec| spec.restart = policy)
        .await;
    let other = node.task("task://t/b", "hang").await;
    node.run(&[&task]).await;
    for run in 1..=3 {
        loop {
            match node.layer.wait(&id(X), &task, Some(run)).await {
                Ok(exit) => break assert_eq!((exit.run, exit.code), (run, Some(1))),
                Err(TaskError::NeverStarted { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    node.settled().await;
    assert_eq!(node.exits(&task), 3);
    assert!(!node.body().composition.joined[&task].bound);
    // Nothing waits any more: the executor can be used for something else.
    node.run(&[&other]).await;
    node.layer
        .interrupt(&id(X), None, Interrupt::Stop { how: None })
        .await
        .unwrap();
    node.wait(&other).await;
    node.settled().await;
}

#[tokio::test]
async fn a_task_that_was_bound_again_is_not_started_once_more_by_its_policy() {
    let node = Node::new().await;
    let task = node
        .task_with("task://t/a", "cat exit 1", |spec| {
            spec.restart = RestartPolicy::Always { backoff_ms: 100 };
            spec.interaction.stdin = true;
        })
        .await;
    let other = node.task("task://t/b", "hang").await;
    let third = node.task("task://t/c", "hang").await;
    node.run(&[&other, &task]).await;
    let attached = node.layer.attach(&id(X), &task, true, true).await.unwrap();
    drop(attached);
    assert_eq!(node.wait(&task).await.run, 1);
    // While it waits for its restart it is unbound, together with a change of the container, and bound again, which starts it.
    let handle = node.open().await.unbind(Some(&task)).await;
    let handle = handle.join(&third, JoinHow::Task).await;
    let handle = handle.bind(Some(&third), BindHow::Plain).await;
    handle.commit().await.unwrap();
    let handle = node.open().await.bind(Some(&task), BindHow::Plain).await;
    let started = handle.commit().await.unwrap();
    assert_eq!(started.runs.len(), 1);
    assert_eq!(started.runs[0].run, 2);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let run = node.body().composition.runs[&task].clone();
    assert_eq!((run.run, run.state), (2, RunState::Running));
    assert_eq!(node.exits(&task), 1);
    node.layer
        .interrupt(&id(X), None, Interrupt::Stop { how: None })
        .await
        .unwrap();
    node.open()
        .await
        .unbind(Some(&task))
        .await
        .commit()
        .await
        .unwrap();
    node.settled().await;
    assert_eq!(node.exits(&task), 2);
}

#[tokio::test]
async fn an_executor_that_is_made_again_knows_nothing_of_a_restart_before() {
    let node = Node::new().await;
    let task = node
        .task_with("task://t/a", "cat exit 1", |spec| {
            spec.restart = RestartPolicy::Always { backoff_ms: 100 };
            spec.interaction.stdin = true;
        })
        .await;
    node.run(&[&task]).await;
    drop(node.layer.attach(&id(X), &task, true, true).await.unwrap());
    assert_eq!(node.wait(&task).await.run, 1);
    node.settled().await;
    // It waits for its restart; its executor goes and comes back, and starts it itself.
    node.layer.delete(&id(X)).await.unwrap();
    node.executor_with(X, ExecutorSpec::default()).await;
    node.run(&[&task]).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let run = node.body().composition.runs[&task].clone();
    assert_eq!((run.run, run.state), (2, RunState::Running));
    assert_eq!(node.exits(&task), 1);
    let unbind = node.open().await.unbind(Some(&task)).await;
    unbind.commit().await.unwrap();
    node.settled().await;
    assert_eq!(node.exits(&task), 2);
}

#[tokio::test]
async fn oom_is_told_and_output_can_be_fed() {
    let node = Node::new().await;
    let cat = node
        .task_with("task://t/cat", "cat exit 5", |spec| {
            spec.interaction.stdin = true
        })
        .await;
    let oom = node.task("task://t/oom", "oom").await;
    node.run(&[&cat, &oom]).await;
    assert_eq!(node.wait(&oom).await.reason, ExitReason::Oom);
    let attached = node.layer.attach(&id(X), &cat, true, true).await.unwrap();
    let mut input = attached.input.unwrap();
    input.write_all(b"one").await.unwrap();
    drop(input);
    let chunks: Vec<_> = attached
        .output
        .map(|chunk| chunk.unwrap().bytes)
        .collect()
        .await;
    assert_eq!(chunks.concat(), b"one");
    attached.input_ended.unwrap().await.unwrap().unwrap();
    assert_eq!(node.wait(&cat).await.code, Some(5));
    node.settled().await;
}

#[tokio::test]
async fn a_volume_is_attached_to_and_detached_from_a_running_container() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let volume = node.volume("volume://v/live").await;
    node.run(&[&task]).await;
    let container = crate::runtime::ContainerId::new(&id(X), 1);
    node.open()
        .await
        .part(&volume, JoinHow::volume("/live"))
        .await
        .commit()
        .await
        .unwrap();
    assert_eq!(node.engine.mounts(&container)["/live"], volume);
    assert_eq!(node.volumes.attached().len(), 1);

    node.engine.fail("detach_mount", 1, RuntimeErrorKind::Busy);
    let busy = node
        .open()
        .await
        .unbind(Some(&volume))
        .await
        .leave(&volume)
        .await
        .commit()
        .await
        .unwrap();
    assert!(matches!(busy.elements[&volume], ElementResult::Error(_)));
    assert!(node.body().composition.joined[&volume].bound);

    node.open()
        .await
        .unbind(Some(&volume))
        .await
        .leave(&volume)
        .await
        .commit()
        .await
        .unwrap();
    assert!(node.engine.mounts(&container).is_empty());
    assert!(node.volumes.attached().is_empty());
    assert!(!node.body().composition.joined.contains_key(&volume));
    assert!(node.layer.delete(&volume).await.is_ok());
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn what_a_running_container_cannot_take_needs_a_restart() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    node.run(&[&task]).await;
    let limits = Limits {
        pids: Some(100),
        ..Limits::default()
    };
    let host = id("network://node/host");
    let executor = id(X);
    let volume = node.volume("volume://v/up").await;
    let copy_up = JoinHow::Volume {
        target: "/up".into(),
        access: crate::store::Access::ReadWrite,
        sub_path: None,
        copy_up: true,
        tmpfs_bytes: None,
    };
    let image = id(IMAGE);
    let refused = [
        node.open()
            .await
            .bind(Some(&executor), BindHow::Executor(limits))
            .await,
        node.open().await.part(&host, JoinHow::network()).await,
        node.open().await.part(&volume, copy_up).await,
        node.open().await.unbind(Some(&image)).await,
    ];
    let before = node.record(&executor);
    for edit in refused {
        let error = edit.commit().await.unwrap_err();
        let expected = matches!(
            error,
            CommitError::NeedsRestart { .. }
                | CommitError::UnresolvedRequirement { .. }
                | CommitError::NoRoot { .. }
        );
        assert!(expected, "{error}");
    }
    assert_eq!(node.record(&executor), before);
    // Once it is down the same is accepted.
    node.open()
        .await
        .unbind(Some(&executor))
        .await
        .commit()
        .await
        .unwrap();
    node.open()
        .await
        .part(&host, JoinHow::network())
        .await
        .commit()
        .await
        .unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_task_killed_in_a_frozen_executor_thaws_it_and_the_ledger_says_so() {
    let node = Node::new().await;
    let killed = node.task("task://t/a", "hang").await;
    let other = node.task("task://t/b", "hang").await;
    let stopped = node.task("task://t/c", "hang").await;
    node.run(&[&other, &killed, &stopped]).await;
    let kill = Interrupt::Signal {
        signal: 9,
        scope: SignalScope::Process,
    };
    let stop = Interrupt::Stop {
        how: Some(StopSpec {
            signal: Some(9),
            grace_ms: 0,
        }),
    };
    for (task, how) in [(&killed, kill), (&stopped, stop)] {
        node.layer
            .interrupt(&id(X), None, Interrupt::Pause)
            .await
            .unwrap();
        assert_eq!(node.state(), State::Paused);
        node.layer.interrupt(&id(X), Some(task), how).await.unwrap();
        assert_eq!(node.wait(task).await.reason, ExitReason::Cancelled);
        assert_eq!(node.state(), State::Running);
    }
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_frozen_executor_takes_no_task_and_goes_on() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let other = node.task("task://t/b", "exit 0").await;
    node.run(&[&task]).await;
    node.layer
        .interrupt(&id(X), None, Interrupt::Pause)
        .await
        .unwrap();
    assert_eq!(node.state(), State::Paused);
    let error = node
        .layer
        .exec(&id(X), &other, TaskBind::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::NeedsRestart {
                state: State::Paused,
                ..
            }
        ),
        "{error}"
    );
    node.layer
        .interrupt(&id(X), None, Interrupt::Resume)
        .await
        .unwrap();
    node.layer
        .exec(&id(X), &other, TaskBind::default())
        .await
        .unwrap();
    assert_eq!(node.wait(&other).await.code, Some(0));
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn an_executor_is_deleted_after_its_end_and_its_volumes_are_free() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node
        .open()
        .await
        .root()
        .await
        .part(&volume, JoinHow::volume("/data"))
        .await;
    edit.task(&task).await.commit().await.unwrap();
    assert!(matches!(
        node.layer.delete(&volume).await,
        Err(crate::error::DeleteError::InUse { .. })
    ));
    node.wait(&task).await;
    node.layer.delete(&id(X)).await.unwrap();
    node.layer.delete(&volume).await.unwrap();
    assert_eq!(node.leftovers().await, Vec::<String>::new());
    let report = node.layer.shared.ledger.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}
