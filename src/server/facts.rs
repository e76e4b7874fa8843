//! What the server tells of the node and does not ask the port layer for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portlayer_client::node::LocationInfo;
use serde::Serialize;

use crate::Node;
use crate::config::Config;
use crate::pull::Pulls;

/// Fixed facts of a node.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The configured locations.
    pub locations: Vec<LocationInfo>,
    /// Where things are, by name, for people who look for a fault.
    pub places: BTreeMap<String, String>,
    /// How registries are reached; `None` = images are not pulled here.
    pub pulls: Option<Pulls>,
}

impl Facts {
    /// Of an open node.
    pub fn of(config: &Config, node: &Node) -> Self {
        let places = node.places();
        let locations = config.locations.iter().map(|location| LocationInfo {
            name: location.name.clone(),
            kinds: location.kinds.clone(),
            policy: location.policy,
            backing: backing_name(&location.backing),
        });
        let places = [
            (
                "ledger",
                config.data_dir.join("ledger").display().to_string(),
            ),
            ("engine", places.directory.display().to_string()),
            ("containerd", places.socket.display().to_string()),
            ("namespace", places.namespace.clone()),
            ("cgroup", places.cgroup_parent.clone()),
        ];
        Self {
            data_dir: config.data_dir.clone(),
            locations: locations.collect(),
            places: places
                .map(|(name, place)| (name.to_owned(), place))
                .into_iter()
                .collect(),
            pulls: Some(Pulls::of(config)),
        }
    }
}

/// The name of a backing in the configuration.
fn backing_name(backing: &impl Serialize) -> String {
    let value = serde_json::to_value(backing).unwrap_or_default();
    let name = value.get("type").and_then(|name| name.as_str());
    name.unwrap_or_default().to_owned()
}
