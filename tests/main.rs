//! The integration tests: one binary, linked once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cli;
mod node;
mod support;
mod tidy;
