//! What every example needs around its workflow: a node of its own in a temporary directory, and elements to work with.
//! Nothing here is special: it is the same public API.
#![allow(dead_code, reason = "every example uses a part of it")]
#![allow(clippy::print_stdout, reason = "an example tells what happens")]

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use portlayer::element::{ElementId, ImageSpec, Kind, NewElement, Spec};
use portlayer::runtime::LogQuery;
use portlayer::store::Policy;
use portlayer::task::TaskSpec;
use portlayer_node::Node;
use portlayer_node::config::{Backing, Config, LocationConfig};
use portlayer_runtime::layout;
use portlayer_runtime::volume::{DirectoryMount, NfsMount, NfsTarget};

/// Opens a node with a private engine, runs a workflow on it and removes everything again, however the workflow ended.
/// Needs root, because containers do.
pub(crate) async fn on_a_node<T>(workflow: impl AsyncFnOnce(&Node) -> Result<T>) -> Result<()> {
    // Below /var/tmp, because overlay wants a real file system; short, because sockets are in it.
    let directory = tempfile::Builder::new()
        .prefix("pl-")
        .tempdir_in("/var/tmp")?;
    let node = open(directory.path()).await?;
    let outcome = workflow(&node).await;
    let removed = node.remove().await.context("removing the node");
    outcome?;
    removed?;
    println!("everything is removed again");
    Ok(())
}

/// Opens a node below a directory, with the default locations - `images`, `volumes`, `scratch`, `tasks`, `executors` -
/// and one for every other backing.
pub(crate) async fn open(directory: &Path) -> Result<Node> {
    let exports = directory.join("exports");
    std::fs::create_dir_all(&exports)?;
    let mut config = Config::new(data(directory));
    let volumes = |name: &str, backing| LocationConfig {
        name: name.to_owned(),
        kinds: vec![Kind::Volume],
        policy: Policy::ReadWrite,
        backing,
    };
    config.locations.extend([
        // Made from a parent image without copying.
        volumes("cow", Backing::Cow {}),
        // A file system in a file: bounded, and can grow while nobody uses it.
        volumes(
            "block",
            Backing::Block {
                path: None,
                size: 16 << 20,
            },
        ),
        volumes(
            "nfs",
            Backing::Nfs {
                url: "nfs://server/exports?uid=1000&gid=1000".to_owned(),
            },
        ),
        volumes(
            "away",
            Backing::Nfs {
                url: "nfs://away.invalid/exports".to_owned(),
            },
        ),
    ]);
    let node = portlayer_node::open_with(&config, Arc::new(Exports(exports))).await;
    node.context("opening the node")
}

/// The data directory of the node below a directory.
pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("node")
}

/// A directory of this machine in the place of what `server` exports; nobody answers for other servers.
struct Exports(PathBuf);

impl NfsMount for Exports {
    fn mount(&self, target: &NfsTarget, at: &Path) -> io::Result<()> {
        match target.host.as_str() {
            "server" => DirectoryMount(self.0.clone()).mount(target, at),
            _ => Err(io::ErrorKind::HostUnreachable.into()),
        }
    }
}

/// A root file system with a shell, as a tar: the layer of an image.
pub(crate) fn busybox_tar() -> Result<Vec<u8>> {
    let binary = Path::new("/bin/busybox");
    let bytes = std::fs::read(binary).context("the Debian package busybox-static is needed")?;
    Ok(layout::busybox_tar(&bytes, &layout::applets(binary)?))
}

/// `image://images/busybox`.
pub(crate) async fn busybox(node: &Node) -> Result<ElementId> {
    let id: ElementId = "image://images/busybox".parse()?;
    let new =
        NewElement::new(id, Spec::Image(ImageSpec::default())).data(Cursor::new(busybox_tar()?));
    Ok(node.port_layer.create(new).await?.id)
}

/// `task://tasks/<name>`, which runs a shell script.
pub(crate) async fn shell(node: &Node, name: &str, script: &str) -> Result<ElementId> {
    let spec = TaskSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    };
    task(node, name, spec).await
}

/// `task://tasks/<name>`.
pub(crate) async fn task(node: &Node, name: &str, spec: TaskSpec) -> Result<ElementId> {
    let id = ElementId::new(Kind::Task, "tasks", name)?;
    Ok(node
        .port_layer
        .create(NewElement::new(id, Spec::Task(Box::new(spec))))
        .await?
        .id)
}

/// `executor://executors/<name>`, with nothing joined yet.
pub(crate) async fn executor(node: &Node, name: &str) -> Result<ElementId> {
    let id = ElementId::new(Kind::Executor, "executors", name)?;
    let spec = Spec::Executor(Box::default());
    Ok(node.port_layer.create(NewElement::new(id, spec)).await?.id)
}

/// Everything a task has written so far, standard output and standard error in the order they were stored.
pub(crate) async fn output(node: &Node, executor: &ElementId, task: &ElementId) -> Result<String> {
    let mut chunks = node.port_layer.logs(&query(executor, task, false)).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend(chunk?.bytes);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Follows the output of a task until it holds a text. An error when the task ends before.
pub(crate) async fn until_it_says(
    node: &Node,
    executor: &ElementId,
    task: &ElementId,
    text: &str,
) -> Result<()> {
    let mut chunks = node.port_layer.logs(&query(executor, task, true)).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend(chunk?.bytes);
        if String::from_utf8_lossy(&bytes).contains(text) {
            return Ok(());
        }
    }
    bail!(
        "{task} ended without saying {text:?}: {}",
        String::from_utf8_lossy(&bytes)
    )
}

fn query(executor: &ElementId, task: &ElementId, follow: bool) -> LogQuery {
    let query = LogQuery::new(executor, task);
    match follow {
        true => query.follow(),
        false => query,
    }
}
