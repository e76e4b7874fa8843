//! The life of desired tasks: pending, running, completed, resolving, gone.
//!
//! Every state is a record in the ledger before anybody is told of it, so a restart goes on where the last process was:
//! what was pending is started, what was running has failed honestly, what was completed is called back.

mod admission;
mod callback;
mod error;
mod life;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portlayer::element::{ElementId, Kind, ListQuery};
use portlayer::error::ReadError;
use portlayer::time::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{RequestError, TaskError};
pub use record::{State, Task};

use self::record::Stored;
use super::schema::{DesiredTask, TaskDefinition};
use super::settings::Settings;
use super::validate;
use crate::die;
use crate::run::Runner;

/// Events a subscriber may be behind; a slower one is told so and has to look again.
const HUB: usize = 1024;

/// A change of a task, told after it is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
    /// It was desired.
    Created(Box<Task>),
    /// Its record changed.
    Changed {
        /// As it was.
        before: Box<Task>,
        /// As it is.
        after: Box<Task>,
    },
    /// It is gone.
    Removed(Box<Task>),
}

impl TaskEvent {
    /// Diego's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            TaskEvent::Created(_) => "task_created",
            TaskEvent::Changed { .. } => "task_changed",
            TaskEvent::Removed(_) => "task_removed",
        }
    }
}

/// Diego's tasks on this node. Cloning shares them; dropping every clone stops nothing that runs.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    runner: Runner,
    settings: Settings,
    location: String,
    known: Mutex<HashMap<String, Arc<Entry>>>,
    events: broadcast::Sender<TaskEvent>,
    closing: CancellationToken,
    jobs: TaskTracker,
    /// Domains that somebody vouches for, and until when.
    domains: Mutex<BTreeMap<String, Option<Instant>>>,
}

/// A task that is known.
struct Entry {
    element: ElementId,
    /// Its definition, which never changes.
    definition: Arc<TaskDefinition>,
    /// Its record; changes are made one after the other, each durable before the next.
    stored: tokio::sync::Mutex<Option<Stored>>,
    /// Ends what runs.
    cancel: CancellationToken,
    /// Its container may be there: it counts against the capacity of the node.
    placed: std::sync::atomic::AtomicBool,
}

impl Tasks {
    /// Opens the tasks of a node and takes up those that are recorded. `location` holds their elements.
    ///
    /// # Errors
    /// `Read`: the ledger cannot be read.
    pub async fn open(
        runner: Runner,
        settings: Settings,
        location: &str,
    ) -> Result<Self, TaskError> {
        let (events, _) = broadcast::channel(HUB);
        let tasks = Self {
            shared: Arc::new(Shared {
                runner,
                settings,
                location: location.to_owned(),
                known: Mutex::default(),
                events,
                closing: CancellationToken::new(),
                jobs: TaskTracker::new(),
                domains: Mutex::default(),
            }),
        };
        life::sweep(&tasks.shared).await?;
        for (entry, state) in tasks.recorded().await? {
            life::resume(&tasks.shared, &entry, state).await?;
        }
        Ok(tasks)
    }

    async fn recorded(&self) -> Result<Vec<(Arc<Entry>, State)>, TaskError> {
        let mut found = Vec::new();
        let mut page = None;
        loop {
            let query = ListQuery {
                kind: Some(Kind::Task),
                prefix: Some(format!(
                    "task://{}/{}/",
                    self.shared.location,
                    record::FOLDER
                )),
                page,
                hidden: true,
                limit: portlayer::element::MAX_PAGE,
                ..ListQuery::default()
            };
            let listed = self.shared.runner.layer().list(query).await?;
            for element in listed.items {
                match record::load(self.shared.runner.layer(), element).await {
                    Ok(loaded) => {
                        let (guid, state) = (loaded.stored.task_guid.clone(), loaded.stored.state);
                        let entry = Arc::new(Entry {
                            element: loaded.element,
                            definition: loaded.definition,
                            stored: tokio::sync::Mutex::new(Some(loaded.stored)),
                            cancel: self.shared.closing.child_token(),
                            placed: false.into(),
                        });
                        self.shared.known().insert(guid, entry.clone());
                        found.push((entry, state));
                    }
                    // One damaged record must not keep the others from being taken up.
                    Err(error) => tracing::error!(%error, "a recorded task cannot be read"),
                }
            }
            page = listed.next;
            if page.is_none() {
                return Ok(found);
            }
        }
    }

    /// Desires a task: durable when this returns, started soon after.
    ///
    /// # Errors
    /// `Request`, `Exists`, `Create`.
    pub async fn desire(&self, desired: DesiredTask) -> Result<(), TaskError> {
        validate(&desired, &self.shared.settings.rules).map_err(RequestError::Invalid)?;
        let DesiredTask {
            task_guid,
            domain,
            definition,
        } = desired;
        let definition = definition.ok_or(RequestError::NoDefinition)?;
        let element = record::element(&self.shared.location, &task_guid)?;
        let now = Timestamp::now().as_nanos();
        let stored = Stored::new(&task_guid, &domain, now);
        let entry = Arc::new(Entry {
            element,
            definition: Arc::new(*definition),
            stored: tokio::sync::Mutex::new(None),
            cancel: self.shared.closing.child_token(),
            placed: false.into(),
        });
        // Held until it is durable, so that nobody sees it before or desires it twice.
        let mut record = entry.stored.lock().await;
        {
            let mut known = self.shared.known();
            if known.contains_key(&task_guid) {
                return Err(TaskError::Exists { guid: task_guid });
            }
            known.insert(task_guid.clone(), entry.clone());
        }
        die::at("diego.before-record");
        if let Err(error) = record::create(self.shared.runner.layer(), &entry, &stored).await {
            self.shared.known().remove(&task_guid);
            return Err(error);
        }
        die::at("diego.after-record");
        let task = stored.task(&entry.definition);
        *record = Some(stored);
        self.shared.tell(TaskEvent::Created(Box::new(task)));
        drop(record);
        life::begin(&self.shared, &entry);
        Ok(())
    }

    /// A task by its guid. Error: `NotFound`.
    pub async fn get(&self, guid: &str) -> Result<Task, TaskError> {
        let entry = self.shared.entry(guid)?;
        let record = entry.stored.lock().await;
        let stored = record.as_ref().ok_or_else(|| not_found(guid))?;
        Ok(stored.task(&entry.definition))
    }

    /// Every task of a domain and a cell, in the order of guids; an empty name stands for all.
    pub async fn list(&self, domain: &str, cell: &str) -> Vec<Task> {
        let entries: Vec<_> = self.shared.known().values().cloned().collect();
        let mut tasks = Vec::new();
        for entry in entries {
            if let Some(stored) = &*entry.stored.lock().await {
                let fits = (domain.is_empty() || stored.domain == domain)
                    && (cell.is_empty() || stored.cell_id == cell);
                if fits {
                    tasks.push(stored.task(&entry.definition));
                }
            }
        }
        tasks.sort_by(|a, b| a.task_guid.cmp(&b.task_guid));
        tasks
    }

    /// Cancels a pending or running task: completed at once, its container is stopped afterwards.
    /// Errors: `NotFound`, `Transition`, `Update`.
    pub async fn cancel(&self, guid: &str) -> Result<(), TaskError> {
        let entry = self.shared.entry(guid)?;
        life::complete(
            &self.shared,
            &entry,
            &life::Ending::failed("task was cancelled"),
        )
        .await?;
        entry.cancel.cancel();
        Ok(())
    }

    /// Takes a completed task for resolving, so that nobody else does. Errors: `NotFound`, `Transition`, `Update`.
    pub async fn resolve(&self, guid: &str) -> Result<(), TaskError> {
        let entry = self.shared.entry(guid)?;
        life::resolve(&self.shared, &entry).await
    }

    /// Removes a task that is being resolved. Errors: `NotFound`, `Transition`, `Delete`.
    pub async fn delete(&self, guid: &str) -> Result<(), TaskError> {
        let entry = self.shared.entry(guid)?;
        life::delete(&self.shared, &entry, false).await
    }

    /// Vouches for a domain for so long; `None` = for ever. Kept in memory: clients repeat it. Idempotent.
    pub fn upsert_domain(&self, domain: &str, ttl: Option<Duration>) {
        let until = ttl.map(|ttl| Instant::now() + ttl);
        self.shared.domains().insert(domain.to_owned(), until);
    }

    /// The domains somebody vouches for, in the order of names.
    pub fn domains(&self) -> Vec<String> {
        let now = Instant::now();
        let mut domains = self.shared.domains();
        domains.retain(|_, until| until.is_none_or(|until| now < until));
        domains.keys().cloned().collect()
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Returns when no task is pending or running.
    pub async fn idle(&self) {
        let mut events = self.events();
        loop {
            let tasks = self.list("", "").await;
            let busy = |task: &Task| matches!(task.state, State::Pending | State::Running);
            if !tasks.iter().any(busy) {
                return;
            }
            // Whatever changes, or too much of it: look again.
            let _ = events.recv().await;
        }
    }

    /// Changes from now on. A subscriber that falls more than 1024 behind is told that it lost some.
    pub fn events(&self) -> broadcast::Receiver<TaskEvent> {
        self.shared.events.subscribe()
    }

    /// Ends the work on tasks in this process and waits for it: callbacks and timers stop, what runs is stopped and
    /// will be taken up as lost by the next [`open`](Self::open).
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.jobs.close();
        self.shared.jobs.wait().await;
    }
}

impl Shared {
    fn domains(&self) -> MutexGuard<'_, BTreeMap<String, Option<Instant>>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        // Every change of the map is one step that cannot panic half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, guid: &str) -> Result<Arc<Entry>, TaskError> {
        self.known()
            .get(guid)
            .cloned()
            .ok_or_else(|| not_found(guid))
    }

    fn forget(&self, guid: &str) {
        self.known().remove(guid);
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.known().values().cloned().collect()
    }

    fn tell(&self, event: TaskEvent) {
        // Without subscribers nobody needs to know.
        let _ = self.events.send(event);
    }
}

fn not_found(guid: &str) -> TaskError {
    TaskError::NotFound {
        guid: guid.to_owned(),
    }
}

impl From<ReadError> for TaskError {
    fn from(source: ReadError) -> Self {
        TaskError::Read(source)
    }
}

#[cfg(test)]
mod tests;
