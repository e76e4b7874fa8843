//! How registries are reached.

use std::collections::{BTreeMap, BTreeSet};

use portlayer_registry::Reference;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::source::{Origin, Sources};

/// What the owner of a node says about registries. Credentials are none of it: they belong to calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullSettings {
    /// Hosts that are asked first, by the registry they are mirrors of. They never get credentials.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (with their port) that are spoken to without TLS.
    pub insecure: BTreeSet<String>,
    /// Seconds in which nothing may come before a transfer is broken off.
    pub stall_seconds: u64,
    /// How often a transfer that made no progress at all is tried again.
    pub retries: u32,
    /// The most bytes of an image, as they come.
    pub max_bytes: u64,
}

impl Default for PullSettings {
    /// Those of the registry client: no mirrors, TLS everywhere, half a minute, three times, 16 GiB.
    fn default() -> Self {
        let defaults = portlayer_registry::Config::default();
        Self {
            mirrors: defaults.mirrors,
            insecure: defaults.insecure,
            stall_seconds: defaults.stall.as_secs(),
            retries: defaults.retries,
            max_bytes: defaults.max_bytes,
        }
    }
}

/// The section as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pull {
    mirrors: BTreeMap<String, Vec<String>>,
    insecure: BTreeSet<String>,
    stall_seconds: Option<u64>,
    retries: Option<u32>,
    max: Option<String>,
}

/// The settings, checked.
pub(super) fn resolve(
    file: Pull,
    defaults: PullSettings,
    from: &mut Sources<'_>,
) -> Result<PullSettings, ConfigError> {
    let stall_seconds = from.set(
        "pull.stall_seconds",
        "PORTLAYER_PULL_STALL_SECONDS",
        file.stall_seconds,
        defaults.stall_seconds,
    )?;
    if stall_seconds == 0 {
        return from.refuse("pull.stall_seconds", "at least 1");
    }
    let settings = PullSettings {
        stall_seconds,
        retries: from.set(
            "pull.retries",
            "PORTLAYER_PULL_RETRIES",
            file.retries,
            defaults.retries,
        )?,
        max_bytes: from.set_size(
            "pull.max",
            "PORTLAYER_PULL_MAX",
            file.max,
            defaults.max_bytes,
        )?,
        mirrors: file.mirrors,
        insecure: file.insecure,
    };
    // Who may be trusted with what is structured: only a file can say it.
    let origin = |empty| match empty {
        true => Origin::Default,
        false => from.file_origin(),
    };
    let (mirrors, insecure) = (
        origin(settings.mirrors.is_empty()),
        origin(settings.insecure.is_empty()),
    );
    from.record("pull.mirrors", &settings.mirrors, mirrors);
    from.record("pull.insecure", &settings.insecure, insecure);
    let named = settings.mirrors.iter();
    let named = named.flat_map(|(registry, hosts)| hosts.iter().chain([registry]));
    check("pull.mirrors", named, from)?;
    check("pull.insecure", settings.insecure.iter(), from)?;
    Ok(settings)
}

/// Hosts are what references begin with.
fn check<'a>(
    key: &str,
    hosts: impl Iterator<Item = &'a String>,
    from: &Sources<'_>,
) -> Result<(), ConfigError> {
    for host in hosts {
        let whole = format!("{host}/a:b").parse::<Reference>();
        if !whole.is_ok_and(|reference| reference.host() == host) {
            return from.refuse(key, &format!("{host:?} is no host[:port] of a registry"));
        }
    }
    Ok(())
}
