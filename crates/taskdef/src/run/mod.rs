//! The runner: drives a plan through the public API of the port layer.
//!
//! Elements are ensured, an executor is composed and committed with one task that only waits, the actions are performed
//! as further tasks of it, the outputs are read while it still lives, and then everything of the run is removed.

mod container;
mod identity;
mod image;
mod inside;
mod network;
mod outputs;
mod prepare;
mod users;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use portlayer::PortLayer;
use portlayer::compose::Interrupt;
use portlayer::element::{ElementId, Kind, ListQuery, MAX_PAGE};
use portlayer::error::{DeleteError, LocationError, ReadError};
use portlayer::task::StopSpec;
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

pub(crate) use container::{Container, ContainerError};
pub(crate) use inside::Owner;

use crate::action::{ActionError, Stage, perform};
use crate::die;
use crate::fetch::Fetcher;
use crate::identity::Authority;
use crate::log::{LogSink, Streamer};
use crate::plan::Plan;

/// Containers made, and containers removed, at once: Diego's workers of a cell.
const WORKERS: usize = 32;

/// What a plan asks for that a node may not be able to give. A plan that needs one is refused, unless the operator
/// allows it to go without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Rules of what may be reached.
    Egress,
}

impl Feature {
    /// The field of a plan that asks for it.
    pub const fn field(self) -> &'static str {
        match self {
            Feature::Egress => "network.egress",
        }
    }
}

/// How the runner uses the node.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Location of task elements.
    pub tasks: String,
    /// Location of executors.
    pub executors: String,
    /// Location of volumes: shared archives and files of a run.
    pub volumes: String,
    /// The network executors join, with the rules of their plan; `None` = a loopback and nothing else.
    pub network: Option<ElementId>,
    /// A program that every container has and that only waits until SIGTERM: init without a program.
    pub hold: Vec<String>,
    /// Between SIGTERM and SIGKILL; Diego does not go below 10 s.
    pub grace: Duration,
    /// What this node may leave out although a plan asks for it.
    pub unenforced: BTreeSet<Feature>,
    /// How images that are not on the node are pulled; `None` = no registry is asked.
    pub registries: Option<portlayer_registry::Config>,
    /// Who signs certificates of runs; `None` = they get none.
    pub authority: Option<Arc<Authority>>,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            tasks: "tasks".to_owned(),
            executors: "executors".to_owned(),
            volumes: "volumes".to_owned(),
            network: None,
            hold: vec!["/dev/.portlayer/init".to_owned()],
            grace: Duration::from_secs(10),
            unenforced: BTreeSet::new(),
            registries: None,
            authority: None,
        }
    }
}

/// Why a run did not get to its actions, or they failed. The text is the failure reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunError {
    /// The node cannot do what the plan asks.
    #[error("failed to create container: {} is not supported by this node", feature.field())]
    Unsupported {
        /// What.
        feature: Feature,
    },
    /// No such root file system here.
    #[error("found no compatible cell for required rootfs")]
    Root,
    /// An archive could not be fetched. May pass.
    #[error("failed to download cached artifacts")]
    Archives,
    /// A volume could not be made.
    #[error("failed to mount volume, errors: {0}")]
    Volume(String),
    /// Files of the run could not be made.
    #[error("failed to create volume mounted files")]
    Files,
    /// The key and the certificate of the run could not be made.
    #[error("failed to create credentials directory")]
    Credentials,
    /// The container could not be made. May pass.
    #[error("failed to create container: {0}")]
    Container(String),
    /// The actions.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// An output could not be read.
    #[error("failed to fetch result")]
    Output,
}

impl RunError {
    /// Whether the same may go well when it is tried again.
    pub fn is_passing(&self) -> bool {
        matches!(self, RunError::Archives | RunError::Container(_))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed, if it did.
    pub result: Result<(), RunError>,
    /// Content of the output file; empty when there was none. What is not UTF-8 is replaced.
    pub output: String,
}

/// What is there of a run that has an outcome: its container and what was made for it.
#[must_use = "a container that nobody removes stays"]
pub struct Remains {
    runner: Runner,
    executor: Option<ElementId>,
    log: Streamer,
    messages: Option<(String, String)>,
}

impl Remains {
    fn say(&self, what: &str) {
        if let Some((cell, instance)) = &self.messages {
            self.log
                .stdout(&format!("Cell {cell} {what} instance {instance}"));
        }
    }

    /// Ends whatever still runs and removes everything.
    pub async fn remove(self) {
        let Some(executor) = &self.executor else {
            return;
        };
        self.say("stopping");
        self.say("destroying container for");
        die::at("run.before-remove");
        self.runner.remove(executor).await;
        die::at("run.after-remove");
        self.say("successfully destroyed container for");
    }
}

/// Runs plans. Cloning shares everything.
#[derive(Clone)]
pub struct Runner {
    layer: PortLayer,
    fetcher: Arc<Fetcher>,
    sink: Arc<dyn LogSink>,
    settings: RunSettings,
    /// Containers being made, and being removed, at once.
    workers: Arc<[Semaphore; 2]>,
}

/// Names of one run.
#[derive(Debug, Clone)]
pub struct RunNames {
    /// Name of the executor within its location; unique, also over restarts.
    pub executor: String,
    /// Who runs it and what, for messages: cell and instance.
    pub messages: Option<(String, String)>,
}

impl Runner {
    /// A runner over a port layer.
    pub fn new(
        layer: PortLayer,
        fetcher: Arc<Fetcher>,
        sink: Arc<dyn LogSink>,
        settings: RunSettings,
    ) -> Self {
        Self {
            layer,
            fetcher,
            sink,
            settings,
            workers: Arc::new([const { Semaphore::const_new(WORKERS) }; 2]),
        }
    }

    /// The port layer below.
    pub fn layer(&self) -> &PortLayer {
        &self.layer
    }

    /// Location of the executors it makes.
    pub fn executors(&self) -> &str {
        &self.settings.executors
    }

    /// Downloads and uploads.
    pub fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    /// Runs a plan to its end and removes everything of the run. `cancel` ends it in stages.
    pub async fn run(&self, plan: &Plan, names: &RunNames, cancel: &CancellationToken) -> Outcome {
        let claim = async { Ok::<_, Infallible>(()) };
        let Ok((outcome, remains)) = self.perform(plan, names, cancel, claim).await;
        remains.remove().await;
        outcome
    }

    /// [`Runner::run`] up to its outcome; the container is still there. Nothing remains of a run that did not get to its
    /// actions.
    ///
    /// `claim` is the caller's record that the run begins. It is made while the first elements are, and nothing is
    /// fetched or started before it is there. When it fails nothing remains and its error is the answer.
    pub async fn perform<E>(
        &self,
        plan: &Plan,
        names: &RunNames,
        cancel: &CancellationToken,
        claim: impl Future<Output = Result<(), E>>,
    ) -> Result<(Outcome, Remains), E> {
        let log = Streamer::new(self.sink.clone(), &plan.logs);
        let failed = |error: RunError| Outcome {
            result: Err(error),
            output: String::new(),
        };
        let mut remains = Remains {
            runner: self.clone(),
            executor: None,
            log: log.clone(),
            messages: names.messages.clone(),
        };
        let executor =
            match ElementId::new(Kind::Executor, &self.settings.executors, &names.executor) {
                Ok(executor) => executor,
                Err(error) => {
                    claim.await?;
                    return Ok((failed(RunError::Container(error.to_string())), remains));
                }
            };
        let begun = async {
            let turn = self.turn(cancel).await.ok_or(ActionError::Cancelled)?;
            Ok((turn, self.begin(plan, &executor).await?))
        };
        let (claimed, begun) = tokio::join!(claim, begun);
        if let Err(refused) = claimed {
            self.remove(&executor).await;
            return Err(refused);
        }
        remains.say("creating container for");
        let prepared = match begun {
            Ok((_turn, begun)) => self.prepare(plan, begun, &executor, &log, cancel).await,
            Err(error) => Err(error),
        };
        let container = match prepared {
            Ok(container) => Arc::new(container),
            Err(error) => {
                // What cannot be started must be seen where its owner looks.
                log.stderr(&error.to_string());
                self.remove(&executor).await;
                return Ok((failed(error), remains));
            }
        };
        remains.say("successfully created container for");
        remains.executor = Some(executor);
        let stage = Stage {
            container: container.clone(),
            fetcher: self.fetcher.clone(),
            log: log.clone(),
        };
        let ended = perform(&stage, &plan.action, cancel).await;
        die::at("run.before-outputs");
        let read = match ended {
            // Nobody waits for the result of what was cancelled.
            Err(ActionError::Cancelled | ActionError::GraceExceeded) => Ok(String::new()),
            _ => outputs::read(&container, &plan.outputs).await,
        };
        let outcome = match (ended, read) {
            (Ok(()), Ok(output)) => Outcome {
                result: Ok(()),
                output,
            },
            (Ok(()), Err(error)) => {
                log.stderr(&format!("failed to fetch result: {error}"));
                failed(RunError::Output)
            }
            // The action's reason counts; a result that is there is given all the same.
            (Err(error), read) => Outcome {
                result: Err(error.into()),
                output: read.unwrap_or_default(),
            },
        };
        Ok((outcome, remains))
    }

    /// Waits until another container may be made; `None` = cancelled before.
    async fn turn(&self, cancel: &CancellationToken) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            // It is never closed.
            turn = self.workers[0].acquire() => turn.ok(),
        }
    }

    /// Removes an executor of a run and everything made for it, whatever state it is in. Idempotent.
    pub async fn remove(&self, executor: &ElementId) {
        let _turn = self.workers[1].acquire().await;
        let now = StopSpec {
            signal: Some(15),
            grace_ms: 1000,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Ending the waiting task ends the container; what else runs in it is stopped with it.
            if let Err(error) = self
                .layer
                .interrupt(
                    executor,
                    None,
                    Interrupt::Stop {
                        how: Some(now.clone()),
                    },
                )
                .await
            {
                tracing::debug!(%executor, %error, "nothing to stop");
            }
            match self.layer.delete(executor).await {
                Ok(_) | Err(DeleteError::NotFound { .. }) => break,
                Err(DeleteError::InvalidState { .. } | DeleteError::InUse { .. })
                    if attempts < 200 =>
                {
                    tokio::time::sleep(Duration::from_millis(20 * attempts.min(10))).await;
                }
                Err(error) => {
                    tracing::error!(%executor, %error, "an executor cannot be removed, left to recovery");
                    break;
                }
            }
        }
        self.remove_below(Kind::Task, &self.settings.tasks, executor.name())
            .await;
        self.remove_below(
            Kind::Volume,
            &self.settings.volumes,
            &format!("runs/{}", executor.name()),
        )
        .await;
    }

    /// Executors of runs in a folder of theirs of which anything is there: the executor, its tasks or its volumes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn remains(&self, folder: &str) -> Result<Vec<ElementId>, ReadError> {
        let settings = &self.settings;
        let mut names = BTreeSet::new();
        for (kind, location, before) in [
            (Kind::Executor, &settings.executors, ""),
            (Kind::Task, &settings.tasks, ""),
            (Kind::Volume, &settings.volumes, "runs/"),
        ] {
            let prefix = format!("{kind}://{location}/{before}{folder}/");
            let mut page = None;
            loop {
                let query = ListQuery {
                    kind: Some(kind),
                    prefix: Some(prefix.clone()),
                    page,
                    hidden: true,
                    limit: MAX_PAGE,
                    ..ListQuery::default()
                };
                let listed = self.layer.list(query).await?;
                let runs = listed.items.iter().filter_map(|element| {
                    let rest = element.id.as_str().strip_prefix(&prefix)?;
                    rest.split('/').next().map(str::to_owned)
                });
                names.extend(runs);
                page = listed.next;
                if page.is_none() {
                    break;
                }
            }
        }
        let ids = names.iter().filter_map(|name| {
            ElementId::new(
                Kind::Executor,
                &settings.executors,
                &format!("{folder}/{name}"),
            )
            .ok()
        });
        Ok(ids.collect())
    }

    /// Removes the elements of a run by the beginning of their names.
    async fn remove_below(&self, kind: Kind, location: &str, name: &str) {
        let query = ListQuery {
            kind: Some(kind),
            prefix: Some(format!("{kind}://{location}/{name}/")),
            hidden: true,
            limit: 1000,
            ..ListQuery::default()
        };
        let listed = match self.layer.list(query).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(name, %error, "what a run left cannot be listed");
                return;
            }
        };
        // All at once: they share their way to the disk.
        let deletes = listed.items.iter().map(|element| async {
            match self.layer.delete(&element.id).await {
                Ok(_)
                | Err(
                    DeleteError::NotFound { .. }
                    | DeleteError::Location(LocationError::Unknown { .. }),
                ) => {}
                Err(error) => {
                    tracing::error!(id = %element.id, %error, "what a run left cannot be removed")
                }
            }
        });
        futures::future::join_all(deletes).await;
    }
}
