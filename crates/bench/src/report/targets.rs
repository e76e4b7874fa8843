//! What the port layer must reach, as ratios and bounds: shown by the benchmark, asserted nowhere.

use serde::{Deserialize, Serialize};

use super::Group;
use crate::tasks::names;

/// What the measured groups say about the targets; a group that was not measured says nothing.
pub(crate) fn of(groups: &[Group]) -> Vec<Target> {
    let median = |key: &str, name: &str| {
        let group = groups.iter().find(|group| group.key == key)?;
        group.median(name)
    };
    let ratio = |key: &str, name: &str, base: &str| Some(median(key, name)? / median(key, base)?);
    let mut targets = Vec::new();
    for (key, pace) in [
        ("task_exit_spaced", "spaced"),
        ("task_exit_back_to_back", "back to back"),
    ] {
        let mut at_most = |what: &str, bound: f64, measured: Option<f64>| {
            let name = format!("{what}, {pace}");
            targets.extend(measured.map(|measured| Target::at_most(&name, bound, measured)));
        };
        let layer = |base: &str| ratio(key, names::LAYER, base);
        let alike = |base: &str| ratio(key, names::LAYER_HOST_USERS, base);
        at_most("commit to exit / direct client", 1.10, layer(names::DIRECT));
        at_most(
            "commit to exit / direct client, output stored",
            1.10,
            layer(names::DIRECT_STORED),
        );
        at_most(
            "commit to exit / direct client, output stored, own user ids",
            1.10,
            layer(names::DIRECT_USERS),
        );
        at_most(
            "commit to exit with the host's user ids / direct client",
            1.10,
            alike(names::DIRECT),
        );
        at_most(
            "commit to exit with the host's user ids / direct client, output stored",
            1.10,
            alike(names::DIRECT_STORED),
        );
        at_most("commit to exit / ctr run --rm", 1.0, layer(names::CTR));
        let further = ratio(key, names::LAYER_FURTHER, names::CTR);
        at_most("a further task / ctr run --rm", 1.0 / 3.0, further);
    }
    let sizes = groups
        .iter()
        .filter(|group| group.key == "element_access" || group.key == "element_open")
        .flat_map(|group| &group.figures);
    let create = ratio("element_writes", "create @16", "create @1");
    targets.extend(create.map(|r| Target::at_least("durable creates, 16 writers / one", 4.0, r)));
    for figure in sizes {
        let bound = match figure.name.rsplit_once(" @") {
            Some(("read", _)) => 25.0,
            Some(("page under a prefix", _)) => 500.0,
            Some(("open", "1000000")) => 6_000.0,
            _ => continue,
        };
        let unit = if figure.name.starts_with("open") {
            "ms"
        } else {
            "us"
        };
        let name = format!("{} elements, {unit}", figure.name);
        targets.push(Target::at_most(&name, bound, figure.summary.median));
    }
    let memory = median("element_memory", "idle @100000");
    targets.extend(memory.map(|m| Target::at_most("idle @100000 elements, MiB", 150.0, m)));
    let diego = median("diego_exit", names::DIEGO).zip(median("diego_exit", names::STEPS));
    let added = diego.map(|(diego, steps)| diego - steps);
    targets.extend(added.map(|ms| Target::at_most("added by Diego's front end, ms", 5.0, ms)));
    let read = median("serve_read", "read");
    targets.extend(read.map(|us| Target::at_most("read over the socket, us", 150.0, us)));
    let one = median("serve_events", "stored, to one");
    targets.extend(one.map(|rate| Target::at_least("events to one subscriber, /s", 1e5, rate)));
    let growth = median("serve_memory", "growth");
    targets.extend(growth.map(|mib| Target::at_most("growth with 12 subscribers, MiB", 16.0, mib)));
    targets
}

/// A bound and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) bound: Bound,
    pub(crate) measured: f64,
}

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Bound::AtMost(_) => "<=",
            Bound::AtLeast(_) => ">=",
        }
    }

    pub(crate) fn value(self) -> f64 {
        match self {
            Bound::AtMost(value) | Bound::AtLeast(value) => value,
        }
    }
}

impl Target {
    pub(crate) fn at_most(name: &str, bound: f64, measured: f64) -> Self {
        Self {
            name: name.to_owned(),
            bound: Bound::AtMost(bound),
            measured,
        }
    }

    pub(crate) fn at_least(name: &str, bound: f64, measured: f64) -> Self {
        Self {
            name: name.to_owned(),
            bound: Bound::AtLeast(bound),
            measured,
        }
    }

    pub(crate) fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.measured <= bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        }
    }
}
