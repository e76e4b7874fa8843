//! Processes in containerd, verb by verb. containerd calls the first one of a container its task and the others execs; here the
//! first one has no exec name.

use std::path::Path;
use std::time::Duration;

use containerd_client::{
    services::v1::{
        CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest,
        ExecProcessRequest, GetRequest, KillRequest, ListTasksRequest, PauseTaskRequest,
        ResizePtyRequest, ResumeTaskRequest, StartRequest, WaitRequest,
    },
    tonic::{Code, Status},
    types::v1::{Process as EngineProcess, Status as EngineState},
};
use portlayer::{
    runtime::{ProcessId, RuntimeError, RuntimeErrorKind},
    time::Timestamp,
};
use prost_types::Any;

use crate::{
    client::Client,
    error::{is_missing, refused},
};

/// What containerd is to be asked about.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) container: String,
    /// Empty for the first process.
    pub(crate) exec: String,
}

impl Name {
    pub(crate) fn new(id: &ProcessId, primary: bool) -> Name {
        Name {
            container: id.container.as_str().to_owned(),
            exec: if primary {
                String::new()
            } else {
                id.name.clone()
            },
        }
    }

    fn text(&self) -> String {
        if self.exec.is_empty() {
            self.container.clone()
        } else {
            format!("{}/{}", self.container, self.exec)
        }
    }
}

/// Paths of the FIFOs, as containerd takes them; `None` is the null device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

impl Streams {
    pub(crate) fn path(path: Option<&Path>) -> String {
        path.map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

pub(crate) async fn create(
    client: &Client,
    container: &str,
    streams: Streams,
    options: Any,
) -> Result<(), RuntimeError> {
    let request = CreateTaskRequest {
        container_id: container.to_owned(),
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        terminal: streams.terminal,
        options: Some(options),
        ..CreateTaskRequest::default()
    };
    client
        .tasks()
        .create(request)
        .await
        .map(drop)
        .map_err(refused("create process of", container))
}

pub(crate) async fn exec(
    client: &Client,
    name: &Name,
    streams: Streams,
    process: Any,
) -> Result<(), RuntimeError> {
    let request = ExecProcessRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        terminal: streams.terminal,
        spec: Some(process),
    };
    client
        .tasks()
        .exec(request)
        .await
        .map(drop)
        .map_err(refused("create process", name.text()))
}

pub(crate) async fn start(client: &Client, name: &Name) -> Result<(), RuntimeError> {
    let request = StartRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
    };
    client
        .tasks()
        .start(request)
        .await
        .map(drop)
        .map_err(refused("start process", name.text()))
}

/// Waits for the end; the code and time the shim kept. `NotFound` when nobody knows the process.
pub(crate) async fn wait(client: &Client, name: &Name) -> Result<(u32, Timestamp), Status> {
    let request = WaitRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
    };
    let answer = client
        .with_deadline(None)
        .tasks()
        .wait(request)
        .await?
        .into_inner();
    Ok((answer.exit_status, timestamp(answer.exited_at)))
}

/// The process as containerd sees it; `None` when it does not know it.
pub(crate) async fn get(
    client: &Client,
    name: &Name,
) -> Result<Option<EngineProcess>, RuntimeError> {
    let request = GetRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
    };
    match client.tasks().get(request).await {
        Ok(answer) => Ok(answer.into_inner().process),
        Err(status) if is_missing(&status) => Ok(None),
        Err(status) => Err(refused("look at process", name.text())(status)),
    }
}

/// Names of the containers that have a process, in whatever state.
pub(crate) async fn list(client: &Client) -> Result<Vec<EngineProcess>, RuntimeError> {
    let answer = client.tasks().list(ListTasksRequest::default()).await;
    Ok(answer
        .map_err(refused("list", "processes"))?
        .into_inner()
        .tasks)
}

/// Sends a signal; false when the process has ended or is not there.
pub(crate) async fn kill(
    client: &Client,
    name: &Name,
    signal: u32,
    all: bool,
) -> Result<bool, RuntimeError> {
    let request = KillRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
        signal,
        all,
    };
    match client.tasks().kill(request).await {
        Ok(_) => Ok(true),
        Err(status) if is_missing(&status) => Ok(false),
        Err(status) => {
            let error = refused("signal process", name.text())(status);
            if error.kind == RuntimeErrorKind::State {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

/// Deletes an ended process. False when there is none. For the first process the shim ends with it.
pub(crate) async fn delete(client: &Client, name: &Name) -> Result<bool, RuntimeError> {
    let answer = if name.exec.is_empty() {
        client
            .tasks()
            .delete(DeleteTaskRequest {
                container_id: name.container.clone(),
            })
            .await
    } else {
        let request = DeleteProcessRequest {
            container_id: name.container.clone(),
            exec_id: name.exec.clone(),
        };
        client.tasks().delete_process(request).await
    };
    match answer {
        Ok(_) => Ok(true),
        Err(status) if is_missing(&status) => Ok(false),
        Err(status) => Err(refused("delete process", name.text())(status)),
    }
}

/// Kills everything in a container and waits for the end of its first process. Idempotent.
pub(crate) async fn end_container(client: &Client, container: &str) -> Result<(), RuntimeError> {
    let name = Name {
        container: container.to_owned(),
        exec: String::new(),
    };
    match get(client, &name).await? {
        Some(process) => end(client, &name, &process).await,
        None => Ok(()),
    }
}

/// Kills everything in a container whose first process was `found`, and waits for the end of that. Idempotent.
pub(crate) async fn end(
    client: &Client,
    name: &Name,
    found: &EngineProcess,
) -> Result<(), RuntimeError> {
    let container = name.container.as_str();
    match found.status() {
        EngineState::Stopped => return Ok(()),
        // A frozen process takes no signal.
        EngineState::Paused | EngineState::Pausing => {
            set_paused(client, container, false).await?;
        }
        _ => {}
    }
    kill(client, name, 9, true).await?;
    let limit = Duration::from_secs(10);
    match tokio::time::timeout(limit, wait(client, name)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if is_missing(&status) => Ok(()),
        Ok(Err(status)) => Err(refused("wait for the end of", container)(status)),
        Err(_) => Err(RuntimeError::new(
            RuntimeErrorKind::Timeout,
            "kill",
            container,
            "processes do not end within 10 s",
        )),
    }
}

/// Freezes or thaws; false when there is nothing to freeze.
pub(crate) async fn set_paused(
    client: &Client,
    container: &str,
    paused: bool,
) -> Result<bool, RuntimeError> {
    let container_id = container.to_owned();
    let answer = if paused {
        client
            .tasks()
            .pause(PauseTaskRequest { container_id })
            .await
    } else {
        client
            .tasks()
            .resume(ResumeTaskRequest { container_id })
            .await
    };
    match answer {
        Ok(_) => Ok(true),
        Err(status) if is_missing(&status) => Ok(false),
        Err(status) => {
            let verb = if paused { "pause" } else { "resume" };
            Err(refused(verb, container)(status))
        }
    }
}

pub(crate) async fn resize(
    client: &Client,
    name: &Name,
    columns: u16,
    rows: u16,
) -> Result<(), RuntimeError> {
    let request = ResizePtyRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
        width: columns.into(),
        height: rows.into(),
    };
    client
        .tasks()
        .resize_pty(request)
        .await
        .map(drop)
        .map_err(refused("resize the terminal of", name.text()))
}

/// Closes the shim's end of standard input, so that the process sees its end. An ended process is fine.
pub(crate) async fn close_stdin(client: &Client, name: &Name) -> Result<(), RuntimeError> {
    let request = CloseIoRequest {
        container_id: name.container.clone(),
        exec_id: name.exec.clone(),
        stdin: true,
    };
    match client.tasks().close_io(request).await {
        Err(status) if is_missing(&status) || status.code() == Code::FailedPrecondition => Ok(()),
        other => other
            .map(drop)
            .map_err(refused("close standard input of", name.text())),
    }
}

pub(crate) fn timestamp(time: Option<prost_types::Timestamp>) -> Timestamp {
    // A process that runs has the year 1 here.
    time.filter(|time| time.seconds > 0)
        .map_or_else(Timestamp::now, |time| {
            Timestamp::from_nanos(
                time.seconds
                    .saturating_mul(1_000_000_000)
                    .saturating_add(i64::from(time.nanos)),
            )
        })
}
