//! Ids on the command line: whole, or only the name where the kind is known.

use portlayer::element::{ElementId, Kind};
use portlayer_node::config::Config;

/// Makes ids of names with the configured locations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    config: &'a Config,
}

impl<'a> Names<'a> {
    /// Names in the locations of this configuration.
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The id a text stands for where only one kind can be meant: `busybox` is `image://images/busybox` when
    /// `images` is the first location that holds images. A text with `://` is always a whole id.
    pub(crate) fn of_kind(self, kind: Kind, text: &str) -> Result<ElementId, String> {
        let id = if text.contains("://") {
            text.parse::<ElementId>()
        } else {
            let location = self.config.default_location(kind).ok_or_else(|| {
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

    /// A whole id, of any kind.
    pub(crate) fn any(self, text: &str) -> Result<ElementId, String> {
        text.parse().map_err(|error| format!("{text:?}: {error}"))
    }

    /// An id of this kind, or a whole id of any.
    pub(crate) fn one(self, kind: Option<Kind>, text: &str) -> Result<ElementId, String> {
        match kind {
            Some(kind) => self.of_kind(kind, text),
            None => self.any(text),
        }
    }

    /// Ids of this kind, or whole ids of any.
    pub(crate) fn of(self, kind: Option<Kind>, texts: &[String]) -> Result<Vec<ElementId>, String> {
        texts.iter().map(|text| self.one(kind, text)).collect()
    }

    /// A fresh, readable id of a kind: `<name>-<time and process>`.
    pub(crate) fn fresh(self, kind: Kind, name: &str) -> Result<ElementId, String> {
        let now = portlayer::time::Timestamp::now().as_nanos();
        self.of_kind(kind, &format!("{name}-{:x}-{:x}", now, std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids() {
        let config = Config::new("/x");
        let names = Names::new(&config);
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
        assert!(
            id(Kind::Network, "net")
                .unwrap_err()
                .contains("give the whole id")
        );
        assert!(id(Kind::Image, "../x").is_err());
        assert!(names.any("busybox").is_err());
        assert_ne!(
            names.fresh(Kind::Task, "run"),
            names.fresh(Kind::Task, "run")
        );
    }
}
