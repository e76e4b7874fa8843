//! The private directory of a container: where its root, FIFOs and small records are, so that a later process of ours finds
//! everything by the container's name.
//!
//! ```text
//! containers/<container>/root/             its root file system, mounted
//! containers/<container>/container.json    what belongs to the container
//! containers/<container>/status            FIFO of its init
//! containers/<container>/p/<process>/process.json, stdin, stdout, stderr, exit.json
//! ```

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use portlayer::{
    element::ElementId,
    runtime::{ContainerId, ProcessExit, ProcessId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What belongs to a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) executor: ElementId,
    /// Name of the process that init starts.
    pub(crate) primary: String,
    /// Secret of init's records.
    pub(crate) token: String,
}

/// What belongs to a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) executor: ElementId,
    pub(crate) task: ElementId,
    pub(crate) primary: bool,
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    /// Whether each output stream goes to the log.
    pub(crate) log_stdout: bool,
    pub(crate) log_stderr: bool,
    /// Out-of-memory kills in the container before it ran.
    pub(crate) oom_kills_before: u64,
}

impl ProcessRecord {
    /// No output is wanted at all, so no FIFO is needed.
    pub(crate) fn is_silent(&self) -> bool {
        !self.terminal && !self.log_stdout && !self.log_stderr
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerPlace(PathBuf);

impl ContainerPlace {
    pub(crate) fn new(containers: &Path, id: &ContainerId) -> ContainerPlace {
        ContainerPlace(containers.join(id.as_str()))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// Where the `number`th volume is mounted when only a part of it is wanted.
    pub(crate) fn part(&self, number: usize) -> PathBuf {
        self.0.join("parts").join(number.to_string())
    }

    pub(crate) fn process(&self, name: &str) -> ProcessPlace {
        ProcessPlace(self.0.join("p").join(name))
    }

    pub(crate) fn write(&self, record: &ContainerRecord) -> io::Result<()> {
        make(&self.0)?;
        write(&self.0, "container.json", record)
    }

    /// `None` when there is no such container.
    pub(crate) fn read(&self) -> io::Result<Option<ContainerRecord>> {
        read(&self.0.join("container.json"))
    }

    /// Unmounts what is mounted below and removes the directory. Idempotent. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        crate::host::unmount_below(&self.0)?;
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The directory of one process.
#[derive(Debug, Clone)]
pub(crate) struct ProcessPlace(PathBuf);

impl ProcessPlace {
    pub(crate) fn of(containers: &Path, id: &ProcessId) -> ProcessPlace {
        ContainerPlace::new(containers, &id.container).process(&id.name)
    }

    pub(crate) fn stream(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, record: &ProcessRecord) -> io::Result<()> {
        make(&self.0)?;
        write(&self.0, "process.json", record)
    }

    /// `None` when there is no such process.
    pub(crate) fn read(&self) -> io::Result<Option<ProcessRecord>> {
        read(&self.0.join("process.json"))
    }

    pub(crate) fn write_exit(&self, exit: &ProcessExit) -> io::Result<()> {
        write(&self.0, "exit.json", exit)
    }

    pub(crate) fn read_exit(&self) -> io::Result<Option<ProcessExit>> {
        read(&self.0.join("exit.json"))
    }

    /// Idempotent. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Written beside and renamed, so that a crash leaves the old record or the new one and never a part.
fn write(directory: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    fs::write(&new, serde_json::to_vec(record)?)?;
    fs::rename(new, directory.join(name))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
