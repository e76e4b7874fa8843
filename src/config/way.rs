//! How a command comes to the port layer.

use super::Origin;
use super::source::Sources;

/// How a command comes to the port layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the daemon; without one it fails.
    Daemon,
    /// By opening the node in its own process.
    Embedded,
    /// Through the daemon if one has a socket there, else by opening the node: who names a data directory on the
    /// command line wants that node, however it can be had.
    DaemonIfThere,
}

impl Way {
    /// What flag, environment and file come to: the more specific of `embedded` and `socket` counts, and a data
    /// directory given as a flag alone means the node in it.
    pub(super) fn of(embedded: bool, from: &Sources<'_>) -> Way {
        let socket = rank(&from.origin("socket"));
        if embedded && rank(&from.origin("embedded")) <= socket {
            return Way::Embedded;
        }
        let data_dir = rank(&from.origin("data_dir"));
        if data_dir == rank(&Origin::Flag("")) && data_dir < socket {
            return Way::DaemonIfThere;
        }
        Way::Daemon
    }
}

/// The smaller, the more specific.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Flag(_) => 0,
        Origin::Variable(_) => 1,
        Origin::File(_) => 2,
        Origin::Default => 3,
    }
}
