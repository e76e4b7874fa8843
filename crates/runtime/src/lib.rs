//! The only crate that talks to containerd and the kernel.

mod cgroup;
mod client;
mod engine;
mod error;
mod host;
mod init;
mod lease;
mod live;
mod probe;

pub use client::{BadName, Client, Headers, Service};
pub use engine::{Engine, EngineConfig, EngineError, Places};
