//! What happens to a task by itself: it is started, it ends, it is called back and at last forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portlayer::error::DeleteError;
use portlayer::time::Timestamp;

use super::error::TaskError;
use super::record::{self, State, Stored};
use super::{Entry, Shared, TaskEvent, admission, callback, not_found};
use crate::die;
use crate::diego::plan::plan;
use crate::run::{Outcome, RunNames};

/// Longest failure and rejection reason, in bytes.
const MAX_REASON: usize = 1024;

/// The folder of the executors.
pub(super) const RUNS: &str = "diego";

/// How a task ended.
pub(super) struct Ending {
    pub(super) failed: bool,
    pub(super) reason: String,
    pub(super) result: String,
}

impl Ending {
    pub(super) fn failed(reason: &str) -> Self {
        Self {
            failed: true,
            reason: reason.to_owned(),
            result: String::new(),
        }
    }

    fn of(outcome: Outcome) -> Self {
        let reason = outcome.result.as_ref().err().map(ToString::to_string);
        Self {
            failed: reason.is_some(),
            reason: reason.unwrap_or_default(),
            result: outcome.output,
        }
    }
}

/// Ends and removes whatever is there of runs of another process: nothing of them may go on, whether their tasks are
/// still recorded or not.
pub(super) async fn sweep(shared: &Shared) -> Result<(), TaskError> {
    let definitions = record::FOLDER.rsplit('/').next();
    let remains = shared.runner.remains(RUNS).await?;
    let runs = remains
        .iter()
        .filter(|executor| executor.name().rsplit('/').next() != definitions);
    futures::future::join_all(runs.map(|executor| shared.runner.remove(executor))).await;
    Ok(())
}

/// Takes up a task that another process left.
pub(super) async fn resume(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    state: State,
) -> Result<(), TaskError> {
    match state {
        State::Pending => begin(shared, entry),
        State::Running => {
            // Where its actions stood is not known.
            let lost = Ending::failed("cell disappeared before completion");
            complete(shared, entry, &lost).await?;
        }
        State::Completed => after(shared, entry),
        State::Resolving => {
            change(shared, entry, |stored| {
                stored.state = State::Completed;
                Ok(())
            })
            .await?;
            after(shared, entry);
        }
    }
    Ok(())
}

/// Starts the life of a pending task.
pub(super) fn begin(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    let (shared_too, entry) = (shared.clone(), entry.clone());
    shared.jobs.spawn(async move {
        if let Err(error) = live(&shared_too, &entry).await {
            // Its record says where it stands; the next open takes it up from there.
            tracing::error!(task = %entry.element, %error, "the life of a task cannot be recorded");
        }
    });
}

async fn live(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Result<(), TaskError> {
    let timers = &shared.settings.timers;
    loop {
        let Some((guid, created)) = identity(entry).await else {
            return Ok(());
        };
        if age(created) > timers.pending_expiry {
            return finish(
                shared,
                entry,
                &Ending::failed("not started within time limit"),
            )
            .await;
        }
        let planned = plan(&guid, &entry.definition, &shared.settings);
        let admitted = match &planned {
            Ok(_) => admission::admit(shared, entry),
            Err(error) => Err(error.to_string()),
        };
        let plan = match (planned, admitted) {
            (Ok(plan), Ok(())) => plan,
            (_, Err(reason)) => return finish(shared, entry, &Ending::failed(&reason)).await,
            (Err(error), Ok(())) => {
                return finish(shared, entry, &Ending::failed(&error.to_string())).await;
            }
        };
        // Unique for ever: what an older task of this guid left is never met.
        let executor = format!(
            "{RUNS}/{}-{}",
            record::short(&guid),
            Timestamp::now().as_nanos()
        );
        let names = RunNames {
            executor,
            messages: Some((shared.settings.cell_id.clone(), guid.clone())),
        };
        let run = shared
            .runner
            .perform(&plan, &names, &entry.cancel, claim(shared, entry));
        let (outcome, remains) = match run.await {
            Ok(performed) => performed,
            Err(error) => {
                entry.placed.store(false, Ordering::SeqCst);
                return match error {
                    // Cancelled before it began.
                    TaskError::Transition { .. } | TaskError::NotFound { .. } => Ok(()),
                    error => Err(error),
                };
            }
        };
        let mut ended = None;
        // While closing the record goes on saying running, and the next open says what became of it.
        if !shared.closing.is_cancelled() && !reject(shared, entry, &outcome).await? {
            // As in Diego its end is told before its container is gone.
            ended = Some(finish(shared, entry, &Ending::of(outcome)).await);
        }
        remains.remove().await;
        entry.placed.store(false, Ordering::SeqCst);
        if let Some(ended) = ended {
            return ended;
        }
        if shared.closing.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = entry.cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(timers.start_retry) => {}
        }
    }
}

/// Pending to running.
async fn claim(shared: &Shared, entry: &Entry) -> Result<(), TaskError> {
    die::at("diego.before-running");
    change(shared, entry, |stored| {
        if stored.state != State::Pending {
            return Err(transition(stored, State::Running));
        }
        stored.state = State::Running;
        stored.cell_id = shared.settings.cell_id.clone();
        Ok(())
    })
    .await?;
    die::at("diego.after-running");
    Ok(())
}

/// Puts a start that failed for a passing reason back, unless that happened too often. `true`: it is pending again.
async fn reject(shared: &Shared, entry: &Entry, outcome: &Outcome) -> Result<bool, TaskError> {
    let Err(error) = &outcome.result else {
        return Ok(false);
    };
    if !error.is_passing() {
        return Ok(false);
    }
    let reason = cut(&error.to_string());
    let retries = shared.settings.timers.start_retries;
    let mut again = false;
    let rejected = change(shared, entry, |stored| {
        if stored.state != State::Running {
            return Err(transition(stored, State::Pending));
        }
        stored.rejection_count += 1;
        stored.rejection_reason = reason.clone();
        again = stored.rejection_count <= retries;
        if again {
            stored.state = State::Pending;
            stored.cell_id = String::new();
        }
        Ok(())
    })
    .await;
    match rejected {
        Ok(()) => Ok(again),
        Err(TaskError::Transition { .. } | TaskError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Completes a task if nobody did before.
async fn finish(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    ending: &Ending,
) -> Result<(), TaskError> {
    match complete(shared, entry, ending).await {
        // It was cancelled meanwhile.
        Err(TaskError::Transition { .. } | TaskError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// Completes a pending or running task.
pub(super) async fn complete(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    ending: &Ending,
) -> Result<(), TaskError> {
    die::at("diego.before-completed");
    change(shared, entry, |stored| {
        if !matches!(stored.state, State::Pending | State::Running) {
            return Err(transition(stored, State::Completed));
        }
        stored.state = State::Completed;
        stored.cell_id = String::new();
        stored.failed = ending.failed;
        stored.failure_reason = cut(&ending.reason);
        stored.result = ending.result.clone();
        stored.first_completed_at = Timestamp::now().as_nanos();
        Ok(())
    })
    .await?;
    die::at("diego.after-completed");
    after(shared, entry);
    Ok(())
}

/// Completed to resolving.
pub(super) async fn resolve(shared: &Shared, entry: &Entry) -> Result<(), TaskError> {
    change(shared, entry, |stored| {
        if stored.state != State::Completed {
            return Err(transition(stored, State::Resolving));
        }
        stored.state = State::Resolving;
        Ok(())
    })
    .await
}

/// Removes a task that is being resolved, or with `expired` one that is completed.
pub(super) async fn delete(shared: &Shared, entry: &Entry, expired: bool) -> Result<(), TaskError> {
    let mut record = entry.stored.lock().await;
    let stored = record.as_ref().ok_or_else(|| not_found(""))?;
    let allowed = stored.state == State::Resolving || (expired && stored.state == State::Completed);
    if !allowed {
        return Err(transition(stored, State::Resolving));
    }
    die::at("diego.before-delete");
    let deleted = shared.runner.layer().delete(&entry.element).await;
    die::at("diego.after-delete");
    match deleted {
        Ok(_) | Err(DeleteError::NotFound { .. }) => {}
        Err(error) => return Err(TaskError::Delete(error)),
    }
    if let Some(stored) = record.take() {
        shared.forget(&stored.task_guid);
        shared.tell(TaskEvent::Removed(Box::new(stored.task(&entry.definition))));
    }
    Ok(())
}

/// Makes a change durable, then tells of it.
async fn change(
    shared: &Shared,
    entry: &Entry,
    edit: impl FnOnce(&mut Stored) -> Result<(), TaskError>,
) -> Result<(), TaskError> {
    let mut record = entry.stored.lock().await;
    let stored = record.as_mut().ok_or_else(|| not_found(""))?;
    let mut changed = stored.clone();
    edit(&mut changed)?;
    changed.updated_at = Timestamp::now().as_nanos();
    record::update(shared.runner.layer(), entry, &changed).await?;
    let before = Box::new(stored.task(&entry.definition));
    let after = Box::new(changed.task(&entry.definition));
    *stored = changed;
    shared.tell(TaskEvent::Changed { before, after });
    Ok(())
}

/// After the end: the callback and the timers, until the task is gone.
fn after(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    let (shared_too, entry) = (shared.clone(), entry.clone());
    shared.jobs.spawn(async move {
        let closing = shared_too.closing.clone();
        tokio::select! {
            () = closing.cancelled() => {}
            () = settle(&shared_too, &entry) => {}
        }
    });
}

async fn settle(shared: &Shared, entry: &Entry) {
    let timers = &shared.settings.timers;
    loop {
        if !entry.definition.completion_callback_url.is_empty()
            && resolve(shared, entry).await.is_ok()
        {
            let Some(task) = view(entry).await else {
                return;
            };
            die::at("diego.before-callback");
            let taken = callback::post(shared, &task).await;
            die::at("diego.after-callback");
            if taken && delete(shared, entry, false).await.is_ok() {
                return;
            }
        }
        let Some(task) = view(entry).await else {
            return;
        };
        let left = timers
            .completed_expiry
            .saturating_sub(age(task.first_completed_at));
        tokio::time::sleep(left.min(timers.kick)).await;
        let Some(task) = view(entry).await else {
            return;
        };
        if age(task.first_completed_at) >= timers.completed_expiry {
            match delete(shared, entry, true).await {
                Ok(()) | Err(TaskError::NotFound { .. }) => return,
                Err(error) => {
                    tracing::error!(task = %task.task_guid, %error, "an expired task cannot be removed")
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        }
        if task.state == State::Resolving && age(task.updated_at) >= timers.kick {
            let kicked = change(shared, entry, |stored| {
                match stored.state {
                    State::Resolving => stored.state = State::Completed,
                    _ => return Err(transition(stored, State::Completed)),
                }
                Ok(())
            });
            if let Err(error) = kicked.await {
                tracing::debug!(task = %task.task_guid, %error, "a task was resolved meanwhile");
            }
        }
    }
}

async fn view(entry: &Entry) -> Option<super::Task> {
    let record = entry.stored.lock().await;
    record.as_ref().map(|stored| stored.task(&entry.definition))
}

async fn identity(entry: &Entry) -> Option<(String, i64)> {
    let record = entry.stored.lock().await;
    record
        .as_ref()
        .map(|stored| (stored.task_guid.clone(), stored.created_at))
}

fn transition(stored: &Stored, to: State) -> TaskError {
    TaskError::Transition {
        from: stored.state,
        to,
    }
}

/// How long ago; nothing when the clock was set back.
fn age(since_ns: i64) -> Duration {
    let now = Timestamp::now().as_nanos();
    Duration::from_nanos(u64::try_from(now.saturating_sub(since_ns)).unwrap_or(0))
}

/// A reason of at most 1024 bytes, cut at a character.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
