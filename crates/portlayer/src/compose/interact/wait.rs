//! Waiting for the end of a run.

use tokio::sync::oneshot;

use super::{TaskError, ledger, never};
use crate::PortLayer;
use crate::compose::driver::Command;
use crate::element::ElementId;
use crate::ledger::LedgerError;
use crate::task::ExitRecord;

impl PortLayer {
    /// Waits until a run of a task ended and its exit record is durable: the given one, else the newest one at the time of the
    /// call. Past runs answer at once. Safe to drop and to call often.
    ///
    /// Errors: `Compose` (no such executor), `NeverStarted`, `Ledger`.
    pub async fn wait(
        &self,
        executor: &ElementId,
        task: &ElementId,
        run: Option<u32>,
    ) -> Result<ExitRecord, TaskError> {
        let mut wanted = run;
        loop {
            // Subscribed before the look, so that no end between look and wait is missed.
            let seat = self.shared.composer.live_seat(executor);
            let mark = seat.map(|seat| seat.board.exits.subscribe());
            let composition = match self.shared.composer.node.executor(executor) {
                Ok((_, body)) => Some(body.composition),
                // A deleted executor's exit records outlive it.
                Err(error) if wanted.is_none() => return Err(error.into()),
                Err(_) => None,
            };
            let newest = composition
                .as_ref()
                .and_then(|composition| composition.runs.get(task));
            let run = match wanted.or(newest.map(|run| run.run)) {
                Some(run) => run,
                None => self.last_run(executor, task)?,
            };
            wanted = Some(run);
            let found = self.shared.ledger.exit(executor, task, run);
            if let Some(exit) = found.map_err(|source| ledger(executor, source))? {
                let synced = self.shared.ledger.synced().await;
                synced.map_err(|source| ledger(executor, source))?;
                return Ok(exit);
            }
            if newest.is_none_or(|newest| newest.run != run) {
                return Err(never(executor, task));
            }
            match mark {
                // The driver ended: look again.
                Some(mut mark) => drop(mark.changed().await),
                None => self.adopt(executor).await?,
            }
        }
    }

    pub(super) fn last_run(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> Result<u32, TaskError> {
        let exits = self.shared.ledger.exits(executor, Some(task));
        let exits = exits.map_err(|source| ledger(executor, source))?;
        exits
            .last()
            .map(|exit| exit.run)
            .ok_or_else(|| never(executor, task))
    }

    /// Lets the driver of an executor take over what runs. Returns when all is watched.
    pub(crate) async fn adopt(&self, executor: &ElementId) -> Result<(), TaskError> {
        let (reply, answer) = oneshot::channel();
        let closed = || ledger(executor, LedgerError::Closed);
        let sent = self
            .shared
            .composer
            .send(executor, Command::Adopt { reply })
            .await;
        sent.ok_or_else(closed)?;
        answer.await.map_err(|_| closed())
    }
}
