//! The daemon, over its socket, with a private containerd. Needs root.

mod access;
mod contract;
mod crowd;
mod daemon;
mod drain;
mod errors;
mod health;
mod hostile;
mod life;
mod python;
mod restart;
mod scheduler;
mod service_manager;
#[cfg(feature = "otel")]
mod trace;
