//! Whether this node takes a task: what Diego's auction would say of a single cell.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{Entry, Shared};
use crate::diego::schema::TaskDefinition;
use crate::diego::settings::{Capacity, Settings};

/// Takes a task in, or says why not. A task that was taken counts until [`Entry::placed`] is cleared.
pub(super) fn admit(shared: &Shared, entry: &Entry) -> Result<(), String> {
    check_tags(&shared.settings, &entry.definition.placement_tags)?;
    // Counted with this task already in, so that two at once cannot both take the last place.
    entry.placed.store(true, Ordering::SeqCst);
    let entries = shared.entries();
    let placed = entries
        .iter()
        .filter(|other| other.placed.load(Ordering::SeqCst));
    let used = placed.fold(Used::default(), |used, other| used.with(&other.definition));
    let missing = used.missing(&shared.settings.capacity);
    if missing.is_empty() {
        return Ok(());
    }
    entry.placed.store(false, Ordering::SeqCst);
    Err(format!("insufficient resources: {}", missing.join(", ")))
}

#[derive(Default)]
struct Used {
    memory_mb: u64,
    disk_mb: u64,
    containers: u32,
}

impl Used {
    fn with(self, definition: &TaskDefinition) -> Self {
        Self {
            memory_mb: self.memory_mb + u64::try_from(definition.memory_mb).unwrap_or(0),
            disk_mb: self.disk_mb + u64::try_from(definition.disk_mb).unwrap_or(0),
            containers: self.containers + 1,
        }
    }

    /// What there is too little of, in the order of Diego's text.
    fn missing(&self, capacity: &Capacity) -> Vec<&'static str> {
        let over = |used: u64, have: Option<u64>| have.is_some_and(|have| used > have);
        let mut missing = Vec::new();
        if self.containers > capacity.containers {
            missing.push("containers");
        }
        if over(self.disk_mb, capacity.disk_mb) {
            missing.push("disk");
        }
        if over(self.memory_mb, capacity.memory_mb) {
            missing.push("memory");
        }
        missing
    }
}

/// The node's required tags must all be wanted, and nothing wanted that the node does not have.
fn check_tags(settings: &Settings, wanted: &[String]) -> Result<(), String> {
    let wants: BTreeSet<&String> = wanted.iter().collect();
    let required = settings.required_tags.iter().all(|tag| wants.contains(tag));
    let known = |tag: &&String| {
        settings.required_tags.contains(*tag) || settings.optional_tags.contains(*tag)
    };
    if required && wants.iter().all(known) {
        return Ok(());
    }
    let quoted: Vec<_> = wanted.iter().map(|tag| format!("\"{tag}\"")).collect();
    let tags = match quoted.as_slice() {
        [] => "no placement tags".to_owned(),
        [one] => format!("placement tag {one}"),
        [first @ .., last] => format!("placement tags {} and {last}", first.join(", ")),
    };
    Err(format!("found no compatible cell with {tags}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let set = |tags: &[&str]| {
            tags.iter()
                .map(|tag| (*tag).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let list = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        let settings = Settings {
            required_tags: set(&["r"]),
            optional_tags: set(&["o"]),
            ..Settings::default()
        };
        assert_eq!(check_tags(&settings, &list(&["r"])), Ok(()));
        assert_eq!(check_tags(&settings, &list(&["o", "r"])), Ok(()));
        assert_eq!(
            check_tags(&settings, &[]).unwrap_err(),
            "found no compatible cell with no placement tags"
        );
        assert_eq!(
            check_tags(&settings, &list(&["o"])).unwrap_err(),
            "found no compatible cell with placement tag \"o\""
        );
        let many = check_tags(&settings, &list(&["r", "x", "y"])).unwrap_err();
        assert_eq!(
            many,
            "found no compatible cell with placement tags \"r\", \"x\" and \"y\""
        );
        assert_eq!(check_tags(&Settings::default(), &[]), Ok(()));
    }

    #[test]
    fn what_is_missing_is_sorted() {
        let capacity = Capacity {
            memory_mb: Some(10),
            disk_mb: Some(10),
            containers: 0,
        };
        let definition = TaskDefinition {
            memory_mb: 11,
            disk_mb: 11,
            ..TaskDefinition::default()
        };
        assert_eq!(
            Used::default().with(&definition).missing(&capacity),
            ["containers", "disk", "memory"]
        );
    }
}
