//! The process that keeps the output of tasks while no port layer reads it (see `crates/init`, `--hold`).

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::{EngineError, Places, io_error};
use crate::{host, init};

/// The keeper of this engine, if it lives; found by its arguments, which name the directory.
pub(super) fn running(places: &Places) -> io::Result<Vec<host::Process>> {
    let directory = places.containers();
    host::processes(|process| {
        process
            .flag("--hold")
            .is_some_and(|path| Path::new(path) == directory)
    })
}

/// Starts the keeper unless it runs. It goes on without us.
pub(super) fn start(places: &Places) -> Result<Option<Child>, EngineError> {
    let directory = places.containers();
    fs::create_dir_all(&directory).map_err(io_error("make", &directory))?;
    if !running(places)
        .map_err(io_error("look for the keeper of", &directory))?
        .is_empty()
    {
        return Ok(None);
    }
    let program =
        init::install(&places.directory).map_err(io_error("install init in", &places.directory))?;
    let mut command = Command::new(&program);
    command
        .arg("--hold")
        .arg(&directory)
        .env_clear()
        .current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    loop {
        match command.spawn() {
            Ok(child) => return Ok(Some(child)),
            // Another thread that is just starting a program has inherited the file we wrote, for a moment.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(1))
            }
            Err(source) => {
                return Err(EngineError::Program {
                    program: program.display().to_string(),
                    source,
                });
            }
        }
    }
}
