//! What happened: events, exit records and audit rows, and whether the ledger still is what was written.

use crate::PortLayer;
use crate::element::ElementId;
use crate::error::ReadError;
use crate::event::{Event, Sequence};
use crate::filter::EventFilter;
use crate::ledger::{AuditRow, Events, Ledger, LedgerError, Report};
use crate::task::ExitRecord;

impl PortLayer {
    /// Follows the events that pass one of the filters (none = all): from sequence `from` on, stored ones first, or with
    /// `None` those after this call. A follower may be as slow as it likes and slows nobody; what is no longer stored
    /// comes as one gap. The stream ends when the port layer is closed; it does not keep it open.
    ///
    /// Errors: `InvalidFilter`.
    pub fn subscribe<S: AsRef<str>>(
        &self,
        from: Option<Sequence>,
        filters: &[S],
    ) -> Result<Events, ReadError> {
        let filter = EventFilter::parse(filters)?;
        let passes = move |event: &Event| filter.selects_event(event);
        Ok(self.shared.ledger.subscribe(from, passes))
    }

    /// At most `limit` events from a sequence on, as far as they are stored; for the rest a gap. Empty = nothing new.
    /// Errors: `Ledger`.
    pub async fn events(&self, from: Sequence, limit: usize) -> Result<Vec<Event>, ReadError> {
        self.look(move |ledger| ledger.events(from, limit)).await
    }

    /// The sequence of the last event; 0 = none yet. To follow from a state: take this, read the state, subscribe from
    /// the next sequence.
    pub fn last_sequence(&self) -> Sequence {
        self.shared.ledger.last_sequence()
    }

    /// The audit rows of an element, oldest first; of a deleted one for a time (see [`crate::ledger`]). Errors: `Ledger`.
    pub async fn audit_log(&self, id: &ElementId) -> Result<Vec<AuditRow>, ReadError> {
        let id = id.clone();
        self.look(move |ledger| ledger.audit_log(&id)).await
    }

    /// The exit records of an executor, or of one task in it, in the order of task and run. They outlive both.
    /// Errors: `Ledger`.
    pub async fn exits(
        &self,
        executor: &ElementId,
        task: Option<&ElementId>,
    ) -> Result<Vec<ExitRecord>, ReadError> {
        let (executor, task) = (executor.clone(), task.cloned());
        self.look(move |ledger| ledger.exits(&executor, task.as_ref()))
            .await
    }

    /// Reads the whole ledger and checks every sum, every audit chain and every link. Changes nothing; takes seconds for
    /// a million elements. Errors: `Ledger`.
    pub async fn verify(&self) -> Result<Report, ReadError> {
        self.look(|ledger| ledger.verify()).await
    }

    /// Reads that may be long, off the async threads.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let ledger = self.shared.ledger.clone();
        let read = tokio::task::spawn_blocking(move || read(&ledger)).await;
        Ok(read.map_err(|_| LedgerError::Closed)??)
    }
}
