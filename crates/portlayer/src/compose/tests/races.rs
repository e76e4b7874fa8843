//! Commits against commits, signals and ends.

use std::time::Duration;

use super::support::{Node, X, id};
use crate::compose::{CommitError, ElementResult, Interrupt, Interrupted, JoinHow, TaskBind};
use crate::element::{Body, State};
use crate::ledger::LedgerError;
use crate::runtime::SignalScope;
use crate::task::{ExitReason, RestartPolicy};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_of_different_elements_from_one_revision_all_succeed() {
    let node = Node::new().await;
    let first = node.task("task://t/first", "hang").await;
    node.run(&[&first]).await;
    let mut commits = Vec::new();
    for number in 0..12 {
        let task = node.task(&format!("task://t/n{number}"), "hang").await;
        let handle = node.open().await.task(&task).await.handle();
        let layer = node.layer.clone();
        commits.push(async move { layer.commit(handle).await.map(|result| result.runs.len()) });
    }
    let commits: Vec<_> = commits.into_iter().map(tokio::spawn).collect();
    for commit in commits {
        assert_eq!(commit.await.unwrap().unwrap(), 1);
    }
    assert_eq!(node.body().composition.runs.len(), 13);
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_equal_commits_one_acts() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "hang").await;
    let handle = node.open().await.root().await.task(&task).await.handle();
    let mut commits = Vec::new();
    for _ in 0..16 {
        let (layer, handle) = (node.layer.clone(), handle.clone());
        commits.push(tokio::spawn(
            async move { layer.commit(handle).await.unwrap() },
        ));
    }
    let mut acted = 0;
    for commit in commits {
        let result = commit.await.unwrap();
        acted += usize::from(matches!(result.elements[&id(X)], ElementResult::Success));
    }
    assert_eq!(acted, 1);
    assert_eq!(node.body().composition.runs[&task].run, 1);
    node.open().await.unbind(None).await.commit().await.unwrap();
}

#[tokio::test]
async fn a_handle_over_what_changed_is_stale_and_says_who_changed_it() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let handle = node.open().await.root().await.task(&task).await.handle();
    let operator = node.layer.with_actor("operator");
    let token = handle.to_token();
    let result = operator.commit(handle).await.unwrap();
    node.wait(&task).await;
    node.settled().await;
    // The task ran: committing the same handle again must not run it twice.
    let handle = crate::compose::Handle::from_token(&token).unwrap();
    let error = node.layer.commit(handle).await.unwrap_err();
    let CommitError::Stale {
        element,
        expected,
        actual,
        changed_by,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((element, *expected), (&task, 1));
    assert!(*actual > result.revision);
    assert!(changed_by.contains("driver"), "{changed_by}");
}

#[tokio::test]
async fn a_task_that_is_started_again_and_again_can_be_stopped_by_a_handle_from_before() {
    let node = Node::new().await;
    let policy = RestartPolicy::Always { backoff_ms: 1 };
    let task = node
        .task_with("task://t/a", "exit 1", |spec| spec.restart = policy)
        .await;
    node.run(&[&task]).await;
    let unbind = node.open().await.unbind(Some(&task)).await;
    // Ends and starts are recorded under the handle.
    while node.exits(&task) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    unbind.commit().await.unwrap();
    node.settled().await;
    let exits = node.exits(&task);
    assert!(!node.body().composition.joined[&task].bound);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.exits(&task), exits);
}

#[tokio::test]
async fn an_element_that_changed_between_join_and_commit_makes_the_handle_stale() {
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
    let handle = edit.task(&task).await.handle();
    let mut record = node.record(&volume);
    record.revision = 5;
    node.write(record).await;
    node.engine.clear_journal();
    let error = node.layer.commit(handle.clone()).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Stale { element, expected: 1, actual: 5, .. } if *element == volume),
        "{error}"
    );
    node.layer.delete(&volume).await.unwrap();
    let error = node.layer.commit(handle).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Stale { element, expected: 1, actual: 0, .. } if *element == volume),
        "{error}"
    );
    assert_eq!(node.engine.journal(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_claim_leaves_nothing_of_what_was_begun_beside_it() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 0").await;
    let volume = node.volume("volume://v/data").await;
    let edit = node.open().await.root().await;
    let edit = edit.part(&volume, JoinHow::volume("/data")).await;
    let handle = edit.task(&task).await.handle();
    // Changes the volume when the commit has looked at it and its claim waits behind this.
    let mut record = node.record(&volume);
    record.revision = 5;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let ledger = node.layer.shared.ledger.clone();
    let change = tokio::spawn(async move {
        let written: Result<(), LedgerError> = ledger
            .write(move |txn| {
                wait.recv().unwrap();
                txn.put(&record)
            })
            .await;
        written
    });
    node.engine.clear_journal();
    let layer = node.layer.clone();
    let commit = tokio::spawn(async move { layer.commit(handle).await });
    while node.engine.journal().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    go.send(()).unwrap();
    change.await.unwrap().unwrap();
    let error = commit.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, CommitError::Stale { element, expected: 1, actual: 5, .. } if *element == volume),
        "{error}"
    );
    let calls = node.engine.journal();
    let verbs = calls.iter().filter_map(|call| call.split(' ').next());
    assert_eq!(verbs.collect::<Vec<_>>(), ["begin", "end"]);
    assert_eq!(node.leftovers().await, Vec::<String>::new());
    node.layer.delete(&volume).await.unwrap();
}

#[tokio::test]
async fn a_handle_rebases_over_changes_of_other_elements() {
    let node = Node::new().await;
    let [a, b] = [
        node.task("task://t/a", "hang").await,
        node.task("task://t/b", "hang").await,
    ];
    node.run(&[&a]).await;
    let old = node.open().await.task(&b).await.handle();
    let volume = node.volume("volume://v/data").await;
    node.open()
        .await
        .part(&volume, JoinHow::volume("/data"))
        .await
        .commit()
        .await
        .unwrap();
    let record = node.record(&id(X));
    assert!(record.revision > old.revision());
    assert_eq!(node.layer.commit(old).await.unwrap().runs.len(), 1);
    node.open().await.unbind(None).await.commit().await.unwrap();
    node.settled().await;
}

#[tokio::test]
async fn a_signal_passes_a_commit_in_flight() {
    let node = Node::new().await;
    let [a, b] = [
        node.task("task://t/a", "hang").await,
        node.task("task://t/b", "exit 0").await,
    ];
    node.run(&[&a]).await;
    let hold = node.engine.hold("create_process");
    let layer = node.layer.clone();
    let task = b.clone();
    let exec = tokio::spawn(async move { layer.exec(&id(X), &task, TaskBind::default()).await });
    while node
        .engine
        .journal()
        .iter()
        .filter(|call| call.starts_with("create_process"))
        .count()
        < 2
    {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let signal = Interrupt::Signal {
        signal: 15,
        scope: SignalScope::Process,
    };
    assert_eq!(
        node.layer
            .interrupt(&id(X), Some(&a), signal)
            .await
            .unwrap(),
        Interrupted::Delivered
    );
    drop(hold);
    // Its container ended under it: the commit starts it in a new one.
    exec.await.unwrap().unwrap();
    assert_eq!(node.wait(&b).await.code, Some(0));
    assert_eq!(node.wait(&a).await.reason, ExitReason::Cancelled);
    node.settled().await;
    assert_eq!(node.exits(&a) + node.exits(&b), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ends_race_commits_and_every_run_has_one_exit_record() {
    let node = Node::new().await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        tasks.push(
            node.task(
                &format!("task://t/n{number}"),
                &format!("sleep {number} exit {number}"),
            )
            .await,
        );
    }
    node.open().await.root().await.commit().await.unwrap();
    let mut runs = 0;
    for _ in 0..5 {
        let execs = tasks.iter().map(|task| {
            let (layer, task) = (node.layer.clone(), task.clone());
            tokio::spawn(async move { layer.exec(&id(X), &task, TaskBind::default()).await })
        });
        for exec in execs.collect::<Vec<_>>() {
            exec.await.unwrap().unwrap();
            runs += 1;
        }
        for (number, task) in tasks.iter().enumerate() {
            let exit = node.wait(task).await;
            assert_eq!(exit.code, i32::try_from(number).ok());
        }
    }
    node.settled().await;
    assert_eq!(
        tasks.iter().map(|task| node.exits(task)).sum::<usize>(),
        runs
    );
    assert_eq!(node.state(), State::Stopped);
    let Body::Executor(body) = node.record(&id(X)).body else {
        panic!()
    };
    assert!(body.composition.runs.values().all(|run| run.run == 5));
    assert!(node.layer.shared.ledger.verify().unwrap().is_clean());
}

#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let node = Node::new().await;
    let task = node.task("task://t/a", "exit 4").await;
    let handle = node.open().await.root().await.task(&task).await.handle();
    let hold = node.engine.hold("prepare_root");
    let commit = node.layer.commit(handle);
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(30), commit)
            .await
            .is_err()
    );
    drop(hold);
    while node.body().composition.runs.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(node.wait(&task).await.code, Some(4));
    node.settled().await;
}
