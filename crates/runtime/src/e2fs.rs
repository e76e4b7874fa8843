//! The programs of e2fsprogs.

use std::{path::Path, process::Command};

use portlayer::store::StoreError;

use crate::image::io_failed;

/// Runs one of them on a file; exit codes up to `worst` are fine. Blocks.
pub(crate) fn run(
    program: &'static str,
    arguments: &[&str],
    file: &Path,
    worst: i32,
) -> Result<(), StoreError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(file)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().map_err(|e| io_failed(program, file, e))?;
    match output.status.code() {
        Some(code) if code <= worst => Ok(()),
        _ => {
            let text = String::from_utf8_lossy(&output.stderr);
            let source = ToolFailed {
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

/// Whether a file system can be made in a file and mounted.
pub(crate) fn is_there() -> bool {
    let program = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"];
    program.iter().any(|path| Path::new(path).exists()) && Path::new("/dev/loop-control").exists()
}

/// One of e2fsprogs ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {text}")]
struct ToolFailed {
    status: String,
    text: String,
}
