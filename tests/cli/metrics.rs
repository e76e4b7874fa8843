//! What the daemon measures, as a scraper reads it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::Signal;

use super::events::follow;
use super::fixture::{line, signal};
use super::{Node, Way, code};

/// One answer, headers and all.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{name}:\n{text}"));
    line.trim().parse().unwrap()
}

#[test]
fn metrics_tell_what_was_done() {
    // Free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = free.to_string();
    let node = Node::with(Way::Daemon, &format!("[serve]\nmetrics = '{address}'\n"));
    node.ok(&["volume", "create", "v"]);
    assert_eq!(
        code(&node.run(&["run", "busybox", "sh", "-c", "echo said; exit 3"])),
        Some(3)
    );
    assert_eq!(code(&node.run(&["show", "task://tasks/none"])), Some(3));
    let text = get(&address, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("application/openmetrics-text"), "{text}");
    for (name, least) in [
        (r#"portlayer_elements{kind="volume",state="ready"}"#, 1.0),
        (r#"portlayer_elements{kind="image",state="ready"}"#, 2.0),
        (
            r#"portlayer_calls_total{method="CompositionsService/Commit",code="ok"}"#,
            1.0,
        ),
        (
            r#"portlayer_calls_total{method="ElementsService/Read",code="not_found"}"#,
            1.0,
        ),
        (
            r#"portlayer_call_seconds_count{method="ElementsService/Read"}"#,
            1.0,
        ),
        (
            r#"portlayer_changes_total{kind="volume",change="created"}"#,
            1.0,
        ),
        (r#"portlayer_task_exits_total{reason="exited"}"#, 1.0),
        ("portlayer_events_sequence", 3.0),
        ("portlayer_engine_up", 1.0),
        ("portlayer_event_subscribers", 0.0),
        ("portlayer_event_gaps_total", 0.0),
        ("portlayer_ledger_groups_total", 3.0),
        ("portlayer_ledger_records_total", 9.0),
        ("portlayer_ledger_bytes_total", 100.0),
        ("portlayer_ledger_sync_seconds_total", 1e-9),
        ("portlayer_logs_bytes_total", 5.0),
        ("portlayer_logs_dropped_bytes_total", 0.0),
        ("portlayer_recovery_seconds", 1e-9),
        ("portlayer_engine_losses_total", 0.0),
    ] {
        let found = value(&text, name);
        assert!(found >= least, "{name} is {found}");
    }
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    // Whoever comes too late is told a gap, and that is counted.
    node.configure(&format!(
        "[serve]\nmetrics = '{address}'\n[ledger]\nevent_retention = 4\n"
    ));
    for name in ["a", "b", "c", "d", "e", "f"] {
        node.ok(&["volume", "create", name]);
    }
    let mut child = follow(&node, "1", "jsonl", &[]);
    // What was stored before is there still.
    while !line(&mut child).contains("\"gap\"") {}
    signal(&child, Signal::SIGINT);
    child.wait().unwrap();
    let text = get(&address, "/metrics");
    assert!(value(&text, "portlayer_event_gaps_total") >= 1.0, "{text}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 404"));
}
