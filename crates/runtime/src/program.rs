//! Programs that make file systems and look after them: those of e2fsprogs and btrfs-progs.

use std::{path::Path, process::Command};

use portlayer::store::StoreError;

use crate::image::io_failed;

/// Where they are found, whatever our own environment says.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Runs one of them on a file and returns what it said; exit codes up to `worst` are fine. Blocks.
pub(crate) fn run(
    program: &'static str,
    arguments: &[&str],
    file: &Path,
    worst: i32,
) -> Result<String, StoreError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(file)
        .env_clear()
        .env("PATH", PLACES.join(":"));
    let output = command.output().map_err(|e| io_failed(program, file, e))?;
    match output.status.code() {
        Some(code) if code <= worst => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            let source = ProgramFailed {
                status: output.status.to_string(),
                text: text.trim().to_owned(),
            };
            Err(StoreError::Backend {
                verb: program,
                object: file.display().to_string(),
                source: Box::new(source),
            })
        }
    }
}

/// Whether a file system can be made by this program in a file and mounted.
pub(crate) fn can_make(program: &str) -> bool {
    let mut places = PLACES.iter().map(|place| Path::new(place).join(program));
    places.any(|path| path.exists()) && Path::new("/dev/loop-control").exists()
}

/// One of them ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {text}")]
struct ProgramFailed {
    status: String,
    text: String,
}
