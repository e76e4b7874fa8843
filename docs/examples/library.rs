//! The whole of it once: a scheduler that links portlayer runs one task and looks at what came out.
//!
//! ```text
//! cargo run --example library      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use std::io::Cursor;

use anyhow::{Result, ensure};
use futures::StreamExt;
use portlayer::compose::JoinHow;
use portlayer::element::{ElementId, ImageSpec, NewElement, Spec, VolumeSpec};
use portlayer::event::Change;
use portlayer::task::{ExitReason, TaskSpec};
use portlayer_node::Node;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Creates an image, a volume, a task and an executor, composes and commits them, waits, reads output and volume, and
/// deletes everything again. Returns what the task printed.
pub(crate) async fn workflow(node: &Node) -> Result<String> {
    // Who calls is in every audit row.
    let layer = node.port_layer.with_actor("example");
    // Everything that happens from here on, in order.
    let mut events = layer.subscribe(None, &["kind==task", "kind==executor"])?;

    // Elements: records with an id, and for images and volumes bytes.
    let image: ElementId = "image://images/tools".parse()?;
    let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default()));
    layer
        .create(new.data(Cursor::new(stage::busybox_tar()?)))
        .await?;
    let volume: ElementId = "volume://volumes/results".parse()?;
    layer
        .create(NewElement::new(
            volume.clone(),
            Spec::Volume(VolumeSpec::default()),
        ))
        .await?;
    let task: ElementId = "task://tasks/build".parse()?;
    let spec = TaskSpec {
        argv: [
            "/bin/sh",
            "-c",
            "echo building; echo done > /results/status",
        ]
        .map(str::to_owned)
        .to_vec(),
        env: vec![("LANG".to_owned(), "C".to_owned())],
        deadline_ms: Some(60_000),
        ..TaskSpec::default()
    };
    layer
        .create(NewElement::new(task.clone(), Spec::Task(Box::new(spec))))
        .await?;
    let executor: ElementId = "executor://executors/build-1".parse()?;
    let spec = Spec::Executor(Box::default());
    layer
        .create(NewElement::new(executor.clone(), spec).rw("pipeline", "nightly"))
        .await?;

    // Composition: edits of a value, until commit.
    let parts = [
        (&image, JoinHow::root()),
        (&volume, JoinHow::volume("/results")),
        (&task, JoinHow::Task),
    ];
    let handle = layer.composed(&executor, parts).await?;
    let committed = layer.commit(handle).await?;
    println!("started {:?}", committed.runs);

    // What came out.
    let exit = layer.wait(&executor, &task, None).await?;
    ensure!(
        exit.reason == ExitReason::Exited && exit.code == Some(0),
        "{exit:?}"
    );
    let output = stage::output(node, &executor, &task).await?;
    print!("the task said: {output}");
    let mut tar = Vec::new();
    layer.export(&volume).await?.read_to_end(&mut tar).await?;
    println!("the volume is a tar of {} bytes", tar.len());

    // Users before what they use; the order is checked, not assumed.
    for id in [&executor, &task, &volume, &image] {
        layer.delete(id).await?;
    }
    while let Some(event) = events.next().await {
        let event = event?;
        println!(
            "{:3} {} {}",
            event.sequence,
            event.id,
            event.change.as_str()
        );
        if event.id == task && event.change == Change::Deleted {
            break;
        }
    }
    ensure!(layer.audit().await?.is_clean(), "something was left behind");
    Ok(output)
}
