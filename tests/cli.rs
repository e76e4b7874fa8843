//! The command `portlayer`, driven as a person would, against a private containerd. Needs root.
//!
//! Every test of what commands do runs both ways: the commands open the node themselves, and they speak to a daemon.

mod copy;
mod daemon;
mod data;
mod diego;
mod elements;
mod events;
mod fixture;
mod interact;
mod metrics;
mod run;

pub(crate) use fixture::{Node, Way, code, read_until, shown};

/// Runs tests both ways. One that is not named here is dead code, which is an error.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[test]
            fn $test() {
                super::$test(&$crate::cli::Node::new());
            })*
        }
        mod daemon {
            $(#[test]
            fn $test() {
                super::$test(&$crate::cli::Node::served());
            })*
        }
    };
}
use both_ways;
