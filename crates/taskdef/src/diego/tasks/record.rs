//! A task as it is recorded: a task element whose data is the definition and whose metadata is the rest.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use portlayer::PortLayer;
use portlayer::element::{Descriptor, ElementId, IdError, Kind, NewElement, Patch, Spec};
use portlayer::error::CreateError;
use portlayer::task::TaskSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::Entry;
use super::error::{RequestError, TaskError};
use crate::diego::schema::TaskDefinition;

/// The folder of the elements in their location.
pub(super) const FOLDER: &str = "diego/definitions";
/// Everything that changes but the result.
const STATE: &str = "diego.state";
/// The result, in pieces no larger than a value of metadata may be.
const RESULT: &str = "diego.result.";
/// Bytes of a piece.
const PIECE: usize = 60 * 1024;
/// The most bytes of a result that are recorded: what metadata takes beside the state.
const MAX_RESULT: usize = 3 * PIECE;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Desired, not started.
    Pending,
    /// Its container is being made or runs.
    Running,
    /// It ended.
    Completed,
    /// Somebody takes note of its end.
    Resolving,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Pending => "Pending",
            State::Running => "Running",
            State::Completed => "Completed",
            State::Resolving => "Resolving",
        })
    }
}

/// A task as callers see it: Diego's JSON, flat.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Its guid.
    pub task_guid: String,
    /// Its domain.
    pub domain: String,
    /// When it was desired, in nanoseconds since the epoch.
    pub created_at: i64,
    /// When it changed last.
    pub updated_at: i64,
    /// When it completed first; 0 = not yet.
    pub first_completed_at: i64,
    /// Where it stands.
    pub state: State,
    /// The node it runs on; empty when it runs nowhere.
    pub cell_id: String,
    /// Content of its result file.
    pub result: String,
    /// Whether it failed.
    pub failed: bool,
    /// Why.
    pub failure_reason: String,
    /// How often a start of it was given up.
    pub rejection_count: u32,
    /// Why the last one was.
    pub rejection_reason: String,
    /// What it does; the password of its image is left out.
    #[serde(flatten)]
    pub definition: Arc<TaskDefinition>,
}

/// What of a task changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) task_guid: String,
    pub(super) domain: String,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) first_completed_at: i64,
    pub(super) state: State,
    pub(super) cell_id: String,
    #[serde(skip)]
    pub(super) result: String,
    pub(super) failed: bool,
    pub(super) failure_reason: String,
    pub(super) rejection_count: u32,
    pub(super) rejection_reason: String,
}

impl Stored {
    pub(super) fn new(guid: &str, domain: &str, now: i64) -> Self {
        Self {
            task_guid: guid.to_owned(),
            domain: domain.to_owned(),
            created_at: now,
            updated_at: now,
            first_completed_at: 0,
            state: State::Pending,
            cell_id: String::new(),
            result: String::new(),
            failed: false,
            failure_reason: String::new(),
            rejection_count: 0,
            rejection_reason: String::new(),
        }
    }

    /// The caller's view.
    pub(super) fn task(&self, definition: &Arc<TaskDefinition>) -> Task {
        let definition = match definition.image_password.is_empty() {
            true => definition.clone(),
            false => Arc::new(TaskDefinition {
                image_password: "***".to_owned(),
                ..(**definition).clone()
            }),
        };
        Task {
            task_guid: self.task_guid.clone(),
            domain: self.domain.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            first_completed_at: self.first_completed_at,
            state: self.state,
            cell_id: self.cell_id.clone(),
            result: self.result.clone(),
            failed: self.failed,
            failure_reason: self.failure_reason.clone(),
            rejection_count: self.rejection_count,
            rejection_reason: self.rejection_reason.clone(),
            definition,
        }
    }

    /// The metadata that says all of it.
    fn patch(&self) -> Result<Patch, TaskError> {
        let state = serde_json::to_vec(self).map_err(RequestError::Encode)?;
        let mut patch = Patch::from([(STATE.to_owned(), Some(state))]);
        let mut bytes = self.result.as_bytes();
        bytes = &bytes[..bytes.len().min(MAX_RESULT)];
        for (at, piece) in bytes.chunks(PIECE).enumerate() {
            patch.insert(format!("{RESULT}{at}"), Some(piece.to_vec()));
        }
        Ok(patch)
    }
}

/// The element of a guid: named by its digest, because a guid may be longer than a name and begin with a dash.
pub(super) fn element(location: &str, guid: &str) -> Result<ElementId, IdError> {
    ElementId::new(Kind::Task, location, &format!("{FOLDER}/{}", short(guid)))
}

/// A name for a guid.
pub(super) fn short(guid: &str) -> String {
    hex::encode(&Sha256::digest(guid.as_bytes())[..16])
}

/// Records a new task.
pub(super) async fn create(
    layer: &PortLayer,
    entry: &Entry,
    stored: &Stored,
) -> Result<(), TaskError> {
    let data = serde_json::to_vec(&*entry.definition).map_err(RequestError::Encode)?;
    let mut new = NewElement::new(
        entry.element.clone(),
        Spec::Task(Box::<TaskSpec>::default()),
    )
    .data(Cursor::new(data))
    .ro("diego.task_guid", stored.task_guid.as_str())
    .ro("diego.domain", stored.domain.as_str());
    new.rw = stored.patch()?;
    match layer.create(new).await {
        Ok(_) => Ok(()),
        Err(CreateError::AlreadyExists { .. }) => Err(TaskError::Exists {
            guid: stored.task_guid.clone(),
        }),
        Err(error) => Err(TaskError::Create(error)),
    }
}

/// Records a change.
pub(super) async fn update(
    layer: &PortLayer,
    entry: &Entry,
    stored: &Stored,
) -> Result<(), TaskError> {
    let updated = layer.update(&entry.element, stored.patch()?, None).await;
    updated.map(drop).map_err(TaskError::Update)
}

/// A recorded task.
pub(super) struct Loaded {
    pub(super) element: ElementId,
    pub(super) definition: Arc<TaskDefinition>,
    pub(super) stored: Stored,
}

/// Reads a recorded task back.
pub(super) async fn load(layer: &PortLayer, element: Descriptor) -> Result<Loaded, TaskError> {
    let damaged = |what| TaskError::Damaged {
        element: element.id.to_string(),
        what,
    };
    let state = element
        .rw
        .get(STATE)
        .ok_or_else(|| damaged("it has no state"))?;
    let mut stored: Stored = serde_json::from_slice(state).map_err(|_| damaged("its state"))?;
    let mut result = Vec::new();
    for at in 0.. {
        match element.rw.get(&format!("{RESULT}{at}")) {
            Some(piece) => result.extend(piece),
            None => break,
        }
    }
    stored.result = String::from_utf8_lossy(&result).into_owned();
    let mut data = layer.export(&element.id).await?;
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes)
        .await
        .map_err(|_| damaged("its definition cannot be read"))?;
    let definition: TaskDefinition =
        serde_json::from_slice(&bytes).map_err(|_| damaged("its definition"))?;
    Ok(Loaded {
        element: element.id.clone(),
        definition: Arc::new(definition),
        stored,
    })
}
