//! Secrets of a task are replaced before anything is stored.

use portlayer::runtime::LogStreams;
use portlayer::task::Secret;

use super::world::{Datagrams, World, close, ids, log, run, shell, start, stored};

const VALUE: &str = "correct-horse-battery";

fn spec(script: &str) -> portlayer::task::TaskSpec {
    let mut spec = shell(script);
    spec.secrets = vec![Secret {
        name: "KEY".to_owned(),
        value: VALUE.to_owned(),
    }];
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_nowhere_however_it_is_written() {
    let world = World::new();
    let receiver = Datagrams::listen(&world.at("journal"));
    let node = world.node(None).await;
    let socket = world.at("journal");
    let clean = log(
        &node,
        "clean",
        &[
            ("kind", "journald"),
            ("socket", &socket),
            ("redact", "secrets"),
        ],
    )
    .await;
    // Whole, in pieces with time between them, at both streams, and a beginning that goes no further.
    let script = "echo a$KEY-b; printf 'x correct-'; sleep 0.3; printf horse-; sleep 0.3; echo battery y; echo err$KEY >&2; \
                  printf 'correct-horse'; sleep 0.3; echo ; printf 'ends with correct-'";
    run(&node, "a", &[&clean], spec(script)).await;
    let (out, _) = stored(&node, "a", LogStreams::Stdout).await;
    assert_eq!(out, "a***-b\nx *** y\ncorrect-horse\nends with correct-");
    assert_eq!(stored(&node, "a", LogStreams::Stderr).await.0, "err***\n");
    let messages = receiver.received.wait_for("ends with").await;
    assert!(
        messages.iter().all(|message| !message.contains(VALUE)),
        "{messages:?}"
    );
    world.stored_nowhere(VALUE);
    // Many of them, over the edges of what is read at once.
    let many = "i=0; while [ $i -lt 6000 ]; do printf \"$KEY.\"; i=$((i+1)); done";
    run(&node, "b", &[&clean], spec(many)).await;
    assert_eq!(
        stored(&node, "b", LogStreams::Both).await.0,
        "***.".repeat(6000)
    );
    close(node, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_of_ours_knows_it_as_well() {
    let world = World::new();
    let node = world.node(None).await;
    let clean = log(&node, "clean", &[("kind", "file"), ("redact", "secrets")]).await;
    start(
        &node,
        "a",
        &[&clean],
        spec("printf correct-; sleep 2; echo horse-battery; echo $KEY"),
    )
    .await
    .unwrap();
    node.close().await.unwrap();
    let node = world.open(None).await;
    let (executor, task) = ids("a");
    node.port_layer.wait(&executor, &task, None).await.unwrap();
    assert_eq!(stored(&node, "a", LogStreams::Both).await.0, "***\n***\n");
    world.stored_nowhere(VALUE);
    close(node, &["a"]).await;
}
