//! Workflow 8: a task runs in an image, step by step.
//!
//! ```text
//! cargo run --example 08_use_of_image      (as root)
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

mod stage;

use anyhow::Result;
use portlayer::compose::{BindHow, CommitResult, JoinHow, TaskBind};
use portlayer::element::ElementId;
use portlayer::task::{ExitRecord, Limits};
use portlayer_node::Node;

#[tokio::main]
async fn main() -> Result<()> {
    stage::on_a_node(workflow).await
}

/// Runs `task://tasks/t1` in `executor://executors/x1`; returns what commit said, how the task ended and its output.
pub(crate) async fn workflow(node: &Node) -> Result<(CommitResult, ExitRecord, String)> {
    let layer = &node.port_layer;
    let image = stage::busybox(node).await?;
    let executor = stage::executor(node, "x1").await?;
    let task = stage::shell(
        node,
        "t1",
        "echo hello from $(pwd); echo trouble >&2; exit 7",
    )
    .await?;
    let log: ElementId = "log://node/file".parse()?;

    // A handle is a value. Every call takes it and returns the edited one; nothing on the node knows of it.
    let handle = layer.compose(&executor).await?;
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    let handle = layer
        .bind(handle, Some(&executor), BindHow::Executor(limits))
        .await?;
    // Join says in which role an element takes part; bind that it is to be active.
    let handle = layer.join(handle, &image, JoinHow::root()).await?;
    let handle = layer.bind(handle, Some(&image), BindHow::Plain).await?;
    let handle = layer.join(handle, &log, JoinHow::Log).await?;
    let handle = layer.bind(handle, Some(&log), BindHow::Plain).await?;
    let handle = layer.join(handle, &task, JoinHow::Task).await?;
    let settings = TaskBind {
        cwd: Some("/tmp".into()),
        ..TaskBind::default()
    };
    let handle = layer
        .bind(handle, Some(&task), BindHow::Task(settings))
        .await?;

    // Commit is the only act. This is what it will do.
    for step in layer.plan(&handle).await?.steps {
        println!("  {step}");
    }
    let committed = layer.commit(handle).await?;
    for (element, result) in &committed.elements {
        println!("{element}: {result:?}");
    }

    let exit = layer.wait(&executor, &task, None).await?;
    println!("{task} ended: {} {:?}", exit.reason.as_str(), exit.code);
    let output = stage::output(node, &executor, &task).await?;
    print!("{output}");
    Ok((committed, exit, output))
}
