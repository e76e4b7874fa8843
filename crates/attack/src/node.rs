//! A node to attack, and tasks on it.

use std::io::Cursor;

use anyhow::{Context, Result};
use futures::StreamExt;
use portlayer::{
    PortLayer,
    archive::TarBuilder,
    compose::{BindHow, JoinHow},
    element::{ElementId, ImageSpec, Kind, NewElement, Spec},
    network::NetworkUse,
    runtime::LogQuery,
    task::{ExecutorSpec, ExitRecord, TaskSpec},
};
use portlayer_node::config::Config;
use portlayer_runtime::layout;

/// Opens a node with the image `busybox`, runs `work` on it and removes everything. An audit that is not clean is an error.
pub(crate) async fn on_a_node<T>(work: impl AsyncFnOnce(&PortLayer) -> Result<T>) -> Result<T> {
    let directory = tempfile::Builder::new()
        .prefix("pl-attack-")
        .tempdir_in("/var/tmp")?;
    on_a_node_in(&directory.path().join("d"), work).await
}

/// The same, with the node's data in a directory of the caller's.
pub(crate) async fn on_a_node_in<T>(
    data: &std::path::Path,
    work: impl AsyncFnOnce(&PortLayer) -> Result<T>,
) -> Result<T> {
    let node = portlayer_node::open(&Config::new(data))
        .await
        .context("opening a node")?;
    let outcome = async {
        let binary = std::path::Path::new("/bin/busybox");
        let bytes = std::fs::read(binary).context("the Debian package busybox-static is needed")?;
        let tar = layout::busybox_tar(&bytes, &layout::applets(binary)?);
        image(&node.port_layer, "busybox", None, tar).await?;
        let done = work(&node.port_layer).await?;
        let leaks = node.port_layer.audit().await?.leaks().count();
        anyhow::ensure!(
            leaks == 0,
            "the audit found {leaks} things that belong to nothing"
        );
        Ok(done)
    }
    .await;
    node.remove().await.context("removing the node")?;
    outcome
}

/// An image of one layer on a parent.
pub(crate) async fn image(
    layer: &PortLayer,
    name: &str,
    parent: Option<&ElementId>,
    tar: Vec<u8>,
) -> Result<ElementId> {
    let id = ElementId::new(Kind::Image, "images", name)?;
    let mut new = NewElement::new(id, Spec::Image(ImageSpec::default())).data(Cursor::new(tar));
    new.parent = parent.cloned();
    Ok(layer.create(new).await?.id)
}

/// A layer of many small files.
pub(crate) fn many_files(count: u32) -> Vec<u8> {
    let mut tar = TarBuilder::new().dir("many", 0o755);
    for number in 0..count {
        tar = tar.file(&format!("many/{number}"), 0o644, b"x");
    }
    tar.finish()
}

/// A task in an executor, started.
pub(crate) struct Started {
    pub(crate) executor: ElementId,
    pub(crate) task: ElementId,
}

/// Starts a task in an executor of its own.
pub(crate) async fn start(
    layer: &PortLayer,
    name: &str,
    (executor, task): (ExecutorSpec, TaskSpec),
    image: &str,
    network: Option<(&str, NetworkUse)>,
) -> Result<Started> {
    let create = async |kind, location, spec| -> Result<ElementId> {
        let id = ElementId::new(kind, location, name)?;
        Ok(layer.create(NewElement::new(id, spec)).await?.id)
    };
    let executor = create(
        Kind::Executor,
        "executors",
        Spec::Executor(Box::new(executor)),
    )
    .await?;
    let task = create(Kind::Task, "tasks", Spec::Task(Box::new(task))).await?;
    let image = ElementId::new(Kind::Image, "images", image)?;
    let mut handle = layer.compose(&executor).await?;
    handle = layer.join(handle, &image, JoinHow::root()).await?;
    if let Some((network, how)) = network {
        let network = ElementId::new(Kind::Network, "node", network)?;
        handle = layer.join(handle, &network, JoinHow::Network(how)).await?;
    }
    handle = layer.join(handle, &task, JoinHow::Task).await?;
    handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await?;
    Ok(Started { executor, task })
}

/// Waits for its end and removes both.
pub(crate) async fn finish(layer: &PortLayer, started: &Started) -> Result<ExitRecord> {
    let exit = layer.wait(&started.executor, &started.task, None).await?;
    layer.delete(&started.executor).await?;
    layer.delete(&started.task).await?;
    Ok(exit)
}

/// Runs a task in an executor of its own to its end and removes both, whatever becomes of it. Gives the exit as text, and the output.
pub(crate) async fn run_in(
    layer: &PortLayer,
    name: &str,
    plan: (ExecutorSpec, TaskSpec),
    image: &str,
) -> Result<(String, String)> {
    let ran = match start(layer, name, plan, image, None).await {
        Ok(started) => ended(layer, &started.executor, &started.task).await,
        Err(error) => Err(error),
    };
    for (kind, location) in [(Kind::Executor, "executors"), (Kind::Task, "tasks")] {
        let id = ElementId::new(kind, location, name)?;
        if layer.read(&id).await.is_ok() {
            layer.delete(&id).await?;
        }
    }
    ran
}

/// How a task ended, and what it said.
pub(crate) async fn ended(
    layer: &PortLayer,
    executor: &ElementId,
    task: &ElementId,
) -> Result<(String, String)> {
    let exit = layer.wait(executor, task, None).await?;
    let mut chunks = layer.logs(&LogQuery::new(executor, task).follow()).await?;
    let mut output = Vec::new();
    while let Some(chunk) = chunks.next().await {
        output.extend(chunk?.bytes);
    }
    let message = exit.message.as_deref().unwrap_or_default();
    let how = format!("{} {:?} {message}", exit.reason.as_str(), exit.code);
    Ok((how, String::from_utf8_lossy(&output).into_owned()))
}

/// A shell script as a task.
pub(crate) fn script(text: &str) -> TaskSpec {
    TaskSpec {
        argv: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    }
}
