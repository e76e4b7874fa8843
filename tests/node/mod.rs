//! Tests against a real containerd. They need root.

mod engine;
mod image;
mod pool;
mod process;
mod volume;
