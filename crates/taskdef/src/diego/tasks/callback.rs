//! The completion callback: at least once, and given up in the end.

use serde::Serialize;

use super::Shared;
use super::record::Task;
use crate::fetch::FetchError;

/// Attempts at once.
const ATTEMPTS: u32 = 3;

/// What is posted: `bbs:models/task.go` TaskCallbackResponse.
#[derive(Serialize)]
struct Body<'a> {
    task_guid: &'a str,
    failed: bool,
    failure_reason: &'a str,
    result: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    annotation: &'a str,
    created_at: i64,
}

/// Posts the end of a task. `true`: whoever is there took note, with whatever status but 503 and 504.
pub(super) async fn post(shared: &Shared, task: &Task) -> bool {
    let body = Body {
        task_guid: &task.task_guid,
        failed: task.failed,
        failure_reason: &task.failure_reason,
        result: &task.result,
        annotation: &task.definition.annotation,
        created_at: task.created_at,
    };
    let Ok(json) = serde_json::to_vec(&body) else {
        return false;
    };
    let url = &task.definition.completion_callback_url;
    let client = shared.runner.fetcher().client();
    for attempt in 1..=ATTEMPTS {
        match client
            .post_json(url, json.clone(), shared.settings.timers.callback_timeout)
            .await
        {
            Ok(503 | 504) | Err(FetchError::Interrupted { .. }) => {
                tracing::info!(task = %task.task_guid, attempt, "the callback of a task was put off");
            }
            Ok(status) => {
                tracing::info!(task = %task.task_guid, status, "the callback of a task was taken");
                return true;
            }
            Err(error) => {
                // Nobody is there: repeated later, not at once.
                tracing::warn!(task = %task.task_guid, %error, "the callback of a task failed");
                return false;
            }
        }
    }
    false
}
