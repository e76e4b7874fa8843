//! The daemon and the commands: who finds whom, and that two processes never share a ledger.

use std::process::{Command, Output};

use super::{Node, Way, both_ways, code, shown};

both_ways!(refusals_say_everything_they_know);

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_daemon_the_error_says_what_was_tried_and_what_else_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("portlayer.sock");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portlayer"));
        let command = command
            .env_clear()
            .env("PORTLAYER_DATA_DIR", directory.path());
        command.args(args).output().unwrap()
    };
    for (args, status) in [
        (&["ls"][..], 9),
        (&["events", "-f"], 9),
        (&["task", "create", "t", "--", "true"], 9),
        (&["run", "busybox", "true"], 125),
        (&["wait", "box"], 125),
    ] {
        let output = run(args);
        assert_eq!(code(&output), Some(status), "{args:?}: {}", shown(&output));
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in [socket.to_str().unwrap(), "portlayer serve", "--embedded"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    // A socket nobody listens on is no daemon either.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let output = run(&["ls"]);
    assert_eq!(code(&output), Some(9));
    assert!(
        stderr(&output).contains("Connection refused"),
        "{}",
        shown(&output)
    );
    // These need none.
    for args in [
        &["version"][..],
        &["config", "dump"],
        &["completion", "bash"],
    ] {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
    }
}

#[test]
fn two_processes_never_share_a_ledger() {
    let node = Node::served();
    let socket = node.socket();
    let socket = socket.to_str().unwrap();
    for args in [
        &["--embedded", "ls"][..],
        &["--embedded", "run", "busybox", "true"],
        &["ledger", "check"],
        &["engine", "stop", "--force"],
        &["engine", "clean", "--yes"],
    ] {
        let refused = node.run(args);
        assert!(!refused.status.success(), "{args:?}: {}", shown(&refused));
        let said = stderr(&refused);
        assert!(
            said.contains(socket) && said.contains("--embedded"),
            "{args:?}: {said}"
        );
    }
    let second = node.run(&["serve"]);
    assert!(!second.status.success(), "{}", shown(&second));
    assert_eq!(node.ok(&["image", "ls", "-q"]), "image://images/busybox\n");

    // A data directory on the command line is the daemon's while there is one.
    let data_dir = node.data_dir();
    let here = |args: &[&str]| {
        let mut all = vec!["--data-dir", data_dir.to_str().unwrap()];
        all.extend(args);
        let output = node.bare(&all).output().unwrap();
        assert!(output.status.success(), "{all:?}: {}", shown(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(here(&["info", "-o", "json"])["mode"], "daemon");
    let version = here(&["version", "-o", "json"]);
    assert_eq!(version["daemon"]["endpoint"], socket);
    node.end_daemon();
    assert_eq!(here(&["info", "-o", "json"])["mode"], "embedded");
    node.restart();
}

#[test]
fn what_runs_goes_on_without_the_daemon_and_is_there_again_after_it() {
    let node = Node::served();
    let script = "trap 'exit 3' TERM; echo started; while :; do sleep 0.05; done";
    node.ok(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]);
    let mut waiting = node.command(&["wait", "box"]);
    let waiting = waiting.stdout(std::process::Stdio::null()).spawn().unwrap();
    // Its call and that of info itself.
    while node.json(&["info", "-o", "json"])["process"]["calls"] != 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.restart();
    assert_eq!(node.json(&["ps", "-o", "json"])[0]["state"], "running");
    node.ok(&["stop", "box"]);
    // It was asked before the daemon ended, and its patience outlived the break.
    let waited = waiting.wait_with_output().unwrap();
    assert_eq!(code(&waited), Some(3), "{}", shown(&waited));
    assert_eq!(node.ok(&["logs", "box"]), "started\n");
    node.ok(&["rm", "-f", "executor://executors/box", "task://tasks/box"]);
}

#[test]
fn names_are_those_of_the_daemon_s_locations() {
    let node = Node::with(
        Way::Daemon,
        "[[locations]]\nname = 'images'\nkinds = ['image']\nbacking = { type = 'overlay' }\n\
         [[locations]]\nname = 'disk'\nkinds = ['volume']\nbacking = { type = 'dir' }\n\
         [[locations]]\nname = 'tasks'\nkinds = ['task']\n",
    );
    let mut command = node.bare(&["volume", "create", "v", "-q"]);
    // The command itself has another configuration.
    let output = command.env_remove("PORTLAYER_CONFIG").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "volume://disk/v\n");
}

fn refusals_say_everything_they_know(node: &Node) {
    let refused = node.run(&["show", "task://tasks/none"]);
    assert_eq!(code(&refused), Some(3));
    assert_eq!(
        stderr(&refused),
        "portlayer: task://tasks/none does not exist; `portlayer task ls` lists what is there\n"
    );
    let refused = node.run(&["--debug", "task", "create", "t", "--rw", "a/b=c", "--", ""]);
    let said = stderr(&refused);
    for fact in ["element: task://tasks/t", "field: ", "reason: "] {
        assert!(said.contains(fact), "{fact}: {said}");
    }
    assert_eq!(code(&refused), Some(2), "{}", shown(&refused));
}
