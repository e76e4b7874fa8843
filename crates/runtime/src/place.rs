//! The private directory of a container: where its root, FIFOs and small records are, so that a later process of ours finds
//! everything by the container's name.
//!
//! ```text
//! containers/<container>/container.json    what belongs to the container
//! containers/<container>/netns             its network namespace, mounted, when it is on a bridge
//! containers/<container>/etc/              its resolv.conf and hosts
//! containers/<container>/status            FIFO of its init
//! containers/<container>/word              what its init said of the end of the primary
//! containers/<container>/p/<process>/process.json, stdin, stdout, stderr, exit.json
//! /run/portlayer/<engine>/<container>/root/ its root file system, mounted
//! disks/<container>                         its writable layer, when that is a subvolume of the pool
//! ```
//!
//! The root is where the container's own root can get to it: below our private directories it could not.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::engine::Places;
use crate::io::{LogBounds, Stream};
use portlayer::{
    element::ElementId,
    log::LogKind,
    runtime::{ContainerId, IdRange, ProcessExit, ProcessId, SinkPlan},
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
    /// The host ids that stand for the container's.
    #[serde(default)]
    pub(crate) ids: Option<IdRange>,
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
    /// Logs it goes to beside or instead of the files.
    #[serde(default)]
    pub(crate) sinks: Vec<SinkPlan>,
    /// Values to be replaced in the files. Here because who comes after us has to find them as well.
    #[serde(default)]
    pub(crate) redact: Hidden,
    /// Out-of-memory kills in the container before it ran.
    pub(crate) oom_kills_before: u64,
}

/// Values that no output of ours shows.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Hidden(pub(crate) Vec<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hidden({})", self.0.len())
    }
}

impl ProcessRecord {
    /// The caller's FIFO or file that a stream is handed to.
    pub(crate) fn handed(&self, stream: Stream) -> Option<&str> {
        self.sinks.iter().find_map(|sink| match &sink.spec.kind {
            LogKind::Path(path) if stream == Stream::Out && sink.stdout => Some(path.as_str()),
            LogKind::Path(path) if stream == Stream::Err && sink.stderr => Some(path.as_str()),
            _ => None,
        })
    }

    /// The bounds of its files, where a log sets them.
    pub(crate) fn bounds(&self) -> Option<LogBounds> {
        self.sinks.iter().find_map(|sink| match sink.spec.kind {
            LogKind::File(Some(bounds)) => Some(LogBounds {
                segment_bytes: bounds.file_bytes,
                segments: bounds.files,
            }),
            _ => None,
        })
    }

    /// No output is wanted at all, so no FIFO is needed.
    pub(crate) fn is_silent(&self) -> bool {
        !self.terminal && !self.log_stdout && !self.log_stderr
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerPlace {
    directory: PathBuf,
    /// Holds the root, and nothing else that lasts.
    visible: PathBuf,
    /// Its writable layer, when that is a subvolume.
    subvolume: PathBuf,
}

impl ContainerPlace {
    pub(crate) fn new(places: &Places, id: &ContainerId) -> ContainerPlace {
        ContainerPlace {
            directory: places.containers().join(id.as_str()),
            visible: places.roots().join(id.as_str()),
            subvolume: places.disks().join(id.as_str()),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.visible.join("root")
    }

    /// Where lower layers are mounted for the moment it takes to mount the root.
    pub(crate) fn layers(&self) -> PathBuf {
        self.visible.join("layers")
    }

    /// The file that holds a bounded writable layer, named by the container so that the audit finds whose loop device it is.
    pub(crate) fn disk_file(&self) -> PathBuf {
        let name = self.directory.file_name().unwrap_or_default();
        self.directory.join(name).with_extension("disk")
    }

    /// Where a bounded writable layer is mounted.
    pub(crate) fn disk(&self) -> PathBuf {
        self.visible.join("disk")
    }

    /// The subvolume that holds a bounded writable layer, where there is a pool for these.
    pub(crate) fn subvolume(&self) -> &Path {
        &self.subvolume
    }

    /// Makes the directory of the root. Of all users only the container's root can get into it. Idempotent.
    pub(crate) fn make_root(&self, ids: Option<IdRange>) -> io::Result<()> {
        let parent = self.visible.parent().unwrap_or(&self.visible);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(parent)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o710)
            .create(&self.visible)?;
        std::os::unix::fs::chown(&self.visible, None, Some(ids.map_or(0, |ids| ids.first)))?;
        fs::DirBuilder::new().recursive(true).create(self.root())
    }

    /// Unmounts the root and what it stands on. Idempotent. Blocks.
    pub(crate) fn unmount_root(&self) -> io::Result<()> {
        crate::host::unmount_below(&self.visible)
    }

    /// Unmounts the root and removes its directory; a subvolume stays. Idempotent. Blocks.
    pub(crate) fn remove_root(&self) -> io::Result<()> {
        self.unmount_root()?;
        for directory in [
            self.root(),
            self.layers(),
            self.disk(),
            self.visible.clone(),
        ] {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::remove_file(self.disk_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The root is the last thing in a container's directory, unless it is removed before the rest.
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.directory.join("status")
    }

    /// Where its network namespace is kept.
    pub(crate) fn network(&self) -> PathBuf {
        self.directory.join("netns")
    }

    /// The last word of its init, as soon as it was read.
    pub(crate) fn word(&self) -> PathBuf {
        self.directory.join("word")
    }

    /// Where the `number`th volume is mounted when only a part of it is wanted.
    pub(crate) fn part(&self, number: usize) -> PathBuf {
        self.directory.join("parts").join(number.to_string())
    }

    pub(crate) fn process(&self, name: &str) -> ProcessPlace {
        ProcessPlace(self.directory.join("p").join(name))
    }

    /// Makes the directory. Idempotent.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        make(&self.directory)
    }

    pub(crate) fn write(&self, record: &ContainerRecord) -> io::Result<()> {
        write(&self.directory, "container.json", record)
    }

    /// `None` when there is no such container.
    pub(crate) fn read(&self) -> io::Result<Option<ContainerRecord>> {
        read(&self.directory.join("container.json"))
    }

    /// Unmounts what is mounted below and removes the directory. Idempotent. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_root()?;
        crate::host::unmount_below(&self.directory)?;
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The directory of one process.
#[derive(Debug, Clone)]
pub(crate) struct ProcessPlace(PathBuf);

impl ProcessPlace {
    pub(crate) fn of(places: &Places, id: &ProcessId) -> ProcessPlace {
        ContainerPlace::new(places, &id.container).process(&id.name)
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
