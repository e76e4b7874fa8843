//! Log elements on a real engine: each kind with a receiver of the test's own.

mod files;
mod forward;
mod redact;
mod world;
