//! The handle between two commands: a file, or a pipe.

use std::io::{self, Read, Write};
use std::path::Path;

use portlayer::compose::Handle;

use crate::cli::failure::Failure;
use crate::cli::output;

/// Most bytes of a token that are read: far more than any composition, far less than memory.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a handle from a file or, with `-`, from standard input.
pub(crate) fn read(from: &str) -> Result<Handle, Failure> {
    let mut token = Vec::new();
    let read = if from == "-" {
        io::stdin().lock().take(MAX_BYTES).read_to_end(&mut token)
    } else {
        std::fs::File::open(from).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut token))
    };
    read.map_err(|error| {
        Failure::from(error)
            .context(format!("reading the handle {from:?} failed"))
            .exit(2)
    })?;
    Handle::from_token(token.trim_ascii()).map_err(|error| {
        Failure::usage(format!("{from:?}: {error}"))
            .hint("a handle comes from `portlayer compose open EXECUTOR > FILE`")
    })
}

/// Writes a handle back to its file, whole or not at all, or with `-` to standard output.
pub(crate) fn write(to: &str, handle: &Handle) -> Result<(), Failure> {
    let mut token = handle.to_token();
    token.push(b'\n');
    if to == "-" {
        return Ok(output::raw(false, &token)?);
    }
    replace(Path::new(to), &token)
        .map_err(|error| Failure::from(error).context(format!("writing the handle {to:?} failed")))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::other("no file name"))?
        .to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    let written = std::fs::File::create_new(&fresh)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        // Only tidying up: the error is what counts.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_file_and_rubbish_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handle");
        let text = r#"{"executor":"executor://executors/x","revision":3,"ops":[]}"#;
        let handle = Handle::from_token(text.as_bytes()).unwrap();
        let name = path.to_str().unwrap();
        write(name, &handle).unwrap();
        write(name, &handle).unwrap();
        assert_eq!(read(name).unwrap(), handle);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "rubbish").unwrap();
        assert_eq!(read(name).unwrap_err().code(), 2);
        assert_eq!(read("/nonexistent/h").unwrap_err().code(), 2);
    }
}
