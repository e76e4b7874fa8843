//! Daemons come and go; tasks, their output, waits and subscriptions go on.

use std::time::Duration;

use futures::StreamExt;
use portlayer::event::Change;
use portlayer::task::ExitReason;
use portlayer_client::{Client, EventStream};

use super::daemon::{Daemon, busybox, ids, one_call, shell};
use super::life::output;

/// Prints the numbers up to 29 in three seconds and exits with 7.
const COUNT: &str = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 7";

fn counted() -> String {
    (0..30).map(|n| format!("{n}\n")).collect()
}

/// Reads up to the end of a task; every sequence must follow the one before.
async fn until_unbound(mut events: EventStream, name: &str) {
    let (task, _) = ids(name);
    let mut last = None;
    loop {
        let event = events.next().await.unwrap().unwrap();
        if let Some(last) = last {
            assert_eq!(event.sequence, last + 1, "{event:?}");
        }
        last = Some(event.sequence);
        if let Change::Unbound {
            exit: Some(exit), ..
        } = &event.change
            && event.id == task
        {
            assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(7)));
            return;
        }
    }
}

async fn patient(daemon: &mut Daemon) -> Client {
    daemon.client().await.with_patience(Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_a_crash_and_its_end_is_told_right() {
    let mut daemon = Daemon::start();
    let client = patient(&mut daemon).await;
    let image = busybox(&client).await;
    let events = client.subscribe(Some(1), &[] as &[&str]).await.unwrap();
    let (task, executor) = ids("count");
    client
        .run(one_call("count", &image, shell(COUNT)))
        .await
        .unwrap();
    let wait = {
        let (client, executor, task) = (client.clone(), executor.clone(), task.clone());
        tokio::spawn(async move { client.wait(&executor, &task, None).await })
    };
    daemon.crash();
    daemon.spawn();
    let exit = wait.await.unwrap().unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(7)));
    until_unbound(events, "count").await;
    assert_eq!(output(&client, "count", true).await, counted());
    assert_eq!(client.exits(&executor, None).await.unwrap(), [exit]);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_no_daemon_runs_gets_its_true_exit_record() {
    let mut daemon = Daemon::start();
    let client = patient(&mut daemon).await;
    let image = busybox(&client).await;
    let (task, executor) = ids("count");
    client
        .run(one_call("count", &image, shell(COUNT)))
        .await
        .unwrap();
    let events = client.subscribe(Some(1), &[] as &[&str]).await.unwrap();
    assert!(daemon.terminate().success(), "{}", daemon.log());
    tokio::time::sleep(Duration::from_secs(4)).await;
    daemon.spawn();
    let exit = client.wait(&executor, &task, None).await.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(7)));
    assert!(exit.reconciled);
    assert_eq!(output(&client, "count", false).await, counted());
    until_unbound(events, "count").await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let second = daemon.output(&["serve"]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(text.contains("is in use by another process"), "{text}");
    // The first one noticed nothing.
    client.info(false).await.unwrap();
    daemon.end().await;
}
