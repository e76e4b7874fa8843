//! What the daemon measures, as a scraper reads it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

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
        code(&node.run(&["run", "busybox", "sh", "-c", "exit 3"])),
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
    ] {
        let found = value(&text, name);
        assert!(found >= least, "{name} is {found}");
    }
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 404"));
}
