//! Workflow 10: scratch space that is bounded and gone when the executor stops.
//!
//! ```text
//! cargo run --example 10_non_persistent_volume      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::Result;
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, NewElement, Spec, VolumeSpec};
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

const SCRIPT: &str = "ls -A /tmp/images
dd if=/dev/zero of=/tmp/images/fits bs=1M count=1 2>/dev/null && echo one MiB fits
dd if=/dev/zero of=/tmp/images/big bs=1M count=8 2>&1 | sed -n 's/.*: No/No/p'";

/// Runs the same task twice with 4 MiB of memory at `/tmp/images`; returns what each run printed.
pub(crate) async fn workflow(node: &Node) -> Result<Vec<String>> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let executor = stage::executor(node, "x1").await?;
    let task = stage::shell(node, "t1", SCRIPT).await?;
    // A volume of a tmpfs location has a name, metadata and a bound, but no bytes of its own.
    let spec = VolumeSpec {
        size_bytes: 4 << 20,
        ..VolumeSpec::default()
    };
    let id: ElementId = "volume://scratch/images".parse()?;
    let scratch = layer
        .create(NewElement::new(id, Spec::Volume(spec)))
        .await?
        .id;

    let handle = layer.compose(&executor).await?;
    let handle = layer.join(handle, &image, JoinHow::root()).await?;
    let handle = layer
        .join(handle, &scratch, JoinHow::volume("/tmp/images"))
        .await?;
    let handle = layer.join(handle, &task, JoinHow::Task).await?;
    let handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;
    let mut outputs = vec![stage::output(node, &executor, &task).await?];
    print!("first run:\n{}", outputs[0]);

    // A task that has ended is started again by binding it again. Root and volume are still joined.
    let handle = layer.compose(&executor).await?;
    let handle = layer.bind(handle, Some(&task), BindHow::Plain).await?;
    layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;
    let both = stage::output(node, &executor, &task).await?;
    outputs.push(both[outputs[0].len()..].to_owned());
    print!("second run, with nothing of the first:\n{}", outputs[1]);
    Ok(outputs)
}
