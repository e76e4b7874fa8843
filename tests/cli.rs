//! The command `portlayer`, driven as a person would, against a private containerd. Needs root.

mod data;
mod interact;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A node of its own with the image `busybox`; at the end nothing is leaked and nothing is left.
pub(crate) struct Node {
    pub(crate) directory: PathBuf,
}

impl Node {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pl-cli-")
            .tempdir_in("/var/tmp")
            .unwrap()
            .keep();
        let node = Self { directory };
        let layout = node.directory.join("layout");
        portlayer_runtime::layout::busybox(Path::new("/bin/busybox"))
            .unwrap()
            .write_layout(&layout)
            .unwrap();
        node.ok(&[
            "image",
            "create",
            "busybox",
            "--from",
            layout.to_str().unwrap(),
            "--rw",
            "team=a",
        ]);
        node
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portlayer"));
        // Nothing of the tester's own configuration.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORTLAYER_DATA_DIR", self.directory.join("d"))
            .args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The output of a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let clean = std::thread::panicking() || {
            let audit = self.run(&["audit"]);
            let ps = self.run(&["ps", "-q"]);
            audit.status.success() && ps.stdout.is_empty()
        };
        let removed = self.run(&["engine", "clean", "--yes"]);
        std::fs::remove_dir_all(&self.directory).unwrap();
        if !std::thread::panicking() {
            assert!(clean, "the audit is not clean");
            assert!(removed.status.success(), "{}", shown(&removed));
        }
    }
}

pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Reads the child's output up to a text.
fn read_until(child: &mut Child, text: &str) {
    let stdout = child.stdout.as_mut().unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert_eq!(
            stdout.read(&mut byte).unwrap(),
            1,
            "the output ended before {text:?}"
        );
        seen.push(byte[0]);
    }
}

#[test]
fn run_mirrors_the_task() {
    let node = Node::new();
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

#[test]
fn bytes_go_to_the_right_stream_unchanged() {
    let node = Node::new();
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

#[test]
fn flags_reach_the_task() {
    let node = Node::new();
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

#[test]
fn a_status_file_tells_why() {
    let node = Node::new();
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

#[test]
fn signals_are_passed_on() {
    let node = Node::new();
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
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_composition_step_by_step_outlives_each_command() {
    let node = Node::new();
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
    // Nothing runs any more, so the engine has ended.
    assert_eq!(code(&node.run(&["engine", "status"])), Some(5));
    node.ok(&["rm", "executor://executors/box", "task://tasks/t"]);
    let missing = node.run(&["show", "task://tasks/t"]);
    assert_eq!(code(&missing), Some(3), "{}", shown(&missing));
}

#[test]
fn a_composition_from_a_file() {
    let node = Node::new();
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

#[test]
fn lists_filters_events_and_history() {
    let node = Node::new();
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
        "-f",
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

#[test]
fn hostile_metadata_stays_in_its_cell() {
    let node = Node::new();
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

#[test]
fn volumes_go_out_and_in_again() {
    let node = Node::new();
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

#[test]
fn a_closed_pipe_is_no_drama() {
    let node = Node::new();
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
