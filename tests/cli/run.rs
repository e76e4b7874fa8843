//! Running things: one command, and compositions step by step.

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::fixture::signal;
use super::{Node, Way, both_ways, code, read_until, shown};

both_ways!(
    run_mirrors_the_task,
    bytes_go_to_the_right_stream_unchanged,
    flags_reach_the_task,
    a_status_file_tells_why,
    signals_are_passed_on,
    a_composition_step_by_step_outlives_each_command,
    a_composition_from_a_file,
    a_closed_pipe_is_no_drama,
);

fn run_mirrors_the_task(node: &Node) {
    for (args, expected) in [
        (&["busybox", "true"][..], 0),
        (&["busybox", "sh", "-c", "exit 7"], 7),
        (&["busybox", "/no/such/program"], 127),
        (&["busybox", "/etc/passwd"], 126),
        (&["--timeout", "300ms", "busybox", "sleep", "100"], 124),
        (&["busybox", "sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-image", "true"], 125),
        (&["--no-such-flag", "busybox"], 125),
    ] {
        let args: Vec<_> = ["run"].iter().chain(args).copied().collect();
        let output = node.run(&args);
        assert_eq!(
            code(&output),
            Some(expected),
            "{args:?}: {}",
            shown(&output)
        );
    }
    // All of them were temporary.
    assert_eq!(node.ok(&["executor", "ls", "-a", "-q"]), "");
    assert_eq!(node.ok(&["task", "ls", "-a", "-q"]), "");
}

fn bytes_go_to_the_right_stream_unchanged(node: &Node) {
    let output = node.run(&[
        "run",
        "busybox",
        "sh",
        "-c",
        r"printf 'out\000\377\033[2J'; printf 'err\r\n' >&2; exit 3",
    ]);
    assert_eq!(code(&output), Some(3));
    assert_eq!(output.stdout, b"out\0\xff\x1b[2J");
    assert_eq!(output.stderr, b"err\r\n");

    let mut child = node
        .command(&["run", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let mut stdin = child.stdin.take().unwrap();
    let written = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&written));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout == input,
        "{} bytes came back",
        output.stdout.len()
    );
}

fn flags_reach_the_task(node: &Node) {
    node.ok(&["volume", "create", "data"]);
    let script = "echo $A $(pwd) $(id -u):$(id -g) $(hostname); echo kept > /data/f; touch /t/x && echo tmpfs";
    let output = node.ok(&[
        "run",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "0:5",
        "--hostname",
        "box",
        "-v",
        "data:/data",
        "--tmpfs",
        "/t:size=1m",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(output, "b /tmp 0:5 box\ntmpfs\n");
    let read_only = node.ok(&[
        "run",
        "--read-only",
        "busybox",
        "sh",
        "-c",
        "touch /x 2>/dev/null || echo ro",
    ]);
    assert_eq!(read_only, "ro\n");
    // A mount point cannot be made in a read-only root: said before anything runs.
    let refused = node.run(&["run", "--read-only", "-v", "data:/data", "busybox", "true"]);
    assert_eq!(code(&refused), Some(125));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("mount target /data"),
        "{}",
        shown(&refused)
    );
    assert_eq!(
        node.ok(&["run", "-v", "data:/data:ro", "busybox", "cat", "/data/f"]),
        "kept\n"
    );
    let output = node.run(&["run", "-v", "data:/data:ro", "busybox", "touch", "/data/g"]);
    assert_eq!(code(&output), Some(1), "{}", shown(&output));
    // The temporary volume is gone, the other one is not.
    assert_eq!(node.ok(&["volume", "ls", "-q"]), "volume://volumes/data\n");
}

fn a_status_file_tells_why(node: &Node) {
    let status = node.directory.join("status");
    let output = node.run(&[
        "run",
        "--status-file",
        status.to_str().unwrap(),
        "--timeout",
        "200ms",
        "busybox",
        "sleep",
        "100",
    ]);
    assert_eq!(code(&output), Some(124));
    let exit: serde_json::Value = serde_json::from_slice(&std::fs::read(&status).unwrap()).unwrap();
    assert_eq!(exit["reason"], "deadline");
}

fn signals_are_passed_on(node: &Node) {
    let mut child = node
        .command(&[
            "run",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(&mut child, "ready\n");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

fn a_composition_step_by_step_outlives_each_command(node: &Node) {
    let handle = node.directory.join("handle");
    let handle = handle.to_str().unwrap();
    node.ok(&["executor", "create", "box"]);
    node.ok(&[
        "task",
        "create",
        "t",
        "--",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo started; while :; do sleep 0.05; done",
    ]);
    node.ok(&["compose", "open", "box", "-H", handle]);
    node.ok(&["compose", "join", "-H", handle, "image://images/busybox"]);
    node.ok(&["compose", "join", "-H", handle, "task://tasks/t"]);
    node.ok(&["compose", "bind", "-H", handle]);
    let plan = node.ok(&["compose", "plan", "-H", handle]);
    assert!(plan.contains("start process of task://tasks/t"), "{plan}");
    assert_eq!(node.ok(&["ps", "-q"]), "", "a plan touches nothing");

    let result = node.json(&["compose", "commit", "-H", handle, "-o", "json"]);
    assert_eq!(result["elements"]["task://tasks/t"]["result"], "success");
    // Every command is a process of its own: the task and its engine go on in between.
    assert!(node.run(&["engine", "status"]).status.success());
    assert_eq!(node.json(&["ps", "-o", "json"])[0]["state"], "running");
    assert_eq!(node.ok(&["exec", "box", "echo", "inside"]), "inside\n");
    assert_eq!(
        code(&node.run(&["exec", "box", "sh", "-c", "exit 9"])),
        Some(9)
    );
    let refused = node.run(&["rm", "image://images/busybox"]);
    assert_eq!(code(&refused), Some(5));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("executor://executors/box"),
        "{}",
        shown(&refused)
    );

    node.ok(&["stop", "box"]);
    assert_eq!(code(&node.run(&["wait", "box"])), Some(4));
    assert_eq!(node.ok(&["logs", "box"]), "started\n");
    // Nothing runs any more, so the engine has ended, unless a daemon keeps it.
    let engine = code(&node.run(&["engine", "status"]));
    assert_eq!(engine, Some(if node.way == Way::Daemon { 0 } else { 5 }));
    node.ok(&["rm", "executor://executors/box", "task://tasks/t"]);
    let missing = node.run(&["show", "task://tasks/t"]);
    assert_eq!(code(&missing), Some(3), "{}", shown(&missing));
}

fn a_composition_from_a_file(node: &Node) {
    let file = node.directory.join("x.toml");
    node.ok(&["task", "create", "hello", "--", "echo", "hello"]);
    let text = "executor = 'web'\ncreate = {}\n[[join]]\nid = 'image://images/busybox'\n\
                [[join]]\nid = 'task://tasks/hello'\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    node.ok(&["compose", "apply", "-f", file]);
    node.ok(&["wait", "web"]);
    assert_eq!(node.ok(&["logs", "web"]), "hello\n");
    node.ok(&["rm", "-f", "executor://executors/web", "task://tasks/hello"]);
    std::fs::write(file, "executor = 'web'\ncolour = 1\n").unwrap();
    let refused = node.run(&["compose", "apply", "-f", file]);
    assert_eq!(code(&refused), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("colour"));
}

fn a_closed_pipe_is_no_drama(node: &Node) {
    let mut child = node
        .command(&["run", "busybox", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(&mut child, "y\ny\n");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
