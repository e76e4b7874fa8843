//! Workflow 9: a task with an image and two volumes, one inside the other.
//!
//! ```text
//! cargo run --example 09_volume_and_image      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::compose::{BindHow, CommitResult, ComposeError, JoinHow};
use portlayer::element::{ElementId, NewElement, Spec, VolumeSpec};
use portlayer::error::DeleteError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Writes into `volume://volumes/data` at `/data` and `volume://volumes/sub` at `/data/sub`.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, [ElementId; 2], CommitResult)> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let executor = stage::executor(node, "x1").await?;
    let task = stage::shell(
        node,
        "t1",
        "echo outer > /data/file; echo inner > /data/sub/file",
    )
    .await?;
    let volume = async |name: &str| -> Result<ElementId> {
        let id = format!("volume://volumes/{name}").parse()?;
        Ok(layer
            .create(NewElement::new(id, Spec::Volume(VolumeSpec::default())))
            .await?
            .id)
    };
    let (data, sub, third) = (
        volume("data").await?,
        volume("sub").await?,
        volume("third").await?,
    );

    let handle = layer.compose(&executor).await?;
    let handle = layer.join(handle, &image, JoinHow::root()).await?;
    // The inner one first: parents are mounted before children whatever the order of the calls.
    let handle = layer
        .join(handle, &sub, JoinHow::volume("/data/sub"))
        .await?;
    let handle = layer.join(handle, &data, JoinHow::volume("/data")).await?;
    match layer
        .join(handle.clone(), &third, JoinHow::volume("/data"))
        .await
    {
        Err(ComposeError::ConflictsWith { id, other, why }) => {
            println!("refused: {id} and {other}: {why}")
        }
        other => bail!("two volumes got one place: {other:?}"),
    }
    let handle = layer.join(handle, &task, JoinHow::Task).await?;
    // None = everything that is joined.
    let handle = layer.bind(handle, None, BindHow::Plain).await?;
    let committed = layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;

    // The executor has stopped, but could be started again: it still needs the volume.
    match layer.delete(&data).await {
        Err(DeleteError::InUse { id, by }) => println!("refused: {id} is used by {by:?}"),
        other => bail!("a volume in use was deleted: {other:?}"),
    }
    // Out of the executor the volumes keep what was written.
    let mut handle = layer.compose(&executor).await?;
    for volume in [&data, &sub] {
        handle = layer.unbind(handle, Some(volume)).await?;
        handle = layer.leave(handle, volume).await?;
    }
    layer.commit(handle).await?;
    println!("{data} and {sub} are out of {executor}");
    Ok((executor, [data, sub], committed))
}
