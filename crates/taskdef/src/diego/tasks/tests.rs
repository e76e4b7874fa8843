use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;

use super::*;
use crate::diego::read_json;
use crate::diego::settings::Capacity;
use crate::rehearsal::{IMAGE, Rehearsal};

fn settings() -> Settings {
    let mut settings = Settings {
        preloaded: BTreeMap::from([("fs".to_owned(), IMAGE.parse().unwrap())]),
        ..Settings::default()
    };
    settings.timers.start_retry = Duration::from_millis(10);
    settings.timers.kick = Duration::from_millis(50);
    settings
}

async fn open(stage: &Rehearsal, settings: Settings) -> Tasks {
    Tasks::open(stage.runner.clone(), settings, "tasks")
        .await
        .unwrap()
}

/// A task of one script, with further fields.
fn desired(guid: &str, script: &str, further: &str) -> DesiredTask {
    let mut words = script.split(' ');
    let path = words.next().unwrap();
    let args: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    let json = format!(
        r#"{{"task_guid":"{guid}","domain":"d","rootfs":"preloaded:fs","privileged":true,"log_guid":"l","log_source":"VIZ",
            "action":{{"run":{{"path":"{path}","args":[{}],"user":"me"}}}}{further}}}"#,
        args.join(",")
    );
    read_json(json.as_bytes(), &Default::default()).unwrap()
}

async fn next(events: &mut Receiver<TaskEvent>) -> String {
    let event = tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .unwrap()
        .unwrap();
    match event {
        TaskEvent::Created(task) => format!("created {}", task.state),
        TaskEvent::Changed { before, after } => format!("{} to {}", before.state, after.state),
        TaskEvent::Removed(_) => "removed".to_owned(),
    }
}

async fn until(events: &mut Receiver<TaskEvent>, wanted: &str) {
    while next(events).await != wanted {}
}

#[tokio::test]
async fn a_task_lives_and_is_forgotten() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let tasks = open(&stage, settings()).await;
    let mut events = tasks.events();
    tasks.desire(desired("-g", "exit 3", "")).await.unwrap();
    let twice = tasks.desire(desired("-g", "exit 3", "")).await.unwrap_err();
    assert_eq!(twice.diego_type(), 12);
    assert_eq!(next(&mut events).await, "created Pending");
    assert_eq!(next(&mut events).await, "Pending to Running");
    assert_eq!(next(&mut events).await, "Running to Completed");
    let task = tasks.get("-g").await.unwrap();
    assert_eq!(
        (
            task.failed,
            task.failure_reason.as_str(),
            task.cell_id.as_str()
        ),
        (true, "VIZ: Exited with status 3", "")
    );
    assert_eq!(tasks.list("d", "").await.len(), 1);
    assert!(tasks.list("other", "").await.is_empty());
    let refused = tasks.cancel("-g").await.unwrap_err();
    assert_eq!(
        (refused.diego_type(), refused.to_string().as_str()),
        (9, "Cannot transition from Completed to Completed")
    );
    assert_eq!(
        tasks.delete("-g").await.unwrap_err().to_string(),
        "Cannot transition from Completed to Resolving"
    );
    tasks.resolve("-g").await.unwrap();
    tasks.delete("-g").await.unwrap();
    until(&mut events, "removed").await;
    assert_eq!(tasks.get("-g").await.unwrap_err().diego_type(), 13);
    tasks.close().await;
    assert!(stage.left().await.is_empty());
}

#[tokio::test]
async fn a_cancelled_task_is_completed_at_once_and_then_stopped() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let tasks = open(&stage, settings()).await;
    let mut events = tasks.events();
    tasks.desire(desired("g", "hang", "")).await.unwrap();
    until(&mut events, "Pending to Running").await;
    tasks.cancel("g").await.unwrap();
    let task = tasks.get("g").await.unwrap();
    assert_eq!(
        (task.state, task.failure_reason.as_str()),
        (State::Completed, "task was cancelled")
    );
    tasks.resolve("g").await.unwrap();
    tasks.delete("g").await.unwrap();
    // The same guid is free again although the old container may still be stopping.
    tasks.desire(desired("g", "exit 0", "")).await.unwrap();
    until(&mut events, "Running to Completed").await;
    tasks.close().await;
    assert_eq!(stage.left().await.len(), 1);
}

#[tokio::test]
async fn callbacks_are_repeated_and_taken() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let tasks = open(&stage, settings()).await;
    let mut events = tasks.events();
    // From the last to the first: put off twice, then taken by an error that is an answer all the same.
    *stage.wire.answers.lock().unwrap() = vec![Some(500), Some(504), Some(503)];
    let url = r#","completion_callback_url":"http://h/","annotation":"a""#;
    tasks.desire(desired("g", "exit 0", url)).await.unwrap();
    until(&mut events, "Completed to Resolving").await;
    assert_eq!(next(&mut events).await, "removed");
    let posted = stage.wire.posted.lock().unwrap().clone();
    assert_eq!(posted.len(), 3);
    let keys: Vec<_> = posted[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "annotation",
            "created_at",
            "failed",
            "failure_reason",
            "result",
            "task_guid"
        ]
    );

    // Nobody there: tried again after a while.
    *stage.wire.answers.lock().unwrap() = vec![Some(200), None];
    tasks.desire(desired("h", "exit 0", url)).await.unwrap();
    until(&mut events, "Resolving to Completed").await;
    until(&mut events, "removed").await;
    tasks.close().await;
    assert!(stage.left().await.is_empty());
}

#[tokio::test]
async fn a_completed_task_is_given_up_in_the_end() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let mut settings = settings();
    settings.timers.completed_expiry = Duration::from_millis(150);
    let tasks = open(&stage, settings).await;
    let mut events = tasks.events();
    tasks.desire(desired("g", "exit 0", "")).await.unwrap();
    until(&mut events, "removed").await;
    tasks.close().await;
    assert!(stage.left().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_placed_fails_with_the_auctions_words() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let mut small = settings();
    small.capacity = Capacity {
        memory_mb: Some(100),
        disk_mb: None,
        containers: 1,
    };
    let tasks = open(&stage, small).await;
    let mut events = tasks.events();
    for (guid, further, reason) in [
        ("a", r#","memory_mb":101"#, "insufficient resources: memory"),
        (
            "b",
            r#","placement_tags":["x"]"#,
            "found no compatible cell with placement tag \"x\"",
        ),
        (
            "c",
            r#","volume_mounts":[{"driver":"x","container_dir":"/m","mode":"r","shared":{"volume_id":"v"}}]"#,
            "found no compatible cell with required volume drivers",
        ),
    ] {
        tasks
            .desire(desired(guid, "exit 0", further))
            .await
            .unwrap();
        until(&mut events, "Pending to Completed").await;
        assert_eq!(tasks.get(guid).await.unwrap().failure_reason, reason);
    }
    tasks.close().await;
}

#[tokio::test]
async fn a_start_that_may_go_well_later_is_repeated() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let tasks = open(&stage, settings()).await;
    let mut events = tasks.events();
    let dependency = r#","cached_dependencies":[{"name":"n","from":"x:","to":"/a","cache_key":"k","log_source":""}]"#;
    tasks
        .desire(desired("g", "exit 0", dependency))
        .await
        .unwrap();
    until(&mut events, "Running to Completed").await;
    let task = tasks.get("g").await.unwrap();
    assert_eq!(
        (task.rejection_count, task.failure_reason.as_str()),
        (4, "failed to download cached artifacts")
    );
    tasks.close().await;
}

#[tokio::test]
async fn a_restart_takes_up_every_task() {
    let stage = Rehearsal::new(Duration::from_secs(10)).await;
    let tasks = open(&stage, settings()).await;
    let mut events = tasks.events();
    tasks.desire(desired("done", "exit 0", "")).await.unwrap();
    until(&mut events, "Running to Completed").await;
    tasks.desire(desired("running", "hang", "")).await.unwrap();
    until(&mut events, "Pending to Running").await;
    tasks.close().await;
    drop(tasks);

    let again = open(&stage, settings()).await;
    assert!(!again.get("done").await.unwrap().failed);
    let lost = again.get("running").await.unwrap();
    assert_eq!(
        (lost.state, lost.failure_reason.as_str()),
        (State::Completed, "cell disappeared before completion")
    );
    for guid in ["done", "running"] {
        again.resolve(guid).await.unwrap();
        again.delete(guid).await.unwrap();
    }
    again.close().await;
    assert!(stage.left().await.is_empty());
}
