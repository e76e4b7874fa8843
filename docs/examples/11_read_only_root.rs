//! Workflow 11: a root nobody can write to.
//!
//! ```text
//! cargo run --example 11_read_only_root      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::compose::{BindHow, CommitError, JoinHow, StepError};
use portlayer::element::{ElementId, NewElement, Spec, VolumeSpec};
use portlayer::runtime::RuntimeErrorKind;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

const SCRIPT: &str = "touch /file 2>&1 | sed 's/.*: //'
touch /home/file && echo the volume can be written";

/// Runs a task on a read-only root with a volume at `/home`; returns what it printed.
pub(crate) async fn workflow(node: &Node) -> Result<String> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let executor = stage::executor(node, "x1").await?;
    let task = stage::shell(node, "t1", SCRIPT).await?;
    let id: ElementId = "volume://volumes/home".parse()?;
    let home = layer
        .create(NewElement::new(id, Spec::Volume(VolumeSpec::default())))
        .await?
        .id;

    let handle = layer.compose(&executor).await?;
    let handle = layer
        .join(handle, &image, JoinHow::read_only_root())
        .await?;
    let handle = layer.join(handle, &task, JoinHow::Task).await?;

    // Nobody can make a mount point in a root that is read-only: it has to be in the image.
    let nowhere = layer
        .join(handle.clone(), &home, JoinHow::volume("/not/in/the/image"))
        .await?;
    let nowhere = layer.bind(nowhere, None, BindHow::Plain).await?;
    match layer.commit(nowhere).await {
        Err(CommitError::Step {
            source: StepError::Runtime(error),
            undo_failures,
            ..
        }) if matches!(error.kind, RuntimeErrorKind::MountTarget { .. })
            && undo_failures.is_empty() =>
        {
            println!("refused, and everything was undone: {error}");
        }
        other => bail!("a mount target that is not there was taken: {other:?}"),
    }

    let handle = layer.join(handle, &home, JoinHow::volume("/home")).await?;
    let handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;
    let output = stage::output(node, &executor, &task).await?;
    print!("{output}");
    Ok(output)
}
