//! Kills the process that runs a task, at every point of the runner and of the task's life, and looks what the next
//! process makes of it: the task ends as it would have, or says honestly that it did not; its callback is delivered; of
//! what it had nothing is left.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use portlayer::element::{ElementId, ImageSpec, Kind, ListQuery, NewElement, Spec};
use portlayer::error::CreateError;
use portlayer_node::Node;
use portlayer_node::config::Config;
use portlayer_taskdef::die::POINTS;
use portlayer_taskdef::diego::{Settings, TaskEvent, Tasks, Timers, read_json};
use portlayer_taskdef::fetch::{Fetcher, Http};
use portlayer_taskdef::log::NoLog;
use portlayer_taskdef::run::{RunSettings, Runner};
use serde_json::json;
use tokio::process::Command;

use crate::fixtures;
use crate::server::Server;

/// No worker takes longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a task that was running when its process died says.
const LOST: &str = "cell disappeared before completion";

/// What a worker does.
#[derive(Args)]
pub(crate) struct WorkerArgs {
    /// Data directory of its node.
    directory: PathBuf,
    /// Base URL of the hook server.
    hook: String,
    /// Desires a task of this guid before it waits for all tasks to be gone.
    #[arg(long)]
    desire: Option<String>,
    /// Removes the node in the end.
    #[arg(long)]
    remove: bool,
}

/// Kills at every point.
pub(crate) async fn run() -> Result<ExitCode> {
    ensure!(
        cfg!(feature = "crash-points"),
        "this program was built without the feature crash-points"
    );
    let directory = tempfile::Builder::new()
        .prefix("pl-")
        .tempdir_in("/var/tmp")?;
    let data = directory.path().join("node");
    let hooks = Server::hooks().await?;
    let mut failures = Vec::new();
    for point in POINTS {
        let guid = point.replace(['.', '-'], "_");
        match kill_at(&data, &hooks, point, &guid).await {
            Ok(end) => println!("ok   {point}: {end}"),
            Err(error) => {
                println!("FAIL {point}: {error:#}");
                failures.push(*point);
            }
        }
    }
    worker(&data, &hooks, None, &["--remove"]).await?;
    let good = failures.is_empty();
    println!(
        "{}",
        json!({ "points": POINTS.len(), "failed": failures.len(), "failures": failures })
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn kill_at(data: &Path, hooks: &Server, point: &str, guid: &str) -> Result<String> {
    hooks.take();
    let died = worker(data, hooks, Some(point), &["--desire", guid]).await?;
    ensure!(died, "the worker did not come to it");
    let died = worker(data, hooks, None, &[]).await?;
    ensure!(!died, "the next worker died");
    let calls = hooks.take();
    let mut ends: Vec<_> = Vec::new();
    for call in &calls {
        let body: serde_json::Value = serde_json::from_slice(&call.body)?;
        ensure!(body["task_guid"] == guid, "a callback of {body}");
        let end = match body["failed"].as_bool() {
            Some(false) => {
                ensure!(body["result"] == "kept\n", "it ended well with {body}");
                "completed".to_owned()
            }
            _ => body["failure_reason"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        ends.push(end);
    }
    ends.dedup();
    match ends.as_slice() {
        // Whoever desired it was never told that it was.
        [] if point == "diego.before-record" => Ok("not desired".to_owned()),
        [end] if end == "completed" || end == LOST => {
            Ok(format!("{end}, {} callbacks", calls.len()))
        }
        _ => anyhow::bail!("callbacks say {ends:?}"),
    }
}

/// Runs a worker; `true`: it was killed.
async fn worker(data: &Path, hooks: &Server, point: Option<&str>, more: &[&str]) -> Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("worker").arg(data).arg(hooks.url()).args(more);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("PORTLAYER_CRASH");
    if let Some(point) = point {
        command.env("PORTLAYER_CRASH", point);
    }
    let ended = tokio::time::timeout(PATIENCE, command.output());
    let ended = ended.await.context("the worker did not end")??;
    let killed = ended.status.signal() == Some(9);
    ensure!(
        killed || ended.status.success(),
        "the worker ended with {}: {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(killed)
}

/// Opens the node, desires, waits for all tasks to be gone, and looks for what is left.
pub(crate) async fn work(args: &WorkerArgs) -> Result<ExitCode> {
    let config = Config::new(&args.directory);
    let node = portlayer_node::open(&config).await?;
    let image: ElementId = "image://images/fs".parse()?;
    let root = Cursor::new(fixtures::root_file_system()?);
    let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default())).data(root);
    match node.port_layer.create(new).await {
        Ok(_) | Err(CreateError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let tasks = open(&node, image, &args.directory).await?;
    if let Some(guid) = &args.desire {
        let definition = json!({
            "task_guid": guid, "domain": "kill", "rootfs": "preloaded:fs", "result_file": "/tmp/out",
            "completion_callback_url": format!("{}/{guid}", args.hook),
            "volume_mounted_files": [{ "path": "a", "content": "b" }],
            "action": { "serial": { "actions": [
                { "run": { "path": "sh", "args": ["-c", "echo kept > /tmp/out"], "user": "vcap" } },
                { "run": { "path": "true", "user": "vcap" } },
            ] } },
        });
        let definition = definition.to_string();
        tasks
            .desire(read_json(definition.as_bytes(), &Default::default())?)
            .await?;
    }
    let mut events = tasks.events();
    while !tasks.list("", "").await.is_empty() {
        if let Ok(TaskEvent::Removed(_)) = events.recv().await {
            continue;
        }
    }
    tasks.close().await;
    drop(tasks);
    node.port_layer.settle().await;
    let left = left(&node).await?;
    let audit = node.port_layer.audit().await?;
    let leaks: Vec<_> = audit.leaks().map(|leak| format!("{leak:?}")).collect();
    match args.remove {
        true => node.remove().await?,
        false => node.halt().await?,
    }
    ensure!(left.is_empty(), "left: {}", left.join(", "));
    ensure!(leaks.is_empty(), "leaked: {}", leaks.join(", "));
    Ok(ExitCode::SUCCESS)
}

async fn open(node: &Node, image: ElementId, directory: &Path) -> Result<Tasks> {
    let fetcher = Fetcher::new(Arc::new(Http::new()?), directory.join("diego"))?;
    let layer = node.port_layer.with_actor("diego");
    let runner = Runner::new(
        layer,
        Arc::new(fetcher),
        Arc::new(NoLog),
        RunSettings::default(),
    );
    let settings = Settings {
        preloaded: BTreeMap::from([("fs".to_owned(), image)]),
        timers: Timers {
            kick: Duration::from_secs(1),
            ..Timers::default()
        },
        ..Settings::default()
    };
    Ok(Tasks::open(runner, settings, "tasks").await?)
}

/// Elements of runs and tasks that are there.
async fn left(node: &Node) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for kind in [Kind::Executor, Kind::Task, Kind::Volume] {
        let query = ListQuery {
            kind: Some(kind),
            hidden: true,
            limit: 1000,
            ..ListQuery::default()
        };
        let listed = node.port_layer.list(query).await?;
        left.extend(
            listed
                .items
                .into_iter()
                .map(|element| element.id.to_string()),
        );
    }
    Ok(left)
}
