//! Ids on the command line: whole, or only the name where the kind is known.

use std::collections::BTreeMap;

use portlayer::element::{ElementId, Kind};
use portlayer_client::node::LocationInfo;
use portlayer_node::config::{Backing, Config};

/// Makes ids of names with the locations of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// The first location that holds elements of the kind.
    first: BTreeMap<Kind, String>,
    /// The first location made of memory.
    memory: Option<String>,
}

impl Names {
    /// Names in the locations of this configuration.
    pub(crate) fn of_config(config: &Config) -> Self {
        let mut names = Self::default();
        for location in &config.locations {
            let memory = matches!(location.backing, Backing::Tmpfs { .. });
            names.add(&location.name, &location.kinds, memory);
        }
        names.add("node", &[Kind::Network, Kind::Log], false);
        names
    }

    /// Names in the locations a daemon has.
    pub(crate) fn of_daemon(locations: &[LocationInfo]) -> Self {
        let mut names = Self::default();
        for location in locations {
            names.add(&location.name, &location.kinds, location.backing == "tmpfs");
        }
        names.add("node", &[Kind::Network, Kind::Log], false);
        names
    }

    fn add(&mut self, location: &str, kinds: &[Kind], memory: bool) {
        for kind in kinds {
            let first = self.first.entry(*kind);
            first.or_insert_with(|| location.to_owned());
        }
        if memory {
            self.memory.get_or_insert_with(|| location.to_owned());
        }
    }

    /// The id a text stands for where only one kind can be meant: `busybox` is `image://images/busybox` when
    /// `images` is the first location that holds images. A text with `://` is always a whole id.
    pub(crate) fn of_kind(&self, kind: Kind, text: &str) -> Result<ElementId, String> {
        let id = if text.contains("://") {
            text.parse::<ElementId>()
        } else {
            let location = self.first.get(&kind).ok_or_else(|| {
                format!("no location is configured for {kind}s: give the whole id")
            })?;
            ElementId::new(kind, location, text)
        };
        let id = id.map_err(|error| format!("{text:?}: {error}"))?;
        if id.kind() != kind {
            return Err(format!("{id} is not of kind {kind}"));
        }
        Ok(id)
    }

    /// An id of this kind, or a whole id of any.
    pub(crate) fn one(&self, kind: Option<Kind>, text: &str) -> Result<ElementId, String> {
        match kind {
            Some(kind) => self.of_kind(kind, text),
            None => any(text),
        }
    }

    /// Ids of this kind, or whole ids of any.
    pub(crate) fn of(
        &self,
        kind: Option<Kind>,
        texts: &[String],
    ) -> Result<Vec<ElementId>, String> {
        texts.iter().map(|text| self.one(kind, text)).collect()
    }

    /// A fresh, readable id of a kind: `<name>-<time and process>`.
    pub(crate) fn fresh(&self, kind: Kind, name: &str) -> Result<ElementId, String> {
        let now = portlayer::time::Timestamp::now().as_nanos();
        self.of_kind(kind, &format!("{name}-{:x}-{:x}", now, std::process::id()))
    }

    /// The id of a volume in memory.
    pub(crate) fn in_memory(&self, name: &str) -> Result<ElementId, String> {
        let none = "no location made of memory is configured, so there is no tmpfs";
        let location = self.memory.as_ref().ok_or(none)?;
        ElementId::new(Kind::Volume, location, name).map_err(|error| error.to_string())
    }
}

/// A whole id, of any kind.
pub(crate) fn any(text: &str) -> Result<ElementId, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids() {
        let names = Names::of_config(&Config::new("/x"));
        let id = |kind, text| names.of_kind(kind, text).map(|id| id.to_string());
        assert_eq!(
            id(Kind::Image, "busybox"),
            Ok("image://images/busybox".to_owned())
        );
        assert_eq!(
            id(Kind::Volume, "volume://scratch/a/b"),
            Ok("volume://scratch/a/b".to_owned())
        );
        assert!(
            id(Kind::Image, "volume://scratch/a")
                .unwrap_err()
                .contains("not of kind image")
        );
        assert_eq!(
            id(Kind::Network, "net"),
            Ok("network://node/net".to_owned())
        );
        assert!(id(Kind::Image, "../x").is_err());
        assert!(any("busybox").is_err());
        assert_ne!(
            names.fresh(Kind::Task, "run"),
            names.fresh(Kind::Task, "run")
        );
        let memory = names.in_memory("t").map(|id| id.to_string());
        assert_eq!(memory, Ok("volume://scratch/t".to_owned()));
    }

    #[test]
    fn a_daemon_s_locations_are_the_ones_that_count() {
        let location = |name: &str, kind, backing: &str| LocationInfo {
            name: name.to_owned(),
            kinds: vec![kind],
            policy: portlayer::store::Policy::ReadWrite,
            backing: backing.to_owned(),
        };
        let names = Names::of_daemon(&[
            location("disk", Kind::Volume, "block"),
            location("ram", Kind::Volume, "tmpfs"),
            location("dir", Kind::Volume, "dir"),
        ]);
        let id = |id: Result<ElementId, String>| id.map(|id| id.to_string());
        assert_eq!(
            id(names.of_kind(Kind::Volume, "v")),
            Ok("volume://disk/v".to_owned())
        );
        assert_eq!(id(names.in_memory("v")), Ok("volume://ram/v".to_owned()));
        assert!(names.of_kind(Kind::Image, "i").is_err());
    }
}
