//! What the port layer counts about itself: the ledger, the output of tasks, recovery.

use std::sync::atomic::{AtomicU64, Ordering};

use portlayer::{EngineStatus, Figures};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Counters that follow those of the port layer.
pub(super) struct Core {
    groups: Counter,
    records: Counter,
    written: Counter,
    sync: Counter<f64, AtomicU64>,
    stored: Counter,
    dropped: Counter,
    recovery: Gauge<f64, AtomicU64>,
    losses: Counter,
}

impl Core {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut count = |name: &str, help: &str, unit: Option<Unit>| {
            let counter = Counter::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, counter.clone()),
                None => registry.register(name, help, counter.clone()),
            }
            counter
        };
        let groups = count(
            "ledger_groups",
            "Groups of transactions that became durable, each with one flush",
            None,
        );
        let records = count(
            "ledger_records",
            "Records and events written or removed in them",
            None,
        );
        let written = count(
            "ledger",
            "Bytes of their keys and values",
            Some(Unit::Bytes),
        );
        let stored = count("logs", "Output of tasks, stored", Some(Unit::Bytes));
        let dropped = count(
            "logs_dropped",
            "Output of tasks that could not be stored",
            Some(Unit::Bytes),
        );
        let losses = count("engine_losses", "Times containerd ended", None);
        let sync = Counter::default();
        let help = "Time until groups were durable";
        registry.register_with_unit("ledger_sync", help, Unit::Seconds, sync.clone());
        let recovery = Gauge::default();
        let help = "How long recovery took at the start";
        registry.register_with_unit("recovery", help, Unit::Seconds, recovery.clone());
        Self {
            groups,
            records,
            written,
            sync,
            stored,
            dropped,
            recovery,
            losses,
        }
    }

    /// Brings them up to date. Two scrapes at once may have figures of different moments: counters never go back.
    pub(super) fn take(&self, figures: &Figures, engine: &EngineStatus) {
        let Figures {
            ledger,
            logs,
            recovery,
        } = figures;
        for (counter, now) in [
            (&self.groups, ledger.groups),
            (&self.records, ledger.records),
            (&self.written, ledger.bytes),
            (&self.stored, logs.stored_bytes),
            (&self.dropped, logs.dropped_bytes),
            (&self.losses, engine.losses),
        ] {
            counter.inner().fetch_max(now, Ordering::Relaxed);
        }
        // The bits of positive numbers have their order.
        let sync = ledger.sync.as_secs_f64().to_bits();
        self.sync.inner().fetch_max(sync, Ordering::Relaxed);
        self.recovery.set(recovery.as_secs_f64());
    }
}
