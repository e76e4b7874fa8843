//! Texts of the command line and what they mean.

mod env;
mod id;
mod metadata;
mod mount;
mod network;
mod signal;
mod time;

pub(crate) use env::{env_entry, env_file};
pub(crate) use id::{Names, any};
pub(crate) use metadata::{MetadataArgs, entry, patch_entry};
pub(crate) use mount::{MountArg, mount, tmpfs, volume};
pub(crate) use network::{NetworkFlags, egress, publish};
pub(crate) use signal::{signal, signal_name};
pub(crate) use time::{duration, moment};

use portlayer_node::config::parse_size;

/// A size in bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}
