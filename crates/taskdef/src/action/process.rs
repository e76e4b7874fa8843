//! Run: a process in the container, its output and its end.

use std::time::{Duration, Instant};

use portlayer::compose::RunId;
use portlayer::element::ElementId;
use portlayer::task::{ExitReason, ExitRecord};
use tokio_util::sync::CancellationToken;

use super::{ActionError, Stage};
use crate::log::Streamer;
use crate::plan::Run;

/// How long a killed process may take to be gone.
const EXIT_WAIT: Duration = Duration::from_secs(1);
/// What the engine may take besides to store the last output and the exit record.
const RECORD_WAIT: Duration = Duration::from_secs(10);

pub(super) async fn perform(
    stage: &Stage,
    run: &Run,
    cancel: &CancellationToken,
) -> Result<(), ActionError> {
    let log = stage.log.source(&run.source);
    let silent = run.silent || log.is_silent();
    let say = |text: &str| {
        if !run.silent {
            log.stdout(text);
        }
    };
    let (started, oom_kills) = match stage.container.start(run, silent).await {
        Ok(started) => started,
        Err(error) => {
            say(&format!("failed-creating-process: {error}"));
            return Err(ActionError::NotStarted(error.to_string()));
        }
    };
    let output = (!silent).then(|| {
        tokio::spawn(copy_output(
            stage.clone(),
            started.task.clone(),
            log.clone(),
        ))
    });
    let (exit, stop) = match wait(stage, &started, cancel).await {
        Ok(ended) => ended,
        Err(error) => {
            if let Some(output) = output {
                output.abort();
            }
            return Err(error);
        }
    };
    if let Some(output) = output {
        // Ends when all is read: the exit record comes after the last output is stored.
        let _ = output.await;
    }
    let status = status(&exit)?;
    let killed = stop
        .is_some_and(|since| exit.signal == Some(9) && since.elapsed() >= stage.container.grace());
    let mut line = format!("Exit status {status}");
    let mut reason = format!("{}: Exited with status {status}", log.name());
    if killed {
        line = format!(
            "{line} (exceeded {} graceful shutdown interval)",
            super::error::go_duration(stage.container.grace())
        );
    }
    if status != 0 {
        let more = stage
            .container
            .oom_kills()
            .await
            .is_some_and(|now| now > oom_kills);
        if more || exit.reason == ExitReason::Oom {
            line.push_str(" (out of memory)");
            reason.push_str(" (out of memory)");
        }
    }
    say(&line);
    match (stop.is_some(), status) {
        (true, _) if killed => Err(ActionError::GraceExceeded),
        (true, _) => Err(ActionError::Cancelled),
        (false, 0) => Ok(()),
        (false, _) => Err(ActionError::Failed(reason)),
    }
}

/// Waits for the end; when cancelled, after the signal and at most its grace. Answers when it was stopped.
async fn wait(
    stage: &Stage,
    started: &RunId,
    cancel: &CancellationToken,
) -> Result<(ExitRecord, Option<Instant>), ActionError> {
    let container = &stage.container;
    let ended = container.wait(started);
    tokio::pin!(ended);
    let lost = |error: crate::run::ContainerError| ActionError::NotStarted(error.to_string());
    tokio::select! {
        biased;
        exit = &mut ended => return Ok((exit.map_err(lost)?, None)),
        () = cancel.cancelled() => {}
    }
    let since = Instant::now();
    // SIGTERM now, SIGKILL after the grace. One that has ended by itself was not stopped.
    container.stop(&started.task).await.map_err(lost)?;
    let patience = container.grace() + EXIT_WAIT + RECORD_WAIT;
    match tokio::time::timeout(patience, &mut ended).await {
        Ok(exit) => Ok((exit.map_err(lost)?, Some(since))),
        Err(_) => Err(ActionError::NoExit),
    }
}

fn status(exit: &ExitRecord) -> Result<i32, ActionError> {
    match (exit.code, exit.signal) {
        (Some(code), _) => Ok(code),
        (None, Some(signal)) => Ok(128 + signal),
        (None, None) => {
            let text = exit.message.clone();
            Err(ActionError::NotStarted(text.unwrap_or_else(|| {
                "how the process ended is not known".to_owned()
            })))
        }
    }
}

async fn copy_output(stage: Stage, task: ElementId, log: Streamer) {
    if let Err(error) = stage.container.copy_output(&task, &log).await {
        tracing::warn!(%task, %error, "reading the output of a process failed");
    }
}
