//! Output and input of processes.
//!
//! A process writes into FIFOs (through the shim); one thread of ours, the [`Pump`], moves the bytes into bounded files, the [`Log`],
//! from which any number of readers read. No reader and no full disk can hold up a process: what cannot be stored is dropped and
//! counted.

mod forward;
mod log;
mod pump;
mod read;
mod redact;
mod segment;

pub(crate) use forward::{Forwarders, reach};
pub use log::LogBounds;
pub(crate) use log::{Logs, Stream};
pub(crate) use pump::{Drained, Output, Pump, Readiness, Source, Watched};
pub(crate) use read::reader;
pub(crate) use redact::Redactor;

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

/// Makes a FIFO; one that is there is fine.
pub(crate) fn make_fifo(path: &Path, mode: u32) -> io::Result<()> {
    match mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // The process's umask has taken bits away.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Opens the reading end without waiting for a writer. It sees the end of the stream when the last writer is gone.
pub(crate) fn open_reader(path: &Path) -> io::Result<OwnedFd> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    Ok(fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}

/// Opens both ends: never an end of the stream, and writers never find nobody reading.
pub(crate) fn open_both(path: &Path) -> io::Result<OwnedFd> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    Ok(fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}

#[cfg(test)]
mod tests;
