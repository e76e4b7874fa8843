//! Signals, staged stops, pauses.

use serde::{Deserialize, Serialize};

use super::{Running, TaskError, find, ledger, runtime};
use crate::PortLayer;
use crate::compose::diff::running;
use crate::compose::node::{Board, Cause};
use crate::compose::stop::{SIGKILL, Stop};
use crate::compose::{ComposeError, Composition, Role, record};
use crate::element::{ElementId, Record, fields};
use crate::runtime::{ContainerId, Delivery, SignalScope};
use crate::task::{ExitReason, ExitRecord, StopSpec};

/// How a running task or executor is disturbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupt {
    /// One signal, 1 to 64.
    Signal {
        /// Its number.
        signal: i32,
        /// For whom: with `All` it goes to every process of the container.
        scope: SignalScope,
    },
    /// The task's stop signal, after its grace SIGKILL. Its exit record says cancelled.
    Stop {
        /// Instead of the task's own settings.
        how: Option<StopSpec>,
    },
    /// Freeze (executors only).
    Pause,
    /// Thaw (executors only).
    Resume,
}

/// What became of an interrupt, told from our own records where the engine cannot tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// It reached a living process.
    Delivered,
    /// The task had ended; how. An executor: `None`.
    AlreadyExited(Option<Box<ExitRecord>>),
    /// It was never started.
    NotRunning,
}

impl PortLayer {
    /// Disturbs one task of an executor, or the executor with all its tasks. A staged stop returns after its first
    /// signal; wait tells when it is over.
    ///
    /// Errors: `Compose` (`NotJoined`, `InvalidField`, no such executor), `Runtime`, `Ledger`.
    pub async fn interrupt(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
        how: Interrupt,
    ) -> Result<Interrupted, TaskError> {
        let (record, body) = self.shared.composer.node.executor(executor)?;
        let composition = &body.composition;
        check(executor, task, &how)?;
        if let Some(task) = task
            && !composition.joined.contains_key(task)
            && !composition.runs.contains_key(task)
        {
            let (id, executor) = (task.clone(), executor.clone());
            return Err(ComposeError::NotJoined { id, executor }.into());
        }
        let of =
            |id: &ElementId| find(executor, composition, id).map(|running| (id.clone(), running));
        let targets: Vec<_> = match task {
            Some(task) => of(task).into_iter().collect(),
            None => running(composition).filter_map(of).collect(),
        };
        if targets.is_empty() {
            return self.not_running(executor, task, composition);
        }
        let seat = match self.shared.composer.live_seat(executor) {
            // Past its queue: a commit in flight is no obstacle.
            Some(seat) => seat,
            None => {
                self.adopt(executor).await?;
                self.shared.composer.seat(executor)
            }
        };
        let delivered = match how {
            Interrupt::Pause => self.pause(&record, composition, true).await?,
            Interrupt::Resume => self.pause(&record, composition, false).await?,
            Interrupt::Signal { signal, scope } => {
                self.signal(executor, &seat.board, &targets, signal, scope)
                    .await?
            }
            Interrupt::Stop { how } => {
                self.stop(executor, composition, &seat.board, targets, how)
                    .await?
            }
        };
        match delivered {
            true => Ok(Interrupted::Delivered),
            false => match task {
                // It ended just now; its record is about to come.
                Some(id) => self
                    .wait(executor, id, None)
                    .await
                    .map(|exit| Interrupted::AlreadyExited(Some(Box::new(exit)))),
                None => Ok(Interrupted::AlreadyExited(None)),
            },
        }
    }

    fn not_running(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
        composition: &Composition,
    ) -> Result<Interrupted, TaskError> {
        let Some(task) = task else {
            let ended = composition.runs.values().next().is_some();
            return Ok(if ended {
                Interrupted::AlreadyExited(None)
            } else {
                Interrupted::NotRunning
            });
        };
        let Some(run) = composition.runs.get(task) else {
            return Ok(Interrupted::NotRunning);
        };
        let exit = self.shared.ledger.exit(executor, task, run.run);
        let exit = exit.map_err(|source| ledger(executor, source))?;
        Ok(exit.map_or(Interrupted::NotRunning, |exit| {
            Interrupted::AlreadyExited(Some(Box::new(exit)))
        }))
    }

    async fn signal(
        &self,
        executor: &ElementId,
        board: &Board,
        targets: &[(ElementId, Running)],
        signal: i32,
        scope: SignalScope,
    ) -> Result<bool, TaskError> {
        let cause = Cause::Signal(signal);
        let mut delivered = false;
        // One call reaches every process; it may name any living one.
        let named = if scope == SignalScope::All {
            &targets[..1]
        } else {
            targets
        };
        for (_, target) in targets {
            board.note(&target.process, cause);
        }
        for (task, target) in named {
            let sent = self
                .shared
                .runtime
                .signal(&target.process, target.primary, signal, scope)
                .await;
            let reached = matches!(sent, Ok(Delivery::Delivered));
            delivered |= reached;
            if !reached {
                board.forget(&target.process, cause);
            }
            sent.map_err(|source| runtime(executor, task, source))?;
        }
        if delivered && signal == SIGKILL {
            self.shared.composer.node.note_thawed(executor).await;
        }
        Ok(delivered)
    }

    async fn stop(
        &self,
        executor: &ElementId,
        composition: &Composition,
        board: &std::sync::Arc<Board>,
        targets: Vec<(ElementId, Running)>,
        how: Option<StopSpec>,
    ) -> Result<bool, TaskError> {
        let mut delivered = false;
        for (task, target) in targets {
            let settings = how.clone().unwrap_or_else(|| stop_spec(composition, &task));
            let stop = Stop {
                executor: executor.clone(),
                process: target.process,
                primary: target.primary,
                signal: settings
                    .signal
                    .or_else(|| self.image_stop_signal(composition))
                    .unwrap_or(15),
                grace_ms: settings.grace_ms,
                reason: ExitReason::Cancelled,
            };
            let node = self.shared.composer.node.clone();
            let begun = stop.begin(&node, board).await;
            let begun = begun.map_err(|source| runtime(executor, &task, source))?;
            if begun == Delivery::Delivered {
                delivered = true;
                // Ends with the process, which always ends by then.
                tokio::spawn(async move { stop.finish(&node).await });
            }
        }
        Ok(delivered)
    }

    fn image_stop_signal(&self, composition: &Composition) -> Option<i32> {
        let images = composition
            .joined
            .keys()
            .filter(|id| id.kind() == crate::element::Kind::Image);
        let mut records = images.filter_map(|id| self.record(id).ok());
        match records.next()?.body {
            crate::element::Body::Image(image) => image.defaults.stop_signal,
            _ => None,
        }
    }

    async fn pause(
        &self,
        record: &Record,
        composition: &Composition,
        pause: bool,
    ) -> Result<bool, TaskError> {
        let executor = &record.id;
        let container = ContainerId::new(executor, composition.generation);
        let set = self.shared.runtime.set_paused(&container, pause).await;
        let delivery = set.map_err(|source| runtime(executor, executor, source))?;
        if delivery != Delivery::Delivered {
            return Ok(false);
        }
        let (id, operation) = (executor.clone(), self.operation());
        let written: Result<(), record::TxnError> = self
            .shared
            .ledger
            .write(move |txn| record::paused(txn, &operation, &id, pause))
            .await;
        match written {
            Ok(())
            | Err(
                record::TxnError::Changed(..)
                | record::TxnError::NoIds
                | record::TxnError::Lease(..),
            ) => Ok(true),
            Err(record::TxnError::Ledger(source)) => Err(ledger(executor, source)),
        }
    }
}

fn check(executor: &ElementId, task: Option<&ElementId>, how: &Interrupt) -> Result<(), TaskError> {
    let refuse = |field: &str, rule: &str| {
        Err(TaskError::Compose(ComposeError::InvalidField {
            id: task.unwrap_or(executor).clone(),
            field: field.to_owned(),
            rule: rule.to_owned(),
        }))
    };
    match how {
        Interrupt::Signal { signal, .. } if !(1..=64).contains(signal) => {
            refuse("signal", "a signal is 1 to 64")
        }
        Interrupt::Stop { how: Some(stop) } => match fields::check_stop("stop", stop) {
            Ok(()) => Ok(()),
            Err(error) => refuse(&error.field, &error.rule),
        },
        Interrupt::Pause | Interrupt::Resume if task.is_some() => {
            refuse("task", "only a whole executor can be paused and resumed")
        }
        _ => Ok(()),
    }
}

fn stop_spec(composition: &Composition, task: &ElementId) -> StopSpec {
    match composition.joined.get(task).map(|joined| &joined.role) {
        Some(Role::Task { spec, bind, .. }) => bind.stop.as_ref().unwrap_or(&spec.stop).clone(),
        _ => StopSpec::default(),
    }
}
