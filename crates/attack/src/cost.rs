//! What isolation adds to one task, from the commit to its exit record, and what many rules of egress do.

use std::time::{Duration, Instant};

use anyhow::Result;
use portlayer::{
    PortLayer,
    element::{ElementId, Kind, NewElement, Spec},
    network::{EgressRule, NetworkUse, Protocol},
    task::{ExecutorSpec, Isolation},
};

use crate::node::{finish, image, many_files, on_a_node, script, start};

/// What may be added (issue 4).
const MOST_ADDED: Duration = Duration::from_millis(15);
/// Files of the large image.
const FILES: u32 = 20_000;
/// Rules of the executor that has many, and how long they may take to load (issue 4).
const RULES: u32 = 500;
const MOST_FOR_RULES: Duration = Duration::from_millis(100);
/// The network they are of.
const BRIDGE: &str = "cost";

/// A way to run the same task: name, image, isolation, network.
type Way = (
    &'static str,
    &'static str,
    Isolation,
    Option<(&'static str, NetworkUse)>,
);

/// One rule for both families each, none like another.
fn egress(count: u32) -> NetworkUse {
    let rules = (0..count).map(|number| EgressRule {
        protocol: Protocol::Tcp,
        destinations: vec![
            format!("100.64.{}.{}/31", number / 128, (number % 128) * 2),
            format!("2001:db8:{:x}::/48", number + 100),
        ],
        ports: vec![
            "443".to_owned(),
            format!("{}-{}", 1000 + number, 2000 + number),
        ],
        ..EgressRule::default()
    });
    NetworkUse {
        egress: Some(rules.collect()),
        ..NetworkUse::default()
    }
}

fn ways() -> [Way; 6] {
    let host = Isolation {
        host_users: true,
        ..Isolation::default()
    };
    let bare = Isolation {
        privileged: true,
        ..Isolation::default()
    };
    [
        (
            "bare",
            "busybox",
            bare,
            Some(("host", NetworkUse::default())),
        ),
        ("default", "busybox", Isolation::default(), None),
        ("large, host users", "large", host, None),
        ("large, default", "large", Isolation::default(), None),
        (
            "bridge, 1 rule",
            "busybox",
            Isolation::default(),
            Some((BRIDGE, egress(1))),
        ),
        (
            "bridge, 500 rules",
            "busybox",
            Isolation::default(),
            Some((BRIDGE, egress(RULES))),
        ),
    ]
}

/// Measures them in turns. True: less than the bound was added.
pub(crate) async fn run(rounds: u32) -> Result<bool> {
    let medians = on_a_node(async |layer| {
        let base: ElementId = "image://images/busybox".parse()?;
        image(layer, "large", Some(&base), many_files(FILES)).await?;
        let bridge = ElementId::new(Kind::Network, "node", BRIDGE)?;
        let settings = [
            ("subnet4".to_owned(), "10.254.77.0/24".to_owned()),
            ("subnet6".to_owned(), "fd00:706c:4d::/64".to_owned()),
        ];
        let settings = Spec::Network(settings.into_iter().collect());
        layer
            .create(NewElement::new(bridge.clone(), settings))
            .await?;
        let mut times = [const { Vec::new() }; 6];
        // The first round warms up.
        for round in 0..=rounds {
            for (way, times) in ways().into_iter().zip(&mut times) {
                let time = one(layer, round, way).await?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        layer.delete(&bridge).await?;
        Ok(times.map(median))
    })
    .await?;
    for ((name, ..), time) in ways().iter().zip(&medians) {
        println!("{name:<18} median {:6.1} ms", milliseconds(*time));
    }
    let [bare, default, large_host, large, one_rule, many_rules] = medians;
    let added = default.saturating_sub(bare);
    let mapping = large.saturating_sub(large_host);
    let rules = many_rules.saturating_sub(one_rule);
    let held = added < MOST_ADDED && rules < MOST_FOR_RULES;
    println!(
        "added by user ids, filter and network name space: {:.1} ms",
        milliseconds(added)
    );
    println!(
        "added by user ids over an image of {FILES} files: {:.1} ms",
        milliseconds(mapping)
    );
    println!(
        "added by {RULES} rules of egress: {:.1} ms",
        milliseconds(rules)
    );
    let report = serde_json::json!({
        "attack": "cost", "held": held, "rounds": rounds,
        "bare_ms": milliseconds(bare), "default_ms": milliseconds(default), "added_ms": milliseconds(added),
        "large_host_users_ms": milliseconds(large_host), "large_default_ms": milliseconds(large),
        "mapping_large_ms": milliseconds(mapping),
        "one_rule_ms": milliseconds(one_rule), "many_rules_ms": milliseconds(many_rules),
        "rules": RULES, "rules_ms": milliseconds(rules),
    });
    println!("{report}");
    Ok(held)
}

async fn one(
    layer: &PortLayer,
    round: u32,
    (name, image, isolation, network): Way,
) -> Result<Duration> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let executor = ExecutorSpec {
        isolation,
        ..ExecutorSpec::default()
    };
    let begun = Instant::now();
    let plan = (executor, script("exit 0"));
    let started = start(layer, &format!("{name}-{round}"), plan, image, network).await?;
    layer.wait(&started.executor, &started.task, None).await?;
    let time = begun.elapsed();
    finish(layer, &started).await?;
    Ok(time)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
