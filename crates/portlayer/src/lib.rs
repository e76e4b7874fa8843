//! The port layer: elements, composition and events over one ledger. It knows no engine, no wire and no command
//! line; those are behind [`runtime::Runtime`] and [`store::Store`] and in front of [`PortLayer`].

pub mod archive;
mod audit;
pub mod compose;
pub mod copy;
pub mod crash;
pub mod element;
pub mod error;
pub mod event;
mod figures;
pub mod filter;
#[doc(hidden)]
pub mod fuzz;
mod history;
pub mod ledger;
pub mod log;
pub mod network;
mod port_layer;
mod recover;
pub mod runtime;
pub mod store;
pub mod task;
pub mod time;
pub mod users;

pub use audit::{AuditError, AuditReport, Audited};
pub use error::{Error, ErrorKind};
pub use figures::Figures;
pub use port_layer::{Config, OpenError, Operation, PortLayer, StillInUse};
pub use recover::{EngineStatus, Reconciled};
