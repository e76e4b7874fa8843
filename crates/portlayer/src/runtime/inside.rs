//! A running container's file system as its processes see it.

use std::os::fd::OwnedFd;

/// A running container, opened from outside.
#[derive(Debug)]
pub struct Inside {
    /// Its root directory, mounts included. Paths below it belong to the container: resolve them inside it
    /// ([`Root`](crate::archive::Root)).
    pub root: OwnedFd,
    /// How its user ids are mapped to the host's.
    pub uids: IdMap,
    /// How its group ids are mapped to the host's.
    pub gids: IdMap,
    /// How often the kernel has killed one of its processes for memory so far.
    pub oom_kills: u64,
}

/// A mapping of ids, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct IdRange {
    inside: u32,
    outside: u32,
    count: u32,
}

impl IdMap {
    /// Every id is itself: no user name space.
    pub fn identity() -> Self {
        IdMap(vec![IdRange {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        }])
    }

    /// Reads the text of a map of the kernel; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let range = |line: &str| {
            let mut words = line.split_whitespace().map(str::parse);
            let range = IdRange {
                inside: words.next()?.ok()?,
                outside: words.next()?.ok()?,
                count: words.next()?.ok()?,
            };
            words.next().is_none().then_some(range)
        };
        text.lines().map(range).collect::<Option<_>>().map(IdMap)
    }

    /// The host's id of an id of the container; `None` when it is not mapped.
    pub fn outside(&self, id: u32) -> Option<u32> {
        let mut ranges = self.0.iter();
        let range = ranges.find(|range| id >= range.inside && id - range.inside < range.count)?;
        range.outside.checked_add(id - range.inside)
    }

    /// The container's id of an id of the host; `None` when it is not mapped.
    pub fn inside(&self, id: u32) -> Option<u32> {
        let mut ranges = self.0.iter();
        let range = ranges.find(|range| id >= range.outside && id - range.outside < range.count)?;
        range.inside.checked_add(id - range.outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_within_their_ranges() {
        let map =
            IdMap::parse("         0     100000      10\n        10          5       1\n").unwrap();
        assert_eq!(map.outside(0), Some(100_000));
        assert_eq!(map.outside(9), Some(100_009));
        assert_eq!(map.outside(10), Some(5));
        assert_eq!(map.outside(11), None);
        assert_eq!((map.inside(100_009), map.inside(5)), (Some(9), Some(10)));
        assert_eq!(map.inside(100_010), None);
        assert_eq!(IdMap::identity().outside(1234), Some(1234));
        assert_eq!(
            IdMap::parse("         0          0 4294967295\n"),
            Some(IdMap::identity())
        );
        assert_eq!(IdMap::parse("x"), None);
        assert_eq!(IdMap::parse("1 2 3 4"), None);
    }
}
