//! The daemon, over its socket, with a private containerd. Needs root.

mod access;
mod contract;
mod daemon;
mod errors;
mod life;
mod python;
mod restart;
