//! Puts the init of executors (`crates/init`) on disk, and beside it the starter of shims, which is the same program by
//! another name.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

const BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Where init is mounted in every executor. `/dev` is a fresh tmpfs in each container, so no image can have the path,
/// and a read-only root is no hindrance.
pub(crate) const TARGET: &str = "/dev/.portlayer/init";

/// Where the status FIFO is mounted in every executor.
pub(crate) const STATUS_TARGET: &str = "/dev/.portlayer/status";

/// The starter of shims in the directory of an engine.
pub(crate) fn shim(directory: &Path) -> PathBuf {
    directory.join("shim")
}

/// Writes the binary into `directory`, mode 0555, and returns its path. Idempotent; replaces another version atomically, so that
/// running executors keep theirs.
pub(crate) fn install(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("init");
    match symlink("init", shim(directory)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if fs::read(&path).is_ok_and(|found| found == BINARY) {
        return Ok(path);
    }
    let new = directory.join("init.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o555)
        .open(&new)?;
    file.write_all(BINARY)?;
    drop(file);
    fs::rename(&new, &path)?;
    Ok(path)
}
