//! Tests against a real containerd. They need root.

mod engine;
mod image;
mod process;
mod volume;
