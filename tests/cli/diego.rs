//! Diego's verbs, as its own tool has them.

use std::process::Stdio;

use serde_json::{Value, json};

use super::{Node, Way, both_ways, code, read_until, shown};

both_ways!(
    a_task_is_created_looked_at_and_deleted,
    refusals_have_the_texts_of_diego,
);

fn definition(guid: &str, script: &str) -> Value {
    json!({
        "task_guid": guid, "domain": "d", "rootfs": "preloaded:busybox", "log_guid": guid, "log_source": "APP",
        "result_file": "/result",
        "action": { "run": { "path": "/bin/sh", "args": ["-c", script], "user": "root" } },
    })
}

fn a_task_is_created_looked_at_and_deleted(node: &Node) {
    let task = definition("t-1", "echo said; echo kept > /result; exit 3");
    let file = node.directory.join("task.json");
    std::fs::write(&file, task.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let created = node.run(&["diego", "create-task", "-f", file, "--wait"]);
    assert_eq!(code(&created), Some(1), "{}", shown(&created));
    let told: Value = serde_json::from_slice(&created.stdout).unwrap();
    for (field, value) in [
        ("task_guid", json!("t-1")),
        ("state", json!("Completed")),
        ("failed", json!(true)),
        ("failure_reason", json!("APP: Exited with status 3")),
        ("result", json!("kept\n")),
        ("rootfs", json!("preloaded:busybox")),
        ("cell_id", json!("")),
    ] {
        assert_eq!(told[field], value, "{field}: {told}");
    }
    // Its record outlives the command, and the commands after it.
    assert_eq!(node.json(&["diego", "task", "t-1"])["state"], "Completed");
    let listed = node.ok(&["diego", "tasks", "-d", "d"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert_eq!(node.ok(&["diego", "tasks", "-d", "other"]), "");
    if node.way == Way::Daemon {
        let lines = node.ok(&["diego", "task-logs", "t-1"]);
        assert!(lines.contains("[APP] said\n"), "{lines}");
        node.ok(&["diego", "set-domain", "d", "--ttl", "60"]);
        assert_eq!(node.ok(&["diego", "domains"]), "\"d\"\n");
    }
    assert_eq!(node.ok(&["diego", "delete-task", "t-1"]), "");
    assert_eq!(node.ok(&["diego", "tasks"]), "");
    nothing_runs(node);
}

/// A container may outlive the end of its task for a moment.
fn nothing_runs(node: &Node) {
    let since = std::time::Instant::now();
    while !node.ok(&["ps", "-q"]).is_empty() {
        assert!(since.elapsed().as_secs() < 60, "something runs");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn refusals_have_the_texts_of_diego(node: &Node) {
    let mut task = definition("t 2", "true");
    task["domain"] = json!("");
    for (args, text) in [
        (
            &["diego", "create-task", &task.to_string()][..],
            "Invalid field: task_guid, Invalid field: domain",
        ),
        (
            &["diego", "task", "nobody"],
            "the requested resource could not be found",
        ),
        (
            &["diego", "cancel-task", "nobody"],
            "the requested resource could not be found",
        ),
    ] {
        let refused = node.run(args);
        assert!(!refused.status.success(), "{args:?}: {}", shown(&refused));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(text), "{args:?}: {said}");
    }
}

/// A watcher sees a task come, change and go; one that is cancelled is completed at once.
#[test]
fn events_tell_the_life_of_a_cancelled_task() {
    let node = Node::served();
    let mut watcher = node
        .command(&["diego", "task-events"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The subscription stands when the first event came; whatever is desired before may be missed.
    let task = definition("t-3", "echo begun; sleep 1000");
    std::thread::sleep(std::time::Duration::from_secs(1));
    node.ok(&["diego", "create-task", &task.to_string()]);
    read_until(&mut watcher, "\"type\":\"task_created\"");
    let follow = node
        .command(&["diego", "task-logs", "t-3", "--follow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut follow = follow.unwrap();
    read_until(&mut follow, "[APP] begun");
    node.ok(&["diego", "cancel-task", "t-3"]);
    let told = node.json(&["diego", "task", "t-3"]);
    assert_eq!(told["failure_reason"], "task was cancelled");
    read_until(&mut watcher, "task was cancelled");
    let again = node.run(&["diego", "cancel-task", "t-3"]);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(
        said.contains("Cannot transition from Completed to Completed"),
        "{said}"
    );
    node.ok(&["diego", "delete-task", "t-3"]);
    read_until(&mut watcher, "\"type\":\"task_removed\"");
    for mut child in [watcher, follow] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    nothing_runs(&node);
}
