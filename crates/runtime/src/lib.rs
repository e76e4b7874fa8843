//! The only crate that talks to containerd and the kernel.

mod audit;
mod cgroup;
mod client;
pub mod connection;
mod container;
mod containerd;
mod engine;
mod error;
mod exits;
mod host;
pub mod image;
mod init;
mod inside;
mod io;
pub mod layout;
mod lease;
mod live;
pub mod mount;
mod options;
mod parts;
mod place;
mod probe;
mod process;
mod rlimits;
mod root;
pub mod snapshot;
mod status;
mod users;
pub mod volume;

pub use client::{BadName, Client, Headers, Service};
pub use containerd::Containerd;
pub use engine::{Engine, EngineConfig, EngineError, Places};
pub use io::LogBounds;
pub use probe::SNAPSHOTTER;
