//! The whole life of tasks over the socket.

use std::io::Cursor;

use futures::StreamExt;
use portlayer::compose::{BindHow, Interrupt, Interrupted, JoinHow, TaskBind};
use portlayer::element::{
    Body, Checksum, Kind, ListQuery, NewElement, Patch, Projection, ReadData, Spec, State,
};
use portlayer::event::Change;
use portlayer::runtime::{LogQuery, LogStreams};
use portlayer::task::{ExitReason, Interaction, Secret, TaskSpec};
use portlayer_client::{Client, ElementOutcome, LogStream, Watched};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::daemon::{Daemon, busybox, id, ids, one_call, shell};

async fn text(mut output: LogStream) -> String {
    let mut bytes = Vec::new();
    while let Some(chunk) = output.next().await {
        bytes.extend(chunk.unwrap().bytes);
    }
    String::from_utf8(bytes).unwrap()
}

pub(super) async fn output(client: &Client, name: &str, follow: bool) -> String {
    let (task, executor) = ids(name);
    let query = LogQuery {
        executor,
        task,
        streams: LogStreams::Both,
        since: None,
        tail: None,
        follow,
    };
    text(client.logs(&query).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_its_whole_life_over_the_socket() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let mut events = client.subscribe(Some(1), &["kind==task"]).await.unwrap();
    let image = busybox(&client).await;

    let definition = b"the original definition".to_vec();
    let (task, executor) = ids("a");
    let mut spec = shell("echo hello; echo $WORD; exit 3");
    spec.secrets = vec![Secret {
        name: "WORD".into(),
        value: "secret".into(),
    }];
    let new = NewElement::new(task.clone(), Spec::Task(Box::new(spec)))
        .data(Cursor::new(definition.clone()))
        .checksum(Checksum::of(&definition))
        .ro("team", "a");
    let created = client.create(new).await.unwrap();
    assert_eq!(created.checksum, Some(Checksum::of(&definition)));
    let Body::Task(body) = &created.body else {
        panic!("a task");
    };
    assert_eq!(body.spec.secrets[0].value, "");

    let new = NewElement::new(executor.clone(), Spec::Executor(Box::default()));
    client.create(new).await.unwrap();
    let handle = client.compose(&executor).await.unwrap();
    let handle = client.join(handle, &image, JoinHow::root()).await.unwrap();
    let handle = client.join(handle, &task, JoinHow::Task).await.unwrap();
    let handle = client.bind(handle, None, BindHow::Plain).await.unwrap();
    let plan = client.plan(&handle).await.unwrap();
    assert!(!plan.steps.is_empty());
    let committed = client.commit(handle).await.unwrap();
    assert_eq!(committed.elements[&task], ElementOutcome::Success);
    assert_eq!(committed.runs[0].task, task);

    let exit = client.wait(&executor, &task, None).await.unwrap();
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(3)));
    assert_eq!(output(&client, "a", true).await, "hello\nsecret\n");
    assert_eq!(client.exits(&executor, None).await.unwrap(), [exit]);
    let rows = client.audit_log(&task).await.unwrap();
    assert_eq!(
        (rows[0].actor.as_str(), rows[0].verb.as_str()),
        ("uid 0", "create")
    );

    let mut data = Vec::new();
    let mut export = client.export(&task).await.unwrap();
    export.read_to_end(&mut data).await.unwrap();
    assert_eq!(data, definition);
    let have = ReadData::UnlessChecksum(Checksum::of(&definition));
    let (_, none) = client
        .read_with(&task, &Projection::default(), have)
        .await
        .unwrap();
    assert!(none.is_none());

    let patch = Patch::from([("owner".to_owned(), Some(b"me".to_vec()))]);
    let updated = client.update(&task, patch, None).await.unwrap();
    assert_eq!(updated.changed, ["owner"]);
    let page = client
        .list(ListQuery::filter("labels.owner==me"))
        .await
        .unwrap();
    assert_eq!(page.items, [updated.descriptor]);
    let info = client.info(true).await.unwrap();
    assert_eq!(info.counts[&Kind::Task], 1);
    let diagnostics = client.diagnostics().await.unwrap();
    assert!(diagnostics.engine_available);
    assert_eq!(diagnostics.subscriptions, 1);

    client.settle().await.unwrap();
    for element in [&executor, &task, &image] {
        client.delete(element).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&"deleted") {
        let event = events.next().await.unwrap().unwrap();
        if let Change::Unbound { exit, .. } = &event.change {
            assert_eq!(exit.as_ref().unwrap().code, Some(3));
        }
        seen.push(event.change.as_str());
    }
    assert_eq!(seen[..4], ["created", "joined", "bound", "unbound"]);
    drop(events);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_read_a_task_and_one_writes() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let (task, executor) = ids("cat");
    let spec = TaskSpec {
        argv: vec!["/bin/cat".into()],
        interaction: Interaction { stdin: true },
        ..TaskSpec::default()
    };
    client.run(one_call("cat", &image, spec)).await.unwrap();
    let stats = client.stats(&executor).await.unwrap();
    assert!(stats.pids.is_some_and(|pids| pids > 0), "{stats:?}");

    let mut writer = client.attach(&executor, &task, true, true).await.unwrap();
    let mut reader = client.attach(&executor, &task, true, false).await.unwrap();
    assert!(reader.input.is_none());
    let mut input = writer.input.take().unwrap();
    input.write_all(b"one\n").await.unwrap();
    for output in [&mut writer.output, &mut reader.output] {
        let chunk = output.next().await.unwrap().unwrap();
        assert_eq!(chunk.bytes, b"one\n");
    }
    let second = client.attach(&executor, &task, false, true).await.unwrap();
    let refused = second.input_ended.unwrap().await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), "busy");
    // One more task in the same executor.
    let extra = NewElement::new(
        id("task://tasks/extra"),
        Spec::Task(Box::new(shell("echo x"))),
    );
    let extra = client.create(extra).await.unwrap().id;
    let run = client
        .exec(&executor, &extra, TaskBind::default())
        .await
        .unwrap();
    let exit = client.wait(&executor, &extra, Some(run.run)).await.unwrap();
    assert_eq!(exit.code, Some(0));

    input.write_all(b"two\n").await.unwrap();
    drop(input);
    assert_eq!(text(writer.output).await, "two\n");
    assert_eq!(text(reader.output).await, "two\n");
    let exit = client.wait(&executor, &task, None).await.unwrap();
    assert_eq!(exit.code, Some(0));
    let late = client
        .interrupt(&executor, Some(&task), Interrupt::Stop { how: None })
        .await
        .unwrap();
    assert_eq!(late, Interrupted::AlreadyExited(Some(Box::new(exit))));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_leaves_nothing_it_made() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let spec = TaskSpec {
        argv: vec!["/no/such/program".into()],
        ..TaskSpec::default()
    };
    let failed = client.run(one_call("x", &image, spec)).await.unwrap_err();
    assert_eq!(failed.reason(), "executable_not_found");
    assert_eq!(failed.element(), Some(&id("task://tasks/x")));
    let query = ListQuery {
        filters: vec!["kind==task".into(), "kind==executor".into()],
        ..ListQuery::default()
    };
    assert_eq!(client.list(query).await.unwrap().items, []);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_followed_by_what_changed_since() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    for name in ["a", "b"] {
        let new = NewElement::new(ids(name).0, Spec::Task(Box::new(shell("true"))));
        client.create(new).await.unwrap();
    }
    let query = ListQuery {
        kind: Some(Kind::Task),
        ..ListQuery::default()
    };
    let mut watch = client
        .watch_from_snapshot(query, &["kind==task"])
        .await
        .unwrap();
    client.delete(&ids("a").0).await.unwrap();
    let Some(Ok(Watched::Snapshot { elements, last, .. })) = watch.next().await else {
        panic!("a snapshot first");
    };
    assert!(last);
    assert_eq!(elements.len(), 2);
    assert_eq!(elements[0].state, State::Ready);
    let Some(Ok(Watched::Event(event))) = watch.next().await else {
        panic!("then events");
    };
    assert_eq!(
        (event.id.clone(), event.change.as_str()),
        (ids("a").0, "deleted")
    );
    assert_eq!(client.last_sequence().await.unwrap(), event.sequence);
    let fetched = client.events(event.sequence, 5).await.unwrap();
    assert_eq!(fetched, [*event]);
    assert!(client.events(1_000, 5).await.unwrap().is_empty());
    drop(watch);
    daemon.end().await;
}
