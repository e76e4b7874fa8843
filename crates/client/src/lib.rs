//! The client of a portlayer daemon: [`Client`] has the methods of [`portlayer::PortLayer`] with the same domain types,
//! over a unix socket, TLS or a pipe in memory.
//!
//! ```no_run
//! # async fn example() -> Result<(), portlayer_client::Error> {
//! use futures::StreamExt;
//! use portlayer_client::Client;
//!
//! let client = Client::connect("/run/portlayer/portlayer.sock").await?;
//! let mut events = client.subscribe(None, &["kind==task"]).await?;
//! while let Some(event) = events.next().await {
//!     let event = event?;
//!     println!("{} {} {}", event.sequence, event.id, event.change.as_str());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A refused call is an [`Error`] that knows what a program needs: [`Error::kind`], [`Error::reason`],
//! [`Error::element`], [`Error::field`], [`Error::retryable`].

mod attach;
pub mod compose;
mod compositions;
mod connection;
mod copy;
mod diego;
mod elements;
mod error;
mod events;
pub mod node;
mod nodes;
mod pull;
mod tasks;
pub mod wire;

pub use attach::Attached;
pub use compose::{Committed, Edit, ElementOutcome};
pub use connection::{Client, Tls};
pub use diego::{TaskChanges, TaskLines};
pub use error::Error;
pub use events::{EventStream, Watch, Watched};
pub use pull::{PullFrom, Pulled, RegistryCredentials};
pub use tasks::{LogStream, RunPlan};
