//! The port layer goes away and comes back while tasks run, end, and wait to be started.

use std::time::Duration;

use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::State;
use portlayer::task::ExitReason;

use super::composed::{run, stop};
use super::example::stage;
use super::story::{Place, close, events};

/// Ends with 9 as soon as there is `/data/go`.
const ENDS: &str = "echo before; until test -e /data/go; do sleep 0.05; done; echo after; exit 9";
/// Writes once more as soon as there is `/data/go`, says so in `/data/said`, and goes on.
const GOES_ON: &str = "echo before; until test -e /data/go; do sleep 0.05; done; echo during; > /data/said; exec sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn closed_and_opened_again() {
    let place = Place::new();
    let node = place.open().await;
    let layer = &node.port_layer;
    let image = stage::busybox(&node).await.unwrap();
    // One that runs on, one that ends while nobody watches, one that ended before, one never started.
    let on = stage::executor(&node, "on").await.unwrap();
    let running = stage::shell(&node, "running", GOES_ON).await.unwrap();
    let ended = stage::executor(&node, "ended").await.unwrap();
    let done = stage::shell(&node, "done", "echo done; exit 4")
        .await
        .unwrap();
    run(&node, &ended, &image, &[&done]).await;
    let exit = layer.wait(&ended, &done, None).await.unwrap();
    let idle = stage::executor(&node, "idle").await.unwrap();
    let handle = layer.compose(&idle).await.unwrap();
    let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
    let handle = layer.join(handle, &done, JoinHow::Task).await.unwrap();
    layer.commit(handle).await.unwrap();
    let meanwhile = stage::executor(&node, "meanwhile").await.unwrap();
    let ending = stage::shell(&node, "ending", ENDS).await.unwrap();
    let data = super::live::volume(&node, "volume://volumes/data").await;
    for (executor, task) in [(&on, &running), (&meanwhile, &ending)] {
        let handle = layer.compose(executor).await.unwrap();
        let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
        let handle = layer
            .join(handle, &data, JoinHow::volume("/data"))
            .await
            .unwrap();
        let handle = layer.join(handle, task, JoinHow::Task).await.unwrap();
        let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
        layer.commit(handle).await.unwrap();
        stage::until_it_says(&node, executor, task, "before")
            .await
            .unwrap();
    }
    let told = events(&node).await.len();

    node.close().await.unwrap();
    // Nobody watches now.
    let on_host = place
        .data()
        .join("volumes/volumes/live")
        .join(data.digest_hex());
    std::fs::write(on_host.join("go"), "").unwrap();
    while !on_host.join("said").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let node = place.open().await;
    let layer = &node.port_layer;
    assert_eq!(layer.read(&on).await.unwrap().state, State::Running);
    assert_eq!(layer.read(&idle).await.unwrap().state, State::Created);
    assert_eq!(
        layer.wait(&ended, &done, None).await.unwrap(),
        exit,
        "written once, never changed"
    );
    let seen = layer.wait(&meanwhile, &ending, None).await.unwrap();
    assert_eq!((seen.reason, seen.code), (ExitReason::Exited, Some(9)));
    assert_eq!(
        stage::output(&node, &meanwhile, &ending).await.unwrap(),
        "before\nafter\n",
        "the keeper has what was written while nobody read"
    );
    stage::until_it_says(&node, &on, &running, "during")
        .await
        .unwrap();
    stop(&node, &on).await;
    assert_eq!(
        layer.wait(&on, &running, None).await.unwrap().reason,
        ExitReason::Cancelled
    );
    assert_eq!(
        stage::output(&node, &on, &running).await.unwrap(),
        "before\nduring\n"
    );
    // The one never started can be started.
    let handle = layer.compose(&idle).await.unwrap();
    let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
    layer.commit(handle).await.unwrap();
    assert_eq!(layer.wait(&idle, &done, None).await.unwrap().code, Some(4));
    // Nothing was told twice.
    let all = events(&node).await;
    let ends = all[told..]
        .iter()
        .filter(|line| line.starts_with("task://tasks/ending unbound exited 9"))
        .count();
    assert_eq!(ends, 1, "{:#?}", &all[told..]);
    close(node).await;
}
