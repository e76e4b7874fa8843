//! Workflow 14: nothing is mapped to `/`.
//!
//! ```text
//! cargo run --example 14_no_root      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use std::io::Cursor;

use anyhow::{Context, Result, bail};
use portlayer::archive::TarBuilder;
use portlayer::compose::{BindHow, CommitError, JoinHow};
use portlayer::element::{ElementId, NewElement, Spec, VolumeSpec};
use portlayer::task::TaskSpec;
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Tries to run a static program from a volume without a root, then with the explicit empty one; returns its output.
pub(crate) async fn workflow(node: &Node) -> Result<String> {
    let layer = &node.port_layer;
    let executor = stage::executor(node, "x1").await?;
    let spec = TaskSpec {
        argv: ["/tools/busybox", "ls", "/"].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    };
    let task = stage::task(node, "t1", spec).await?;
    let busybox =
        std::fs::read("/bin/busybox").context("the Debian package busybox-static is needed")?;
    let tar = TarBuilder::new().file("busybox", 0o755, &busybox).finish();
    let id: ElementId = "volume://volumes/tools".parse()?;
    let new = NewElement::new(id, Spec::Volume(VolumeSpec::default())).data(Cursor::new(tar));
    let tools = layer.create(new).await?.id;

    let handle = layer.compose(&executor).await?;
    let handle = layer
        .join(handle, &tools, JoinHow::read_only_volume("/tools"))
        .await?;
    let handle = layer.join(handle, &task, JoinHow::Task).await?;
    let rootless = layer.bind(handle.clone(), None, BindHow::Plain).await?;
    // Known before the engine hears of anything.
    match layer.commit(rootless).await {
        Err(error @ CommitError::NoRoot { .. }) => println!("refused: {error}"),
        other => bail!("a task was started without a root: {other:?}"),
    }

    // An empty root is there for who wants one, and says so.
    let handle = layer
        .join(
            handle,
            &"image://builtin/scratch".parse()?,
            JoinHow::read_only_root(),
        )
        .await?;
    let handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await?;
    layer.wait(&executor, &task, None).await?;
    let output = stage::output(node, &executor, &task).await?;
    print!("{output}");
    Ok(output)
}
