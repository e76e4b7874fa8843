//! What goes into a node and comes out of it: import, the ledger, settings of logs.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Node, Way, both_ways, code, shown};

both_ways!(
    import_makes_images_and_volumes,
    a_ledger_goes_out_and_in_again,
    bounds_of_logs_are_the_configuration_s,
    how_far_a_log_has_got_is_shown,
    a_setting_that_is_no_more_is_an_error,
    info_says_what_the_node_stands_on,
);

fn import_makes_images_and_volumes(node: &Node) {
    let tree = node.directory.join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("f"), "from a directory\n").unwrap();
    let tree = tree.to_str().unwrap();
    node.ok(&["import", "volume://volumes/v", tree, "--rw", "team=a"]);
    let volume = node.json(&["show", "volume://volumes/v", "-o", "json"]);
    assert_eq!(volume["rw"]["team"], "a");
    assert_eq!(
        node.ok(&["run", "-v", "v:/v", "busybox", "cat", "/v/f"]),
        "from a directory\n"
    );

    let archive = node.directory.join("busybox.tar");
    let path = archive.to_str().unwrap();
    node.ok(&["image", "export", "busybox", "-O", path]);
    let output = node
        .command(&["import", "image://images/again", "-"])
        .stdin(Stdio::from(File::open(&archive).unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(node.ok(&["run", "again", "echo", "runs"]), "runs\n");

    for (id, status) in [("task://tasks/t", 2), ("name", 2)] {
        let refused = node.run(&["import", id, tree]);
        assert_eq!(code(&refused), Some(status), "{}", shown(&refused));
    }
    let missing = node.run(&["import", "volume://volumes/w", "/no/such/file"]);
    assert_eq!(code(&missing), Some(3), "{}", shown(&missing));
}

fn a_ledger_goes_out_and_in_again(node: &Node) {
    node.ok(&["task", "create", "t", "--rw", "a=b", "--", "true"]);
    let first = node.directory.join("first.jsonl");
    let first = first.to_str().unwrap();
    if node.way == Way::Daemon {
        let refused = node.run(&["ledger", "export"]);
        assert!(!refused.status.success(), "the daemon has it");
        node.end_daemon();
    }
    node.ok(&["ledger", "export", "-O", first]);
    let other = node.directory.join("other");
    let other = other.to_str().unwrap();
    node.ok(&["--data-dir", other, "ledger", "import", first]);
    let again = node.ok(&["--data-dir", other, "ledger", "export"]);
    assert_eq!(again, std::fs::read_to_string(first).unwrap());
    assert!(again.contains("task://tasks/t"));
    let refused = node.run(&["--data-dir", other, "ledger", "import", first]);
    assert!(!refused.status.success(), "a ledger that is not empty");
    node.ok(&["ledger", "check"]);
    node.restart();
}

fn bounds_of_logs_are_the_configuration_s(node: &Node) {
    node.configure("[logs]\nfile = '4k'\nfiles = 2\n");
    // More than the bounds; the last line is what is certainly kept.
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"line $i\"; i=$((i+1)); done; echo last";
    node.ok(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]);
    node.ok(&["wait", "box"]);
    let kept = node.ok(&["logs", "box"]);
    assert!(kept.ends_with("\nlast\n"));
    assert!(!kept.contains("line 0\n"), "{} bytes", kept.len());
}

fn how_far_a_log_has_got_is_shown(node: &Node) {
    let path = node.directory.join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let path = path.to_str().unwrap();
    node.configure(&format!("[logs]\ndestinations = ['unix:{path}']\n"));
    let socket = format!("socket={path}");
    node.ok(&[
        "log",
        "create",
        "audit",
        "--set",
        "kind=journald",
        "--set",
        &socket,
        "--set",
        "line=16",
    ]);
    let script = "echo 0123456789abcdefX; echo two";
    node.ok(&[
        "run", "-d", "--name", "box", "--log", "audit", "busybox", "sh", "-c", script,
    ]);
    node.ok(&["wait", "box"]);
    // Each command that opens the node itself sends on for as long as it lasts.
    let begun = Instant::now();
    let progress = loop {
        let found = node.json(&["logs", "box", "--sent", "-o", "jsonl"]);
        if found["done"] == true {
            break found;
        }
        assert!(begun.elapsed().as_secs() < 60, "{found}");
    };
    let expected = serde_json::json!({
        "log": "log://node/audit", "sent_lines": 2, "dropped_lines": 0, "cut_bytes": 1,
        "lost_bytes": 0, "done": true,
    });
    assert_eq!(progress, expected);
    let mut message = [0; 4096];
    assert!(journal.recv(&mut message).unwrap() > 0);
    let table = node.ok(&["logs", "box", "--sent"]);
    assert!(
        table.contains("DROPPED LINES") && table.contains("log://node/audit"),
        "{table}"
    );
    // One that is sent nowhere has no progress.
    node.ok(&["run", "-d", "--name", "plain", "busybox", "true"]);
    assert_eq!(node.ok(&["logs", "plain", "--sent", "-o", "jsonl"]), "");
}

fn a_setting_that_is_no_more_is_an_error(node: &Node) {
    let config = node.directory.join("wrong.toml");
    std::fs::write(&config, "[engine]\nmode = 'system'\n").unwrap();
    let refused = node.run(&["--config", config.to_str().unwrap(), "ls"]);
    assert_eq!(code(&refused), Some(2), "{}", shown(&refused));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("mode"));
}

fn info_says_what_the_node_stands_on(node: &Node) {
    let text = node.ok(&["info"]);
    for name in ["containerd ", "runc ", "kernel", "cgroups", "overlayfs"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    let info = node.json(&["info", "-o", "json"]);
    assert_eq!(info["engine"]["snapshotter"], "overlayfs");
    assert_eq!(info["elements"]["volume"], 0);
    assert_eq!(info["elements"]["image"], 2, "busybox and the built-in one");
    assert_eq!(info["health"], "serving");
    let mode = if node.way == Way::Daemon {
        "daemon"
    } else {
        "embedded"
    };
    assert_eq!(info["mode"], mode);
    if node.way == Way::Daemon {
        assert_eq!(info["endpoint"], node.socket().to_str().unwrap());
        return;
    }
    let missing = node
        .command(&["info"])
        .env("PORTLAYER_RUNC", "/no/such/runc")
        .output()
        .unwrap();
    assert!(!missing.status.success());
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("/no/such/runc"),
        "{}",
        shown(&missing)
    );
}
