//! The integration tests: one binary, linked once.
#![allow(
    clippy::duplicate_mod,
    reason = "every example has its own stage, as a program"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a test may say what it saw")]

mod cli;
mod diego;
mod isolation;
mod logs;
mod network;
mod node;
mod pull;
mod serve;
mod support;
mod tidy;
mod workflows;
