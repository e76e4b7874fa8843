//! What is counted about the port layer itself, for those who watch a node.

use std::time::Duration;

use crate::PortLayer;
use crate::ledger::LedgerFigures;
use crate::runtime::LogFigures;

/// Counts since the port layer was opened; they only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// What the ledger wrote.
    pub ledger: LedgerFigures,
    /// What became of the output of tasks.
    pub logs: LogFigures,
    /// How long recovery took when it was opened.
    pub recovery: Duration,
}

impl PortLayer {
    /// The counts now. Cheap.
    pub fn figures(&self) -> Figures {
        Figures {
            ledger: self.shared.ledger.figures(),
            logs: self.shared.runtime.log_figures(),
            recovery: self.shared.recovery.get().copied().unwrap_or_default(),
        }
    }
}
