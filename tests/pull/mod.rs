//! Images from a registry of the tests' own, into a real engine: over the API and by the command.

mod api;
mod command;
mod image;
#[path = "../../crates/registry/tests/server/mod.rs"]
mod server;
