//! Events: from a sequence, from a time, followed through a restart, as CloudEvents, with gaps.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixture::{line, signal};
use super::{Node, Way, both_ways, code, shown};

both_ways!(
    stored_events_from_a_sequence_or_a_time,
    cloud_events_have_what_the_specification_requires,
    what_is_no_longer_stored_is_a_gap,
    who_follows_from_a_sequence_gets_the_stored_ones_first
);

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn sequences(text: &str) -> Vec<u64> {
    let events = lines(text);
    events
        .iter()
        .map(|event| event["sequence"].as_u64().unwrap())
        .collect()
}

fn stored_events_from_a_sequence_or_a_time(node: &Node) {
    node.ok(&["volume", "create", "a"]);
    let all = sequences(&node.ok(&["events", "-o", "jsonl"]));
    let last = *all.last().unwrap();
    assert_eq!(all, (1..=last).collect::<Vec<_>>());
    let since = (last - 1).to_string();
    let some = sequences(&node.ok(&["events", "--since", &since, "-o", "jsonl"]));
    assert_eq!(some, [last - 1, last]);
    let beyond = (last + 1).to_string();
    assert_eq!(node.ok(&["events", "--since", &beyond]), "");

    let hour = sequences(&node.ok(&["events", "--since", "1h", "-o", "jsonl"]));
    assert_eq!(hour, all);
    let events = lines(&node.ok(&["events", "-o", "jsonl"]));
    let time = events.last().unwrap()["time"].as_str().unwrap();
    let from = sequences(&node.ok(&["events", "--since", time, "-o", "jsonl"]));
    assert_eq!(from.last(), Some(&last));
    assert!(from.len() <= 2, "{from:?}");
    assert_eq!(node.ok(&["events", "--since", "2100-01-01T00:00:00Z"]), "");

    let created = ["--filter", "change==created,kind==volume"];
    let text = node.ok(&["events", created[0], created[1]]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("volume://volumes/a"), "{text}");
    let refused = node.run(&["events", "--filter", "colour==red"]);
    assert_eq!(code(&refused), Some(2), "{}", shown(&refused));
}

fn cloud_events_have_what_the_specification_requires(node: &Node) {
    let ran = node.run(&["run", "busybox", "sh", "-c", "exit 3"]);
    assert_eq!(code(&ran), Some(3), "{}", shown(&ran));
    let events = lines(&node.ok(&["events", "-o", "cloudevents"]));
    let mut ids = BTreeSet::new();
    for event in &events {
        assert_eq!(event["specversion"], "1.0");
        let source = event["source"].as_str().unwrap();
        let data_dir = node.data_dir();
        assert!(source.starts_with("portlayer://") && source.ends_with(data_dir.to_str().unwrap()));
        assert!(event["type"].as_str().unwrap().starts_with("io.portlayer."));
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
        assert!(
            ids.insert(event["id"].as_str().unwrap().to_owned()),
            "{event}"
        );
    }
    let ended = events.iter().find_map(|event| {
        let exit = &event["data"]["change"]["unbound"]["exit"];
        exit.is_object().then_some((event, exit))
    });
    let (event, exit) = ended.unwrap();
    assert_eq!(event["type"], "io.portlayer.unbound");
    assert!(event["subject"].as_str().unwrap().starts_with("task://"));
    assert_eq!(exit["code"], 3);
}

fn what_is_no_longer_stored_is_a_gap(node: &Node) {
    node.configure("[ledger]\nevent_retention = 4\n");
    for name in ["a", "b", "c", "d", "e", "f"] {
        node.ok(&["volume", "create", name]);
    }
    let events = lines(&node.ok(&["events", "-o", "jsonl"]));
    let at = events
        .iter()
        .position(|event| event["change"]["gap"].is_object());
    let at = at.unwrap();
    let gap = &events[at]["change"]["gap"];
    let (from, to) = (gap["from"].as_u64().unwrap(), gap["to"].as_u64().unwrap());
    assert_eq!(events[at + 1]["sequence"], to + 1);
    assert_eq!(events.len(), at + 5, "four are kept");
    let text = node.ok(&["events"]);
    assert!(
        text.contains(&format!("events {from} to {to} are not here")),
        "{text}"
    );
    let cloud = lines(&node.ok(&["events", "-o", "cloudevents"]));
    assert_eq!(cloud[at]["type"], "io.portlayer.gap");
    assert_eq!(cloud[at]["id"], format!("gap-{from}-{to}"));
    assert_eq!(cloud[at].get("subject"), None);
    // A filter holds no gap back.
    let only = node.ok(&["events", "--filter", "kind==log"]);
    assert_eq!(only.lines().count(), 1, "{only}");
}

fn who_follows_from_a_sequence_gets_the_stored_ones_first(node: &Node) {
    node.ok(&["volume", "create", "a"]);
    let stored = lines(&node.ok(&["events", "-o", "jsonl"]));
    for form in ["jsonl", "cloudevents"] {
        let mut child = follow(node, "1", form, &[]);
        for event in &stored {
            let told: Value = serde_json::from_str(&line(&mut child)).unwrap();
            match form {
                "jsonl" => assert_eq!(&told, event),
                _ => assert_eq!(told["id"], event["sequence"].to_string()),
            }
        }
        signal(&child, Signal::SIGINT);
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}

/// A command that follows from a sequence on.
pub(super) fn follow(node: &Node, since: &str, form: &str, more: &[&str]) -> Child {
    let args = ["events", "-f", "--since", since, "-o", form];
    node.command(&[&args, more].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn next(child: &mut Child) -> (u64, String) {
    let event: Value = serde_json::from_str(&line(child)).unwrap();
    let id = event["id"].as_str().unwrap().to_owned();
    (event["sequence"].as_u64().unwrap(), id)
}

#[test]
fn who_follows_misses_nothing_when_the_daemon_is_restarted() {
    let node = Node::with(Way::Daemon, "");
    let created = ["--filter", "change==created"];
    let mut child = follow(&node, "1", "jsonl", &created);
    loop {
        let (_, id) = next(&mut child);
        if id == "image://images/busybox" {
            break;
        }
    }
    node.ok(&["volume", "create", "a"]);
    let (first, id) = next(&mut child);
    assert_eq!(id, "volume://volumes/a");
    node.restart();
    node.ok(&["volume", "create", "b"]);
    let (second, id) = next(&mut child);
    assert_eq!(id, "volume://volumes/b");
    assert!(second > first);
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));

    // Another resumes where it was.
    node.ok(&["volume", "create", "c"]);
    let mut child = follow(&node, &(second + 1).to_string(), "jsonl", &created);
    assert_eq!(next(&mut child).1, "volume://volumes/c");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
