//! portlayer on one node: configuration, assembly and the command line over [`portlayer`] and its containerd runtime.
//!
//! A scheduler that embeds the port layer needs [`config::Config`], [`open`] and what is in [`portlayer`].

pub mod config;
mod node;

pub use node::{CloseError, LocationFault, Node, OpenError, clean, open, open_with};
