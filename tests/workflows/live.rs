//! Commits on a running executor, and attaching to what runs in it.

use portlayer::compose::{BindHow, CommitError, JoinHow, TaskBind};
use portlayer::element::{ElementId, NewElement, Spec, State, VolumeSpec};
use portlayer::error::Classify;
use portlayer::task::{ExitReason, Interaction, TaskSpec};
use portlayer_node::Node;
use tokio::io::AsyncWriteExt;

use super::composed::{run, said, stop};
use super::example::stage;
use super::story::{events, on_node};
use super::volumes::content;

pub(super) async fn volume(node: &Node, id: &str) -> ElementId {
    let new = NewElement::new(id.parse().unwrap(), Spec::Volume(VolumeSpec::default()));
    node.port_layer.create(new).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_task_in_a_running_executor() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let main = stage::shell(
            node,
            "main",
            "echo mine > /tmp/file; echo ready; exec sleep 1000",
        )
        .await
        .unwrap();
        run(node, &executor, &image, &[&main]).await;
        stage::until_it_says(node, &executor, &main, "ready")
            .await
            .unwrap();

        // The same root and the same processes.
        let look = stage::shell(node, "look", "cat /tmp/file; pidof sleep | wc -w; exit 5")
            .await
            .unwrap();
        let started = layer
            .exec(&executor, &look, TaskBind::default())
            .await
            .unwrap();
        assert_eq!((&started.task, started.run), (&look, 1));
        let exit = layer.wait(&executor, &look, None).await.unwrap();
        assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(5)));
        assert_eq!(
            stage::output(node, &executor, &look).await.unwrap(),
            "mine\n1\n"
        );
        assert_eq!(
            layer.read(&executor).await.unwrap().state,
            State::Running,
            "the main task goes on"
        );
        // And once more.
        assert_eq!(
            layer
                .exec(&executor, &look, TaskBind::default())
                .await
                .unwrap()
                .run,
            2
        );
        layer.wait(&executor, &look, Some(2)).await.unwrap();

        // The main task may end while another goes on; the container ends with the last one.
        let long = stage::shell(node, "long", "echo here; exec sleep 1000")
            .await
            .unwrap();
        layer
            .exec(&executor, &long, TaskBind::default())
            .await
            .unwrap();
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.unbind(handle, Some(&main)).await.unwrap();
        layer.commit(handle).await.unwrap();
        assert_eq!(
            layer.wait(&executor, &main, None).await.unwrap().reason,
            ExitReason::Cancelled
        );
        assert_eq!(
            layer.read(&executor).await.unwrap().state,
            State::Running,
            "the long task goes on"
        );
        stop(node, &executor).await;
        assert_eq!(
            layer.wait(&executor, &long, None).await.unwrap().reason,
            ExitReason::Cancelled
        );
        let told = events(node).await;
        let of_executor: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("executor://executors/x1 "))
            .collect();
        assert_eq!(
            of_executor,
            ["created", "bound", "unbound"],
            "one start, one stop"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_and_goes_while_the_executor_runs() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let main = stage::shell(node, "main", "echo ready; exec sleep 1000")
            .await
            .unwrap();
        run(node, &executor, &image, &[&main]).await;
        let data = volume(node, "volume://volumes/data").await;

        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer
            .join(handle, &data, JoinHow::volume("/data"))
            .await
            .unwrap();
        let handle = layer
            .bind(handle, Some(&data), BindHow::Plain)
            .await
            .unwrap();
        let result = layer.commit(handle).await.unwrap();
        assert_eq!(said(&result)[data.as_str()], "success");
        let write = stage::shell(node, "write", "echo live > /data/file")
            .await
            .unwrap();
        layer
            .exec(&executor, &write, TaskBind::default())
            .await
            .unwrap();
        assert_eq!(
            layer.wait(&executor, &write, None).await.unwrap().code,
            Some(0)
        );

        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.unbind(handle, Some(&data)).await.unwrap();
        let handle = layer.leave(handle, &data).await.unwrap();
        let result = layer.commit(handle).await.unwrap();
        assert!(!result.is_error(), "{result:?}");
        let look = stage::shell(node, "look", "ls /data").await.unwrap();
        layer
            .exec(&executor, &look, TaskBind::default())
            .await
            .unwrap();
        layer.wait(&executor, &look, None).await.unwrap();
        assert_eq!(
            stage::output(node, &executor, &look).await.unwrap(),
            "",
            "it is unmounted"
        );
        assert_eq!(
            content(node, &data).await.keys().collect::<Vec<_>>(),
            ["file"]
        );
        layer.delete(&data).await.unwrap();
        assert_eq!(layer.read(&executor).await.unwrap().state, State::Running);

        // What cannot be done live is refused, and nothing happened.
        let before = events(node).await;
        let handle = layer.compose(&executor).await.unwrap();
        let host: ElementId = "network://node/host".parse().unwrap();
        let handle = layer.join(handle, &host, JoinHow::network()).await.unwrap();
        let handle = layer
            .bind(handle, Some(&host), BindHow::Plain)
            .await
            .unwrap();
        let refused = layer.commit(handle).await.unwrap_err();
        assert!(
            matches!(refused, CommitError::NeedsRestart { .. }),
            "{refused:?}"
        );
        assert_eq!(refused.class().reason, "needs_restart");
        assert_eq!(events(node).await, before);
        stop(node, &executor).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_several_readers() {
    on_node(async |node, _| {
        use futures::StreamExt;
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let spec = TaskSpec {
            argv: vec!["/bin/cat".into()],
            interaction: Interaction { stdin: true },
            ..TaskSpec::default()
        };
        let task = stage::task(node, "cat", spec).await.unwrap();
        run(node, &executor, &image, &[&task]).await;
        let mut writer = layer.attach(&executor, &task, true, true).await.unwrap();
        let reader = layer.attach(&executor, &task, true, false).await.unwrap();
        let mut input = writer.input.take().unwrap();
        input.write_all(b"there and back\n").await.unwrap();
        drop(input);
        for stream in [writer.output, reader.output] {
            let chunks: Vec<_> = stream.collect().await;
            let bytes: Vec<u8> = chunks
                .into_iter()
                .flat_map(|chunk| chunk.unwrap().bytes)
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), "there and back\n");
        }
        assert_eq!(
            layer.wait(&executor, &task, None).await.unwrap().code,
            Some(0)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stored_with_a_volume_has_its_paths_below_it() {
    on_node(async |node, _| {
        use portlayer::archive::TarBuilder;
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let tools: ElementId = "volume://volumes/tools".parse().unwrap();
        let script = b"#!/bin/sh\necho $0 in $(pwd)\n";
        let tar = TarBuilder::new()
            .dir("bin", 0o755)
            .file("bin/tool", 0o755, script)
            .dir("work", 0o755)
            .finish();
        let new = NewElement::new(tools.clone(), Spec::Volume(VolumeSpec::default()));
        layer
            .create(new.data(std::io::Cursor::new(tar)))
            .await
            .unwrap();
        let task: ElementId = "task://tasks/tool".parse().unwrap();
        let spec = TaskSpec {
            argv: vec!["/bin/tool".into()],
            cwd: Some("/work".into()),
            ..TaskSpec::default()
        };
        let new = NewElement::new(task.clone(), Spec::Task(Box::new(spec))).owner(tools.clone());
        layer.create(new).await.unwrap();

        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer.join(handle, &task, JoinHow::Task).await.unwrap();
        // Without the volume its program is nowhere.
        let alone = layer
            .bind(handle.clone(), None, BindHow::Plain)
            .await
            .unwrap();
        let refused = layer.commit(alone).await.unwrap_err();
        assert!(
            matches!(refused, CommitError::UnresolvedRequirement { .. }),
            "{refused:?}"
        );
        let handle = layer
            .join(handle, &tools, JoinHow::volume("/opt/tools"))
            .await
            .unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        layer.commit(handle).await.unwrap();
        layer.wait(&executor, &task, None).await.unwrap();
        let output = stage::output(node, &executor, &task).await.unwrap();
        assert_eq!(output, "/opt/tools/bin/tool in /opt/tools/work\n");

        // The task goes with its owner; the executor keeps its copy and its history.
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.unbind(handle, None).await.unwrap();
        let handle = layer.leave(handle, &tools).await.unwrap();
        let handle = layer.leave(handle, &task).await.unwrap();
        layer.commit(handle).await.unwrap();
        layer.delete(&tools).await.unwrap();
        assert!(layer.read(&task).await.is_err());
        let told = events(node).await;
        assert_eq!(
            told[told.len() - 2..],
            [
                "task://tasks/tool deleted",
                "volume://volumes/tools deleted"
            ]
        );
        assert_eq!(layer.exits(&executor, Some(&task)).await.unwrap().len(), 1);
    })
    .await;
}
