//! The status FIFO: where init says how the primary ended.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::PathBuf,
};

use crate::{primary::Ended, sys};

const PATH: &str = "PORTLAYER_STATUS";
const TOKEN: &str = "PORTLAYER_TOKEN";

/// The variables for the task: all of ours except the two that are init's own.
pub(crate) fn task_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name != PATH && name != TOKEN)
}

pub(crate) struct Status {
    path: Option<PathBuf>,
    token: Vec<u8>,
    fifo: Option<File>,
}

impl Status {
    /// Takes path and secret, wipes the secret from the environment block and opens the FIFO at once, while the port layer certainly reads it; a task that runs later may unmount or hide the path.
    pub(crate) fn from_environment() -> Status {
        let token: Vec<u8> = std::env::var_os(TOKEN)
            .map(|token| token.as_bytes().to_vec())
            .unwrap_or_default();
        sys::scrub_variable(c"PORTLAYER_TOKEN");
        let mut status = Status {
            path: std::env::var_os(PATH).map(PathBuf::from),
            token,
            fifo: None,
        };
        status.open();
        status
    }

    fn open(&mut self) {
        // Without a reader this fails with ENXIO; it is tried again when there is something to say.
        if let (None, Some(path)) = (&self.fifo, &self.path) {
            self.fifo = OpenOptions::new()
                .write(true)
                .custom_flags(sys::O_NONBLOCK)
                .open(path)
                .ok();
        }
    }

    /// Says that the program was executed. Lost without a reader, who then learns it from the end.
    pub(crate) fn started(&mut self) {
        self.write("started");
    }

    /// Writes the record of the end. False when nobody took it and it is worth trying again.
    pub(crate) fn ended(&mut self, ended: &Ended, last: bool) -> bool {
        let (word, number) = match *ended {
            Ended::Exit(code) => ("exit", i32::from(code)),
            Ended::Signal(number) => ("signal", i32::from(number)),
            Ended::Failed(errno) => ("failed", errno),
        };
        self.path.is_none()
            || self.write(&format!(
                "{word} {number} {}",
                if last { "last" } else { "others" }
            ))
    }

    fn write(&mut self, record: &str) -> bool {
        self.open();
        let Some(fifo) = &mut self.fifo else {
            return false;
        };
        let mut line = self.token.clone();
        line.extend_from_slice(format!(" {record}\n").as_bytes());
        // SIGPIPE is blocked like every other signal, so a missing reader is only an error here.
        fifo.write(&line).is_ok_and(|written| written == line.len())
    }
}
