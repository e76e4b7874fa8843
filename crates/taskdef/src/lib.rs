//! Task definitions of other schedulers, on the port layer.
//!
//! A front end reads and checks a definition and translates it, purely, into a plan; one runner drives a plan through
//! the public API of [`portlayer`].

pub mod action;
pub mod die;
pub mod diego;
pub mod fetch;
pub mod identity;
pub mod log;
pub mod plan;
pub mod recent;
pub mod run;

#[cfg(test)]
mod rehearsal;
