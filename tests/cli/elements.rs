//! Elements: lists, filters, history, what is shown of hostile ones, data out and in.

use super::{Node, both_ways, code};

both_ways!(
    lists_filters_events_and_history,
    hostile_metadata_stays_in_its_cell,
    volumes_go_out_and_in_again,
);

fn lists_filters_events_and_history(node: &Node) {
    let images = node.json(&["ls", "-o", "json", "-f", "label=team=a"]);
    assert_eq!(images[0]["id"], "image://images/busybox");
    assert_eq!(images.as_array().unwrap().len(), 1);
    assert_eq!(
        node.ok(&["ls", "-q", "-f", "kind==image,labels.team~=^a$"]),
        "image://images/busybox\n"
    );
    node.ok(&["update", "image://images/busybox", "team-", "owner=me"]);
    let shown = node.json(&["show", "image://images/busybox", "-o", "json"]);
    assert_eq!(shown["rw"], serde_json::json!({"owner": "me"}));
    assert_eq!(code(&node.run(&["ls", "-f", "colour==red"])), Some(2));

    let events = node.ok(&[
        "events",
        "-o",
        "jsonl",
        "--filter",
        "id==\"image://images/busybox\"",
    ]);
    let kinds: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["change"].to_string())
        .collect();
    assert_eq!(
        kinds,
        [r#""created""#, r#"{"modified":{"keys":["owner","team"]}}"#]
    );
    let rows = node.json(&["history", "image://images/busybox", "-o", "json"]);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["actor"], "uid 0");
    node.ok(&["verify"]);
    let inspected = node.json(&["inspect", "image://images/busybox"]);
    assert_eq!(inspected[0]["audit"].as_array().unwrap().len(), 2);
}

fn hostile_metadata_stays_in_its_cell(node: &Node) {
    let hostile = "evil=\u{1b}]0;pwned\u{7}\u{9b}2J\u{202e}\nimage://images/forged ready";
    node.ok(&["volume", "create", "v", "--rw", hostile]);
    for args in [
        &["volume", "ls"][..],
        &["volume", "ls", "-o", "wide"],
        &["show", "volume://volumes/v"],
        &["volume", "ls", "-o", "json"],
        &["volume", "ls", "-o", "yaml"],
        &["volume", "ls", "-o", "jsonl"],
    ] {
        let text = node.ok(args);
        let active = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(active), "{args:?}: {text:?}");
        assert!(
            !text.lines().any(|line| line.starts_with("image://")),
            "{args:?}: {text}"
        );
    }
    let back = node.json(&["volume", "ls", "-o", "json"]);
    assert_eq!(
        back[0]["rw"]["evil"],
        hostile.strip_prefix("evil=").unwrap()
    );
}

fn volumes_go_out_and_in_again(node: &Node) {
    node.ok(&["volume", "create", "a"]);
    node.ok(&[
        "run",
        "-v",
        "a:/a",
        "busybox",
        "sh",
        "-c",
        "echo content > /a/file",
    ]);
    let tar = node.directory.join("a.tar");
    let tar = tar.to_str().unwrap();
    node.ok(&["volume", "export", "a", "-O", tar]);
    node.ok(&["volume", "create", "b", "--from", tar]);
    assert_eq!(
        node.ok(&["run", "-v", "b:/b", "busybox", "cat", "/b/file"]),
        "content\n"
    );
    let wrong = format!("sha256:{}", "0".repeat(64));
    let refused = node.run(&["volume", "create", "c", "--from", tar, "--checksum", &wrong]);
    assert!(!refused.status.success());
    assert_eq!(code(&node.run(&["show", "volume://volumes/c"])), Some(3));
}
