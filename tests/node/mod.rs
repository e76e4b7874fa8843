//! Tests against a real containerd. They need root.

mod engine;
