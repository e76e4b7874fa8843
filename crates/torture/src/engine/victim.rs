//! Who is killed, and the gate that keeps containerd away for a while.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use portlayer_node::Node;

/// A program that starts containerd, but not while it is held.
pub(super) struct Gate {
    program: PathBuf,
    hold: PathBuf,
}

impl Gate {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let gate = Self {
            program: directory.join("gate"),
            hold: directory.join("hold"),
        };
        let script = format!(
            "#!/bin/sh\nwhile test -e {}; do sleep 0.02; done\nexec containerd \"$@\"\n",
            gate.hold.display()
        );
        std::fs::write(&gate.program, script)?;
        std::fs::set_permissions(&gate.program, PermissionsExt::from_mode(0o755))?;
        Ok(gate)
    }

    pub(super) fn program(&self) -> String {
        self.program.display().to_string()
    }

    pub(super) fn hold(&self) -> Result<()> {
        Ok(std::fs::write(&self.hold, "")?)
    }

    pub(super) fn release(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.hold)?)
    }
}

/// A running shim.
pub(super) struct Shim {
    pid: i32,
    /// The container it is of.
    pub(super) container: String,
}

/// The processes of one engine, found by their arguments.
pub(super) struct Victims {
    config: PathBuf,
    socket: PathBuf,
}

impl Victims {
    pub(super) fn new(node: &Node) -> Self {
        let places = node.places();
        Self {
            config: places.directory.join("containerd.toml"),
            socket: places.socket.clone(),
        }
    }

    /// Kills containerd, or the gate that is about to become it; false when there is none.
    pub(super) fn kill_containerd(&self) -> Result<bool> {
        let mut killed = false;
        for (pid, _) in processes("--config", &self.config)? {
            killed |= end(pid)?;
        }
        Ok(killed)
    }

    /// All shims that run now.
    pub(super) fn shims(&self) -> Result<Vec<Shim>> {
        let found = processes("-address", &self.socket)?.into_iter();
        let shims = found.filter_map(|(pid, words)| {
            // The one that runs only to start or delete a container is none.
            let verb = words
                .last()
                .is_some_and(|word| word == "start" || word == "delete");
            let container = value(&words, "-id")?.to_owned();
            (!verb).then_some(Shim { pid, container })
        });
        Ok(shims.collect())
    }

    /// False when it was gone already.
    pub(super) fn kill_shim(&self, shim: &Shim) -> Result<bool> {
        end(shim.pid)
    }

    /// Waits until containerd takes connections.
    pub(super) async fn until_it_listens(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while !self.listens()? {
            if started.elapsed() > limit {
                bail!("containerd does not come back");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Whether who listens is a containerd that runs. A shim that the killed one was just starting has its socket until it executes
    /// its program: that takes connections too, and nobody will ever answer them.
    fn listens(&self) -> Result<bool> {
        let Ok(stream) = UnixStream::connect(&self.socket) else {
            return Ok(false);
        };
        let listener = getsockopt(&stream, PeerCredentials)?.pid();
        let running = processes("--config", &self.config)?;
        Ok(running.iter().any(|(pid, _)| *pid == listener))
    }
}

fn end(pid: i32) -> Result<bool> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn value<'w>(words: &'w [String], flag: &str) -> Option<&'w str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}

/// Processes with this argument, and all their arguments.
fn processes(flag: &str, wanted: &Path) -> Result<Vec<(i32, Vec<String>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // One that ends meanwhile has no arguments.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<_> = line
            .trim_end_matches('\0')
            .split('\0')
            .map(str::to_owned)
            .collect();
        if value(&words, flag).is_some_and(|value| Path::new(value) == wanted) {
            found.push((pid, words));
        }
    }
    Ok(found)
}
