//! `init --hold DIRECTORY`: keeps what tasks write while nobody reads it.
//!
//! A pipe that no process has open forgets what is in it. The port layer reads the output of tasks; when it is away, a
//! task that ends takes its unread output along. This process has every output FIFO below the directory open for
//! reading and never reads, so the bytes are there when the port layer comes back. It is started beside containerd and
//! ended with it.
//!
//! ```text
//! DIRECTORY/<container>/status                         what its init says of the primary
//! DIRECTORY/<container>/p/<process>/stdout, stderr
//! ```

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

const O_NONBLOCK: i32 = 0o4000;

/// How often it looks for new FIFOs. The port layer has a FIFO open from before the task runs, so this only has to be
/// faster than the port layer goes away again.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs until it is killed or the directory is gone.
pub(crate) fn run(directory: &Path) -> io::Result<()> {
    let mut held: HashMap<PathBuf, (u64, File)> = HashMap::new();
    while directory.try_exists()? {
        let found = fifos(directory);
        held.retain(|path, (inode, _)| found.get(path) == Some(inode));
        for (path, inode) in found {
            if let std::collections::hash_map::Entry::Vacant(place) = held.entry(path)
                // Gone between the two looks: nothing to keep.
                && let Ok(file) = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(place.key())
            {
                place.insert((inode, file));
            }
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Every output FIFO and its inode. What cannot be listed is being made or removed.
fn fifos(directory: &Path) -> HashMap<PathBuf, u64> {
    let mut found = HashMap::new();
    let mut look = |path: PathBuf| {
        if let Ok(metadata) = fs::symlink_metadata(&path)
            && metadata.file_type().is_fifo()
        {
            found.insert(path, metadata.ino());
        }
    };
    for container in entries(directory) {
        look(container.join("status"));
        for process in entries(&container.join("p")) {
            look(process.join("stdout"));
            look(process.join("stderr"));
        }
    }
    found
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
