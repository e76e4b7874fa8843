//! Runs init as process 1 of a process namespace of its own, with util-linux's unshare and nsenter.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

const INIT: &str = env!("CARGO_BIN_EXE_portlayer-init");

fn namespaced(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount",
            "--mount-proc",
            "--kill-child",
            "--",
            INIT,
        ])
        .args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    namespaced(arguments)
        .output()
        .expect("unshare from util-linux is installed")
}

/// A status FIFO with a reader, as the runtime makes it.
struct Fifo {
    directory: PathBuf,
    file: fs::File,
}

impl Fifo {
    fn new(name: &str) -> Fifo {
        let directory =
            std::env::temp_dir().join(format!("portlayer-init-{}-{name}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("status");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        // Read and write, so that the open does not wait for a writer and never sees an end.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        Fifo { directory, file }
    }

    fn given_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("PORTLAYER_STATUS", self.directory.join("status"))
            .env("PORTLAYER_TOKEN", "secret")
    }

    fn records(&self, count: usize) -> String {
        let lines = BufReader::new(&self.file).lines().take(count);
        lines.map(|line| line.unwrap() + "\n").collect()
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The process id, as seen from here, of the init below an `unshare`.
fn init_below(unshare: &Child) -> String {
    loop {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id())).unwrap();
        if let Some(pid) = children.split_whitespace().next() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if Path::new(INIT)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(name.trim())
                && !name.is_empty()
            {
                return pid.to_owned();
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_exit_code_is_that_of_the_primary() {
    assert_eq!(run(&["--", "sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(
        run(&["--", "sh", "-c", "kill -9 $$"]).status.code(),
        Some(137)
    );
}

#[test]
fn a_program_that_cannot_be_started_is_told_apart() {
    let missing = run(&["--", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program"));
    assert_eq!(run(&["--", "/etc/passwd"]).status.code(), Some(126));
    assert_eq!(run(&["--wrong"]).status.code(), Some(125));
}

#[test]
fn the_record_is_signed_and_the_secret_does_not_reach_the_task() {
    let fifo = Fifo::new("record");
    let mut command = namespaced(&["--", "sh", "-c", "env; cat /proc/1/environ; exit 3"]);
    let output = fifo.given_to(&mut command).output().unwrap();
    assert_eq!(fifo.records(2), "secret started\nsecret exit 3 last\n");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("PATH=") && !text.contains("secret"), "{text}");

    let mut command = namespaced(&["--", "no-such-program"]);
    fifo.given_to(&mut command).output().unwrap();
    assert_eq!(fifo.records(1), "secret failed 2 last\n");
}

#[test]
fn orphans_are_reaped_and_do_not_keep_it_alive() {
    // A hundred orphans end while the primary runs, and one that would not is left behind.
    let script = "for i in $(seq 100); do (true & ); done; (sleep 1000 &) ; sleep 0.2; ls /proc | grep -c '^[0-9]'";
    let output = run(&["--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0));
    let processes: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    assert!(
        processes < 10,
        "{processes} processes left, zombies included"
    );
}

#[test]
fn signals_are_passed_on() {
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, code) in [("TERM", 7), ("64", 137)] {
        let mut child = namespaced(&["--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let init = init_below(&child);
        assert!(
            Command::new("sh")
                .args(["-c", &format!("kill -{signal} {init}")])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(code), "signal {signal}");
    }
}

#[test]
fn a_further_task_keeps_the_executor() {
    let fifo = Fifo::new("others");
    let mut command = namespaced(&["--", "sh", "-c", "read line; exit 5"]);
    let mut child = fifo
        .given_to(&mut command)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let init = init_below(&child);
    let mut further = Command::new("nsenter")
        .args([
            "--target",
            &init,
            "--user",
            "--pid",
            "--mount",
            "--",
            "sh",
            "-c",
            "echo in; read line; exit 6",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    further
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    drop(child.stdin.take());
    assert_eq!(fifo.records(2), "secret started\nsecret exit 5 others\n");
    assert!(
        child.try_wait().unwrap().is_none(),
        "init left although a further task runs"
    );
    drop(further.stdin.take());
    assert_eq!(further.wait().unwrap().code(), Some(6));
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn without_a_program_it_stays_until_it_is_told() {
    let mut child = namespaced(&[]).spawn().unwrap();
    let init = init_below(&child);
    // A signal that comes before init has set itself up is lost (the kernel shields process 1), so it is sent until it is heard.
    let code = loop {
        Command::new("sh")
            .args(["-c", &format!("kill -TERM {init}")])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert_eq!(code, Some(0));
}
