//! What the next open finds: running tasks, tasks that ended meanwhile, lost ones, unfinished commits, strangers.

use super::support::{Node, X, id};
use crate::compose::{Intent, Interrupt, JoinHow};
use crate::element::State;
use crate::runtime::{ContainerId, Runtime, Scope};
use crate::task::{ExitReason, RestartPolicy};

#[tokio::test]
async fn a_running_task_is_watched_again_and_can_be_stopped() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node
        .open()
        .await
        .root()
        .await
        .part(&volume, JoinHow::volume("/data"))
        .await;
    edit.task(&task).await.commit().await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.state(), State::Running);
    node.layer
        .interrupt(&id(X), Some(&task), Interrupt::Stop { how: None })
        .await
        .unwrap();
    let exit = node.wait(&task).await;
    assert_eq!(
        (exit.reason, exit.reconciled),
        (ExitReason::Cancelled, false)
    );
    node.settled().await;
}

#[tokio::test]
async fn what_ended_meanwhile_gets_its_true_exit_record() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "sleep 60 exit 9").await;
    node.run(&[&task]).await;
    let (engine, node) = (node.engine.clone(), node.stop().await);
    let container = ContainerId::new(&id(X), 1);
    while !matches!(
        engine
            .list()
            .await
            .unwrap()
            .iter()
            .find(|found| found.id == container)
            .map(|found| found.primary.clone()),
        Some(Some(crate::runtime::ProcessState::Stopped(_)))
    ) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let node = node.start().await;
    let exit = node.wait(&task).await;
    assert_eq!(
        (exit.reason, exit.code, exit.reconciled),
        (ExitReason::Exited, Some(9), true)
    );
    node.settled().await;
    let last = node
        .events()
        .into_iter()
        .rfind(|event| event.id == task)
        .unwrap();
    assert!(last.reconciled);
    assert_eq!(node.exits(&task), 1);
}

#[tokio::test]
async fn what_the_engine_does_not_know_is_lost_and_never_code_0() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    node.run(&[&task]).await;
    let (engine, node) = (node.engine.clone(), node.stop().await);
    engine.purge(&ContainerId::new(&id(X), 1)).await.unwrap();
    let node = node.start().await;
    let exit = node.wait(&task).await;
    assert_eq!(
        (exit.reason, exit.code, exit.reconciled),
        (ExitReason::Lost, None, true)
    );
    node.settled().await;
    assert_eq!(node.state(), State::Stopped);
}

#[tokio::test]
async fn an_unfinished_commit_is_rolled_back() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node
        .open()
        .await
        .root()
        .await
        .part(&volume, JoinHow::volume("/data"))
        .await;
    let handle = edit.task(&task).await.handle();
    let before = node.record(&id(X));
    // Dies in the middle: the call never comes back.
    let hold = node.engine.hold("start_process");
    let layer = node.layer.clone();
    let commit = tokio::spawn(async move { layer.commit(handle).await });
    while !node
        .engine
        .journal()
        .iter()
        .any(|call| call.starts_with("start_process"))
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(
        node.layer.shared.ledger.intents::<Intent>().unwrap().len(),
        1
    );
    let (ledger, intent) = (
        node.layer.shared.ledger.clone(),
        node.layer.shared.ledger.intents::<Intent>().unwrap(),
    );
    drop(hold);
    commit.await.unwrap().unwrap();
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
    // As the ledger and the engine were at that moment.
    let intent = intent.into_iter().next().unwrap().1.unwrap();
    let record = before.clone();
    let written: Result<(), crate::ledger::LedgerError> = ledger
        .write(move |txn| {
            txn.put(&record)?;
            txn.put_intent(&id(X), &intent)
        })
        .await;
    written.unwrap();
    drop(ledger);
    let container = ContainerId::new(&id(X), 1);
    let scope = Scope::new(&container, before.revision);
    node.engine.begin(&scope).await.unwrap();
    let plan = crate::runtime::RootPlan {
        image: None,
        access: crate::store::Access::ReadWrite,
        ids: None,
        disk: None,
    };
    node.engine
        .prepare_root(&scope, &container, &plan)
        .await
        .unwrap();

    let node = node.restart().await;
    assert_eq!(node.leftovers().await, Vec::<String>::new());
    assert_eq!(node.record(&id(X)), before);
    assert!(
        node.layer
            .shared
            .ledger
            .intents::<Intent>()
            .unwrap()
            .is_empty()
    );
    node.layer.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn a_container_nobody_owns_is_purged() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    node.run(&[&task]).await;
    let node = node.stop().await;
    // A container of an executor that is in no ledger.
    let stranger = ContainerId::new(&id("executor://x/stranger"), 3);
    node.make_container(&stranger, &id("executor://x/stranger"))
        .await;
    let node = node.start().await;
    let found = node.engine.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, ContainerId::new(&id(X), 1));
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_lease_whose_intent_never_became_durable_is_swept() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let handle = node.open().await.root().await.task(&task).await.handle();
    let scope = Scope::new(&ContainerId::new(&id(X), 1), node.record(&id(X)).revision);
    node.engine.begin(&scope).await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.leftovers().await, Vec::<String>::new());
    node.layer.commit(handle).await.unwrap();
    // The container that runs is not taken for a leftover of its own lease.
    node.engine.begin(&scope).await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.state(), State::Running);
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.engine.end(&scope).await.unwrap();
    node.settled().await;
}

/// A node on which a task and a volume are about to leave, as the ledger and the engine are at the record of that.
async fn leaving() -> (Node, crate::element::ElementId, crate::element::ElementId) {
    let node = Node::new().await;
    let (on, task) = (
        node.task("task://t/on", "hang").await,
        node.task("task://t/leaves", "hang").await,
    );
    let volume = node.volume("volume://v/data").await;
    let edit = node.open().await.root().await;
    let edit = edit.part(&volume, JoinHow::volume("/data")).await;
    let edit = edit.task(&on).await.task(&task).await;
    edit.commit().await.unwrap();
    (node, task, volume)
}

/// Writes the record and the intent of a commit that stops the task and unmounts the volume, as we die after that.
async fn die_after_the_record(
    node: &Node,
    task: &crate::element::ElementId,
    volume: &crate::element::ElementId,
) {
    use crate::compose::Change::{Leaves, Unbinds};
    let mut record = node.record(&id(X));
    let crate::element::Body::Executor(body) = &mut record.body else {
        panic!("{record:?}")
    };
    body.composition.joined.get_mut(task).unwrap().bound = false;
    record.revision += 1;
    let intent = Intent {
        revision: record.revision - 1,
        generation: 1,
        fresh: false,
        claims: Vec::new(),
        attaches: Vec::new(),
        lease: None,
        runs: Vec::new(),
        rest: Some(crate::compose::Rest {
            stops: vec![task.clone()],
            detaches: vec![(volume.clone(), "/data".to_owned())],
            disconnects: None,
            deferred: vec![
                (task.clone(), Leaves),
                (volume.clone(), Unbinds),
                (volume.clone(), Leaves),
            ],
        }),
    };
    let written: Result<(), crate::ledger::LedgerError> = node
        .layer
        .shared
        .ledger
        .write(move |txn| {
            txn.put(&record)?;
            txn.put_intent(&id(X), &intent)
        })
        .await;
    written.unwrap();
}

/// Waits until the commit is finished, and looks at everything it was to do.
async fn assert_left(
    node: Node,
    task: &crate::element::ElementId,
    volume: &crate::element::ElementId,
) {
    while !node
        .layer
        .shared
        .ledger
        .intents::<Intent>()
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let joined = node.body().composition.joined;
    assert!(
        !joined.contains_key(task) && !joined.contains_key(volume),
        "{joined:?}"
    );
    assert_eq!(node.exits(task), 1);
    assert_eq!(node.wait(task).await.reason, ExitReason::Cancelled);
    assert!(node.engine.mounts(&ContainerId::new(&id(X), 1)).is_empty());
    assert_eq!(node.volumes.attached(), []);
    node.layer.delete(volume).await.unwrap();
    assert_eq!(node.state(), State::Running);
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_commit_that_died_before_its_stops_is_finished() {
    let (node, task, volume) = leaving().await;
    die_after_the_record(&node, &task, &volume).await;
    assert_left(node.restart().await, &task, &volume).await;
}

#[tokio::test]
async fn a_commit_that_died_after_its_stops_is_finished() {
    let (node, task, volume) = leaving().await;
    let stop = Interrupt::Stop { how: None };
    node.layer
        .interrupt(&id(X), Some(&task), stop)
        .await
        .unwrap();
    node.wait(&task).await;
    die_after_the_record(&node, &task, &volume).await;
    assert_left(node.restart().await, &task, &volume).await;
}

#[tokio::test]
async fn a_commit_that_died_with_the_last_task_ended_is_finished() {
    let (node, task, volume) = leaving().await;
    node.open().await.unbind(None).await.commit().await.unwrap();
    die_after_the_record(&node, &task, &volume).await;
    let node = node.restart().await;
    while !node
        .layer
        .shared
        .ledger
        .intents::<Intent>()
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let joined = node.body().composition.joined;
    assert!(!joined.contains_key(&task) && !joined.contains_key(&volume));
    node.layer.delete(&volume).await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_clock_that_was_set_moves_no_deadline() {
    for hours in [-1_i64, 1] {
        let node = Node::new().await;
        let task = node
            .task_with("task://t/late", "hang", |spec| spec.deadline_ms = Some(400))
            .await;
        node.run(&[&task]).await;
        // As if the wall clock had been somewhere else at the start.
        let mut record = node.record(&id(X));
        let crate::element::Body::Executor(body) = &mut record.body else {
            panic!("{record:?}")
        };
        let run = body.composition.runs.get_mut(&task).unwrap();
        let started = run.started.as_nanos();
        let moved = started + hours * 3_600_000_000_000;
        run.started = crate::time::Timestamp::from_nanos(moved);
        node.write(record).await;
        let node = node.restart().await;
        let exit = node.wait(&task).await;
        assert_eq!(exit.reason, ExitReason::Deadline);
        assert!(exit.exited.as_nanos() - started >= 390_000_000, "{exit:?}");
        node.settled().await;
    }
}

#[tokio::test]
async fn a_deadline_and_a_restart_survive() {
    let node = Node::new().await;
    let late = node
        .task_with("task://t/late", "hang", |spec| spec.deadline_ms = Some(150))
        .await;
    let policy = RestartPolicy::Always { backoff_ms: 100 };
    let again = node
        .task_with("task://t/again", "exit 1", |spec| spec.restart = policy)
        .await;
    node.run(&[&late, &again]).await;
    assert_eq!(node.wait(&again).await.run, 1);
    let node = node.restart().await;
    assert_eq!(node.wait(&late).await.reason, ExitReason::Deadline);
    while node.body().composition.runs[&again].run < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    node.open()
        .await
        .unbind(Some(&again))
        .await
        .commit()
        .await
        .unwrap();
    node.settled().await;
}
