//! Interaction with running tasks: kill, attach, a terminal, edits of what is composed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;

use super::fixture::signal;
use super::{Node, both_ways, code, read_until, shown};

both_ways!(
    kill_sends_the_signal_it_was_told,
    attach_replays_passes_signals_on_and_mirrors_the_task,
    a_terminal_has_a_size_and_takes_what_is_typed,
    what_is_composed_can_be_unbound_and_left,
);

impl Node {
    /// Starts a shell script as the only task of the new executor `box`; it goes on when the command has ended.
    fn start(&self, script: &str) {
        let file = self.directory.join("box.toml");
        self.ok(&["task", "create", "t", "--", "sh", "-c", script]);
        let text = "executor = 'box'\ncreate = {}\n[[join]]\nid = 'image://images/busybox'\n\
                    [[join]]\nid = 'task://tasks/t'\n";
        std::fs::write(&file, text).unwrap();
        self.ok(&["compose", "apply", "-f", file.to_str().unwrap()]);
    }
}

fn kill_sends_the_signal_it_was_told(node: &Node) {
    node.start("trap 'exit 6' USR1; while :; do sleep 0.05; done");
    node.ok(&["kill", "-s", "USR1", "box"]);
    assert_eq!(code(&node.run(&["wait", "box"])), Some(6));
    // What has ended is as wanted; what never was is not.
    let late = node.run(&["kill", "box"]);
    assert_eq!(code(&late), Some(0), "{}", shown(&late));
    assert!(String::from_utf8_lossy(&late.stderr).contains("had ended"));
    assert_eq!(code(&node.run(&["kill", "no-such-box"])), Some(3));

    node.ok(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]);
    node.ok(&["kill", "other"]);
    assert_eq!(code(&node.run(&["wait", "other"])), Some(137));
}

fn attach_replays_passes_signals_on_and_mirrors_the_task(node: &Node) {
    node.start("trap 'echo bye; exit 5' TERM; echo early; while :; do sleep 0.05; done");
    let mut child = node
        .command(&["attach", "--replay", "box"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(&mut child, "early\n");
    signal(&child, Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), Some(5), "{}", shown(&output));
    assert_eq!(output.stdout, b"bye\n");
}

fn a_terminal_has_a_size_and_takes_what_is_typed(node: &Node) {
    let size = Winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).unwrap();
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let script = "tty; until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo sized; read line; echo \"got $line\"; exit 3";
    let mut child = node
        .command(&["run", "-it", "busybox", "sh", "-c", script])
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .unwrap();
    drop(pty.slave);
    let mut master = File::from(pty.master);
    let mut seen = Vec::new();
    let mut until = |master: &mut File, text: &str| {
        let mut piece = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = master.read(&mut piece).unwrap();
            assert_ne!(count, 0, "the terminal closed before {text:?}");
            seen.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    let start = until(&mut master, "sized\r\n");
    assert!(start.contains("/dev/"), "{start:?}");
    master.write_all(b"typed\n").unwrap();
    until(&mut master, "got typed\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

fn what_is_composed_can_be_unbound_and_left(node: &Node) {
    node.start("trap 'exit 0' TERM; while :; do sleep 0.05; done");
    let handle = node.directory.join("handle");
    let handle = handle.to_str().unwrap();
    node.ok(&["compose", "open", "box", "-H", handle]);
    node.ok(&["compose", "unbind", "-H", handle, "task://tasks/t"]);
    assert_ne!(node.ok(&["ps", "-q"]), "", "an edit touches nothing");
    node.ok(&["compose", "commit", "-H", handle]);
    assert_eq!(node.ok(&["ps", "-q"]), "");
    let shown = |node: &Node| node.ok(&["show", "executor://executors/box"]);
    assert!(
        shown(node).contains("task://tasks/t joined"),
        "it still takes part"
    );

    node.ok(&["compose", "open", "box", "-H", handle]);
    node.ok(&["compose", "leave", "-H", handle, "task://tasks/t"]);
    node.ok(&["compose", "commit", "-H", handle]);
    // How its last run ended stays known.
    assert!(!shown(node).contains("task://tasks/t joined"));
}
