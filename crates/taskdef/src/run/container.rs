//! The living container of a run: processes in it, and its file system from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::compose::{
    CommitError, ComposeError, Interrupt, RunId, StepError, TaskBind, TaskError,
};
use portlayer::element::{ElementId, IdError, Kind, NewElement, Spec};
use portlayer::error::{CreateError, ReadError};
use portlayer::runtime::{LogQuery, LogStreams};
use portlayer::task::{ExitRecord, LogChoice, Rlimit, StopSpec, TaskSpec};
use thiserror::Error;

use super::identity::Renewal;
use super::inside::View;
use super::users::UserError;
use crate::die;
use crate::log::{Splitter, Streamer};
use crate::plan::Run;

/// Search path of root when nothing sets one.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Search path of everybody else.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// SIGTERM.
const TERM: i32 = 15;

/// The executor of a run, with everything its processes have in common.
pub(crate) struct Container {
    pub(super) layer: PortLayer,
    /// The executor.
    pub(super) executor: ElementId,
    /// Location of the tasks.
    pub(super) tasks: String,
    /// Environment the image sets; for defaults that depend on it.
    pub(super) image_env: Vec<(String, String)>,
    /// Environment before an action's own.
    pub(super) env: Vec<(String, String)>,
    /// Environment after it.
    pub(super) forced_env: Vec<(String, String)>,
    /// Between SIGTERM and SIGKILL.
    pub(super) grace: Duration,
    /// Numbers the processes.
    pub(super) count: AtomicU32,
    /// Renews its certificate until it is dropped.
    pub(super) _renewal: Option<Renewal>,
}

/// Why something in the container could not be done.
#[derive(Debug, Error)]
pub(crate) enum ContainerError {
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
    /// The name of a task.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The task element.
    #[error("{}", chain(.0))]
    Create(#[from] CreateError),
    /// The start.
    #[error("{}", chain(.0))]
    Commit(#[from] CommitError),
    /// The engine cannot start the program.
    #[error("{program}: {text}")]
    Program {
        /// The program, as it was asked for.
        program: String,
        /// What the engine says.
        text: String,
    },
    /// Reaching for a process or the file system.
    #[error("{}", chain(.0))]
    Task(#[from] TaskError),
    /// Reading an element.
    #[error("{}", chain(.0))]
    Read(#[from] ReadError),
    /// The file system.
    #[error("{path}: {}", errno.desc())]
    Path {
        /// The path in the container.
        path: String,
        /// The kernel's answer.
        errno: nix::errno::Errno,
    },
    /// A thread that was to act as the user.
    #[error("acting as the user failed: {0}")]
    Thread(std::io::Error),
}

/// An error and its causes as one line: the engine's own text is the last of it, and users want to see it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // A transparent error says the same as its cause.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl ContainerError {
    /// A start that failed in the engine is told by the program and the engine's words, without ids of ours.
    fn of_start(error: CommitError, run: &Run) -> Self {
        match error {
            CommitError::Step {
                source: StepError::Runtime(error),
                ..
            } => ContainerError::Program {
                program: run.argv.first().cloned().unwrap_or_default(),
                text: match error.text.is_empty() {
                    true => error.kind.to_string(),
                    false => format!("{}: {}", error.kind, error.text),
                },
            },
            error => ContainerError::Commit(error),
        }
    }

    /// A refusal of an edit is told as the commit would tell it.
    pub(super) fn from_compose(error: ComposeError) -> Self {
        ContainerError::Commit(CommitError::Compose(error))
    }
}

impl Container {
    /// Between SIGTERM and SIGKILL.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// How often the kernel killed one of its processes for memory so far.
    pub(crate) async fn oom_kills(&self) -> Option<u64> {
        let inside = self.layer.inside(&self.executor).await;
        inside.ok().map(|inside| inside.oom_kills)
    }

    /// Its file system as it is now.
    pub(crate) async fn look_inside(&self) -> Result<Arc<View>, ContainerError> {
        Ok(Arc::new(View::new(
            self.layer.inside(&self.executor).await?,
        )))
    }

    /// Starts a process. `silent`: its output is thrown away. Answers the run, and how often the kernel had killed one of
    /// its processes for memory before.
    pub(crate) async fn start(
        &self,
        run: &Run,
        silent: bool,
    ) -> Result<(RunId, u64), ContainerError> {
        let view = self.look_inside().await?;
        let oom_kills = view.oom_kills();
        let user = view.user(&run.user).await?;
        let cwd = user.place(run.dir.as_deref().unwrap_or(""));
        view.ensure_directory(cwd.clone(), &user).await?;
        let mut env = Vec::new();
        let set = |name: &str| {
            let mut all = self.image_env.iter().chain(&self.env).chain(&run.env);
            all.any(|(there, _)| there == name)
        };
        let path = if user.uid == 0 { ROOT_PATH } else { USER_PATH };
        for (name, value) in [
            ("PATH", path),
            ("USER", user.name.as_str()),
            ("HOME", user.home.as_str()),
        ] {
            if !set(name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        }
        env.extend(
            self.env
                .iter()
                .chain(&run.env)
                .chain(&self.forced_env)
                .cloned(),
        );
        let output = LogChoice {
            discard: silent,
            ..LogChoice::default()
        };
        let spec = TaskSpec {
            argv: run.argv.clone(),
            env,
            cwd: Some(cwd.to_string_lossy().into_owned()),
            user: Some(format!("{}:{}", user.uid, user.gid)),
            extra_gids: user.groups.clone(),
            stdout: output.clone(),
            stderr: output,
            rlimits: run
                .open_files
                .iter()
                .map(|files| open_files(*files))
                .collect(),
            stop: StopSpec {
                signal: Some(TERM),
                grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            },
            ..TaskSpec::default()
        };
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let task = self.task_id(&number.to_string())?;
        self.layer
            .create(NewElement::new(task.clone(), Spec::Task(Box::new(spec))))
            .await?;
        die::at("run.before-process");
        let executed = self
            .layer
            .exec(&self.executor, &task, TaskBind::default())
            .await;
        die::at("run.after-process");
        match executed {
            Ok(started) => Ok((started, oom_kills)),
            Err(error) => {
                self.remove_task(&task).await;
                Err(ContainerError::of_start(error, run))
            }
        }
    }

    /// The id of a task of this container.
    pub(super) fn task_id(&self, name: &str) -> Result<ElementId, IdError> {
        ElementId::new(
            Kind::Task,
            &self.tasks,
            &format!("{}/{name}", self.executor.name()),
        )
    }

    /// Waits for the end of a process.
    pub(crate) async fn wait(&self, run: &RunId) -> Result<ExitRecord, ContainerError> {
        let exit = self
            .layer
            .wait(&self.executor, &run.task, Some(run.run))
            .await;
        die::at("run.after-exit");
        Ok(exit?)
    }

    /// SIGTERM now, SIGKILL after the grace.
    pub(crate) async fn stop(&self, task: &ElementId) -> Result<(), ContainerError> {
        self.layer
            .interrupt(&self.executor, Some(task), Interrupt::Stop { how: None })
            .await?;
        Ok(())
    }

    async fn remove_task(&self, task: &ElementId) {
        if let Err(error) = self.layer.delete(task).await {
            // Removed with the executor's remains at the latest.
            tracing::debug!(%task, %error, "the task of an ended process stays for now");
        }
    }

    /// Copies the output of a process to a log until it ended.
    pub(crate) async fn copy_output(
        &self,
        task: &ElementId,
        log: &Streamer,
    ) -> Result<(), ContainerError> {
        let query = LogQuery {
            executor: self.executor.clone(),
            task: task.clone(),
            streams: LogStreams::Both,
            since: None,
            tail: None,
            follow: true,
        };
        let mut chunks = self.layer.logs(&query).await?;
        let (mut out, mut err) = (Splitter::default(), Splitter::default());
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::warn!(%task, %error, "output cannot be read to its end");
                    break;
                }
            };
            if chunk.lost_bytes > 0 {
                log.stderr(&format!("{} bytes of output were lost", chunk.lost_bytes));
            }
            let stderr = chunk.stderr;
            let splitter = if stderr { &mut err } else { &mut out };
            splitter.push(&chunk.bytes, |line| log.line(stderr, line));
        }
        out.finish(|line| log.line(false, line));
        err.finish(|line| log.line(true, line));
        Ok(())
    }
}

fn open_files(files: u64) -> Rlimit {
    Rlimit {
        name: "nofile".to_owned(),
        soft: files,
        hard: files,
    }
}
