//! A node of its own for a test, and the commands that are run on it.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a daemon may take until it serves; the machine may be busy.
const START: Duration = Duration::from_secs(120);

/// How the commands of a test come to their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each opens it in its own process.
    Embedded,
    /// Through a daemon.
    Daemon,
}

/// A node of its own with the image `busybox`; at the end nothing is leaked and nothing is left.
pub(crate) struct Node {
    pub(crate) directory: PathBuf,
    pub(crate) way: Way,
    daemon: Mutex<Option<Child>>,
}

impl Node {
    /// A node that commands open themselves.
    pub(crate) fn new() -> Self {
        Self::with(Way::Embedded, "")
    }

    /// A node behind a daemon.
    pub(crate) fn served() -> Self {
        Self::with(Way::Daemon, "")
    }

    /// A node with this configuration file.
    pub(crate) fn with(way: Way, config: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pl-cli-")
            .tempdir_in("/var/tmp")
            .unwrap()
            .keep();
        let node = Self {
            directory,
            way,
            daemon: Mutex::default(),
        };
        std::fs::write(node.config(), config).unwrap();
        node.serve();
        let layout = node.directory.join("layout");
        portlayer_runtime::layout::busybox(Path::new("/bin/busybox"))
            .unwrap()
            .write_layout(&layout)
            .unwrap();
        let layout = layout.to_str().unwrap();
        node.ok(&[
            "image", "create", "busybox", "--from", layout, "--rw", "team=a",
        ]);
        node
    }

    fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("d")
    }

    /// The socket its daemon has or would have.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data_dir().join("portlayer.sock")
    }

    /// Gives it this configuration file from now on.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
        self.restart();
    }

    /// Ends its daemon, if it has one, and starts the next.
    pub(crate) fn restart(&self) {
        self.end_daemon();
        self.serve();
    }

    fn serve(&self) {
        if self.way == Way::Embedded {
            return;
        }
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.log()).unwrap();
        let mut child = self
            .command(&["serve"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "the daemon ended: {}", self.said());
            assert!(started.elapsed() < START, "no socket: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.daemon.lock().unwrap() = Some(child);
    }

    /// Ends the daemon as the service manager would.
    pub(crate) fn end_daemon(&self) {
        let Some(mut child) = self.daemon.lock().unwrap().take() else {
            return;
        };
        signal(&child, Signal::SIGTERM);
        let status = child.wait().unwrap();
        assert!(
            status.success(),
            "the daemon ended with {status}: {}",
            self.said()
        );
    }

    fn log(&self) -> PathBuf {
        self.directory.join("serve.log")
    }

    /// What the daemon said.
    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare(args);
        if self.way == Way::Embedded {
            command.env("PORTLAYER_EMBEDDED", "true");
        }
        command
    }

    /// The command without a word about how it comes to its node.
    pub(crate) fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portlayer"));
        // Nothing of the tester's own configuration.
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORTLAYER_CONFIG", self.config())
            .env("PORTLAYER_DATA_DIR", self.data_dir())
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
        if std::thread::panicking() {
            eprintln!("the daemon said: {}", self.said());
            if let Ok(Some(child)) = self.daemon.lock().as_deref_mut() {
                // What is left of it is cleaned.
                let _ = child.kill();
                let _ = child.wait();
            }
        } else {
            self.end_daemon();
        }
        let removed = self.bare(&["engine", "clean", "--yes"]).output().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
        if !std::thread::panicking() {
            assert!(clean, "the audit is not clean");
            assert!(removed.status.success(), "{}", shown(&removed));
        }
    }
}

/// Sends a child a signal.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, signal).unwrap();
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
pub(crate) fn read_until(child: &mut Child, text: &str) {
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

/// Reads one line of the child's output.
pub(crate) fn line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    loop {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the output ended");
        if byte[0] == b'\n' {
            return String::from_utf8(seen).unwrap();
        }
        seen.push(byte[0]);
    }
}
