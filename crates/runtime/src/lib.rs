//! The only crate that talks to containerd and the kernel.

mod cgroup;
mod client;
pub mod connection;
mod engine;
mod error;
mod host;
pub mod image;
mod init;
pub mod layout;
mod lease;
mod live;
pub mod mount;
mod probe;
pub mod snapshot;
mod stream;
pub mod volume;

pub use client::{BadName, Client, Headers, Service};
pub use engine::{Engine, EngineConfig, EngineError, Places};
