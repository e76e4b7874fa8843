//! Workflow 13: from an image, with free space that needs a resize.
//!
//! ```text
//! cargo run --example 13_free_space      (as root)
//! ```
//!
//! Images are immutable here, so free space is what the *volume* made from one has: the location `block` keeps every
//! volume as a bounded file system in a file, which grows while nobody uses it.
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::{Result, bail};
use portlayer::compose::JoinHow;
use portlayer::element::{ElementId, ImageSpec, NewElement, Spec, VolumeSpec};
use portlayer::error::{CreateError, UpdateError};
use portlayer::store::StoreError;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Makes `volume://block/big` from an image, grows it and fills it; returns what the task saw.
pub(crate) async fn workflow(node: &Node) -> Result<(ElementId, ElementId, String)> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;

    // An image can ask for room too: it is checked before and after unpacking, and what does not fit is removed.
    let spec = ImageSpec {
        freespace_bytes: 1 << 60,
    };
    let huge =
        NewElement::new("image://images/huge".parse()?, Spec::Image(spec)).parent(image.clone());
    match layer.create(huge).await {
        Err(CreateError::Store {
            source: error @ StoreError::InsufficientSpace { .. },
            ..
        }) => {
            println!("refused: {error}");
        }
        other => bail!("an exbibyte was promised: {other:?}"),
    }

    // As large as the parent, its own tables and 16 MiB.
    let spec = VolumeSpec {
        freespace_bytes: 16 << 20,
        ..VolumeSpec::default()
    };
    let id: ElementId = "volume://block/big".parse()?;
    let big = layer
        .create(NewElement::new(id, Spec::Volume(spec)).parent(image.clone()))
        .await?
        .id;
    // Growing it takes a resize of its file system.
    layer.ensure_freespace(&big, 48 << 20).await?;
    println!("{big} has 48 MiB free");

    let executor = stage::executor(node, "x1").await?;
    let script = "dd if=/dev/zero of=/big/file bs=1M count=48 2>/dev/null && echo 48 MiB fit
        trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let task = stage::shell(node, "t1", script).await?;
    let parts = [
        (&image, JoinHow::root()),
        (&big, JoinHow::volume("/big")),
        (&task, JoinHow::Task),
    ];
    let handle = layer.composed(&executor, parts).await?;
    layer.commit(handle).await?;
    stage::until_it_says(node, &executor, &task, "fit").await?;
    // A file system that is in use is not resized.
    match layer.ensure_freespace(&big, 96 << 20).await {
        Err(UpdateError::InvalidState { id, reason }) => println!("refused: {id}: {reason}"),
        other => bail!("a volume in use was resized: {other:?}"),
    }
    let handle = layer.compose(&executor).await?;
    let handle = layer.unbind(handle, None).await?;
    layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;
    let output = stage::output(node, &executor, &task).await?;
    print!("{output}");
    Ok((image, big, output))
}
