//! Workflows 8 to 11, 13 and 14: what runs.

use std::collections::BTreeMap;

use portlayer::compose::{BindHow, CommitResult, ElementResult, JoinHow};
use portlayer::element::{Body, ElementId, State};
use portlayer::runtime::FindingClass;
use portlayer::task::ExitReason;
use portlayer_node::Node;

use super::example::{
    e08_use_of_image, e09_volume_and_image, e10_non_persistent_volume, e11_read_only_root,
    e13_free_space, e14_no_root, stage,
};
use super::story::{events, held, id, on_node, rows};
use super::volumes::content;

/// What a commit said, by element.
pub(super) fn said(result: &CommitResult) -> BTreeMap<&str, &'static str> {
    let word = |result: &ElementResult| match result {
        ElementResult::Success => "success",
        ElementResult::NoOp => "no-op",
        ElementResult::Error(_) => "error",
    };
    result
        .elements
        .iter()
        .map(|(id, result)| (id.as_str(), word(result)))
        .collect()
}

/// What the engine and the kernel hold of containers.
pub(super) async fn containers(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for class in [
        FindingClass::Process,
        FindingClass::Container,
        FindingClass::Lease,
        FindingClass::Shim,
        FindingClass::Cgroup,
        FindingClass::Fifo,
        FindingClass::RuncState,
        FindingClass::LoopDevice,
    ] {
        all.extend(held(node, class).await);
    }
    all
}

/// Composes an image at `/` and tasks, all bound, and commits.
pub(super) async fn run(
    node: &Node,
    executor: &ElementId,
    image: &ElementId,
    tasks: &[&ElementId],
) -> CommitResult {
    let layer = &node.port_layer;
    let mut handle = layer.compose(executor).await.unwrap();
    handle = layer.join(handle, image, JoinHow::root()).await.unwrap();
    handle = layer
        .bind(handle, Some(image), BindHow::Plain)
        .await
        .unwrap();
    for task in tasks {
        handle = layer.join(handle, task, JoinHow::Task).await.unwrap();
        handle = layer
            .bind(handle, Some(task), BindHow::Plain)
            .await
            .unwrap();
    }
    layer.commit(handle).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn use_of_image() {
    on_node(async |node, _| {
        let (committed, exit, output) = e08_use_of_image::workflow(node).await.unwrap();
        let all = [
            "executor://executors/x1",
            "image://images/busybox",
            "log://node/file",
            "task://tasks/t1",
        ];
        assert_eq!(said(&committed), all.map(|id| (id, "success")).into());
        assert_eq!(
            (exit.reason, exit.code, exit.signal, exit.run),
            (ExitReason::Exited, Some(7), None, 1)
        );
        assert!(exit.started <= exit.exited && !exit.reconciled);
        assert!(
            exit.cpu_ns.is_some_and(|ns| ns > 0)
                && exit.memory_peak_bytes.is_some_and(|bytes| bytes > 0)
        );
        let mut lines: Vec<_> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["hello from /tmp", "trouble"]);

        let executor = node.port_layer.read(&exit.executor).await.unwrap();
        assert_eq!(executor.state, State::Stopped);
        let Body::Executor(body) = &executor.body else {
            panic!("{executor:?}")
        };
        assert_eq!(
            body.composition.limits.as_ref().unwrap().memory_bytes,
            Some(64 << 20)
        );
        assert_eq!(
            containers(node).await,
            Vec::<String>::new(),
            "the container went with its last task"
        );
        let told = [
            "image://images/busybox created",
            "executor://executors/x1 created",
            "task://tasks/t1 created",
            "executor://executors/x1 modified limits",
            "image://images/busybox joined",
            "image://images/busybox bound",
            "log://node/file joined",
            "log://node/file bound",
            "task://tasks/t1 joined",
            "task://tasks/t1 bound",
            "executor://executors/x1 bound",
            "task://tasks/t1 unbound exited 7",
            "executor://executors/x1 unbound",
        ];
        assert_eq!(events(node).await, told);
        let changed = ["create 0>1 ok", "join 1>1 ok", "bind 1>1 ok"];
        assert_eq!(rows(node, "image://images/busybox").await, changed);
        assert_eq!(
            rows(node, "task://tasks/t1").await,
            [&changed[..], &["unbind 1>1 ok"]].concat()
        );
        let executor = ["create 0>1 ok", "commit 1>2 ok", "unbind 2>3 ok"];
        assert_eq!(rows(node, "executor://executors/x1").await, executor);

        // The template can go; the executor has its copy, and the exit record stays.
        node.port_layer.delete(&exit.task).await.unwrap();
        assert_eq!(
            node.port_layer
                .wait(&exit.executor, &exit.task, None)
                .await
                .unwrap(),
            exit
        );
        assert_eq!(
            node.port_layer.exits(&exit.executor, None).await.unwrap(),
            [exit]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commit_twice_is_nothing_the_second_time() {
    on_node(async |node, _| {
        let layer = &node.port_layer;
        let image = stage::busybox(node).await.unwrap();
        let executor = stage::executor(node, "x1").await.unwrap();
        let task = stage::shell(node, "t1", "sleep 1000").await.unwrap();
        let handle = layer.compose(&executor).await.unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer.join(handle, &task, JoinHow::Task).await.unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        let first = layer.commit(handle.clone()).await.unwrap();
        let before = events(node).await;
        // As a value from somewhere else: a handle survives a wire.
        let handle = portlayer::compose::Handle::from_token(&handle.to_token()).unwrap();
        let second = layer.commit(handle).await.unwrap();
        assert!(
            said(&second).values().all(|said| *said == "no-op"),
            "{second:?}"
        );
        assert_eq!((second.revision, second.runs.len()), (first.revision, 0));
        assert_eq!(events(node).await, before);
        stop(node, &executor).await;
    })
    .await;
}

/// Unbinds everything of an executor and waits until its tasks ended.
pub(super) async fn stop(node: &Node, executor: &ElementId) {
    let layer = &node.port_layer;
    let handle = layer.compose(executor).await.unwrap();
    let handle = layer.unbind(handle, None).await.unwrap();
    layer.commit(handle).await.unwrap();
    assert_eq!(layer.read(executor).await.unwrap().state, State::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_and_image() {
    on_node(async |node, _| {
        let (executor, [data, sub], committed) =
            e09_volume_and_image::workflow(node).await.unwrap();
        assert!(
            said(&committed).values().all(|said| *said == "success"),
            "{committed:?}"
        );
        // What was written lies where it was meant to, also after the volumes left.
        let in_data = content(node, &data).await;
        assert_eq!(
            in_data.keys().collect::<Vec<_>>(),
            ["file", "sub"],
            "the mount point of the inner one is in the outer"
        );
        assert_eq!(
            content(node, &sub).await.keys().collect::<Vec<_>>(),
            ["file"]
        );
        let told = events(node).await;
        let of_data: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("volume://volumes/data "))
            .collect();
        assert_eq!(of_data, ["created", "joined", "bound", "unbound", "left"]);
        let expected = [
            "create 0>1 ok",
            "join 1>1 ok",
            "bind 1>1 ok",
            "delete 1>1 in_use",
            "unbind 1>1 ok",
            "leave 1>1 ok",
        ];
        assert_eq!(rows(node, data.as_str()).await, expected);
        // Out of the executor it can go.
        node.port_layer.delete(&data).await.unwrap();
        assert_eq!(
            node.port_layer.read(&executor).await.unwrap().state,
            State::Stopped
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn non_persistent_volume() {
    on_node(async |node, _| {
        let outputs = e10_non_persistent_volume::workflow(node).await.unwrap();
        // Empty each time, one MiB fits, eight do not.
        assert_eq!(outputs, ["one MiB fits\nNo space left on device\n"; 2]);
        assert_eq!(containers(node).await, Vec::<String>::new());
        let exits = node
            .port_layer
            .exits(&id("executor://executors/x1"), None)
            .await
            .unwrap();
        assert_eq!(
            exits
                .iter()
                .map(|exit| (exit.run, exit.code))
                .collect::<Vec<_>>(),
            [(1, Some(0)), (2, Some(0))]
        );
        let told = events(node).await;
        let of_task: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("task://tasks/t1 "))
            .collect();
        assert_eq!(
            of_task,
            [
                "created",
                "joined",
                "bound",
                "unbound exited 0",
                "bound",
                "unbound exited 0"
            ]
        );
        let executor = [
            "create 0>1 ok",
            "commit 1>2 ok",
            "unbind 2>3 ok",
            "commit 3>4 ok",
            "unbind 4>5 ok",
        ];
        assert_eq!(rows(node, "executor://executors/x1").await, executor);
        assert_eq!(
            rows(node, "volume://scratch/images").await,
            ["create 0>1 ok", "join 1>1 ok", "bind 1>1 ok"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_root() {
    on_node(async |node, _| {
        let output = e11_read_only_root::workflow(node).await.unwrap();
        assert_eq!(output, "Read-only file system\nthe volume can be written\n");
        assert_eq!(
            content(node, &id("volume://volumes/home"))
                .await
                .keys()
                .collect::<Vec<_>>(),
            ["file"]
        );
        // The commit that failed told nobody anything but the audit log.
        let told = events(node).await;
        let of_volume: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("volume://volumes/home "))
            .collect();
        assert_eq!(of_volume, ["created", "joined", "bound"]);
        let executor = rows(node, "executor://executors/x1").await;
        assert_eq!(
            executor,
            [
                "create 0>1 ok",
                "commit 1>1 mount_target",
                "commit 1>2 ok",
                "unbind 2>3 ok"
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn free_space() {
    on_node(async |node, place| {
        let (image, big, output) = e13_free_space::workflow(node).await.unwrap();
        assert_eq!(output, "48 MiB fit\n");
        let volume = node.port_layer.read(&big).await.unwrap();
        let Body::Volume(body) = &volume.body else {
            panic!("{volume:?}")
        };
        assert_eq!((body.spec.freespace_bytes, volume.revision), (48 << 20, 2));
        let file = place
            .data()
            .join("volumes/block")
            .join(format!("{}.ext4", big.digest_hex()));
        assert!(std::fs::metadata(file).unwrap().len() >= 48 << 20);
        assert!(
            content(node, &big).await.contains_key("bin/busybox"),
            "the parent's content survived the resize"
        );
        let told = events(node).await;
        let of_volume: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("volume://block/big "))
            .collect();
        assert_eq!(
            of_volume,
            [
                "created",
                "modified spec.freespace_bytes",
                "joined",
                "bound",
                "unbound"
            ]
        );
        assert_eq!(
            rows(node, big.as_str()).await[..2],
            ["create 0>1 ok", "update 1>2 ok"]
        );
        assert_eq!(
            containers(node).await,
            Vec::<String>::new(),
            "a loop device too many"
        );
        // Of the image that did not fit there is nothing: the parent has one child.
        let children = portlayer::element::ListQuery::filter(format!("parent=={image}"));
        let children = node.port_layer.list(children).await.unwrap().items;
        assert_eq!(
            children
                .into_iter()
                .map(|child| child.id)
                .collect::<Vec<_>>(),
            [big]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_root() {
    on_node(async |node, _| {
        let output = e14_no_root::workflow(node).await.unwrap();
        let names: Vec<_> = output.lines().collect();
        assert!(
            names.contains(&"tools") && !names.contains(&"bin"),
            "{names:?}"
        );
        let told = events(node).await;
        let of_executor: Vec<_> = told
            .iter()
            .filter_map(|line| line.strip_prefix("executor://executors/x1 "))
            .collect();
        assert_eq!(
            of_executor,
            ["created", "bound", "unbound"],
            "the commit without a root told nothing"
        );
        let executor = rows(node, "executor://executors/x1").await;
        assert_eq!(executor.last().map(String::as_str), Some("unbind 2>3 ok"));
        let exits = node
            .port_layer
            .exits(&id("executor://executors/x1"), None)
            .await
            .unwrap();
        assert_eq!(
            exits.iter().map(|exit| exit.code).collect::<Vec<_>>(),
            [Some(0)]
        );
    })
    .await;
}
