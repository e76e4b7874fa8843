//! The reaping init that is process 1 of an executor.
//!
//! `init [--keep] [-- PROGRAM ARGUMENT...]`, and on the host `init --hold DIRECTORY` (see `hold`) and, by the name
//! `shim`, the starter of containerd's shims (see `shim`)
//!
//! It starts the primary task as its child, passes signals on to it, reaps every orphan and reports how the primary ended
//! on the status FIFO. It ends, and the kernel with it ends everything else in the process namespace, when the last *task* is
//! gone: the primary and every process that containerd put in from outside (those have parent 0 as seen in here). Daemons that a task left
//! behind do not keep an executor alive. With `--keep`, or without a program, it stays until it is killed.
//!
//! Two signals are for init itself and mean something else to the primary, because a process outside cannot send SIGKILL or SIGSTOP to
//! the primary alone: 64 (SIGRTMAX) is passed on as SIGKILL and 63 as SIGSTOP.
//!
//! The status FIFO is named by `PORTLAYER_STATUS`; every record carries the secret of `PORTLAYER_TOKEN`, so that another
//! process in the container cannot forge one. Both are removed from the task's environment, and init wipes the secret and makes itself
//! undumpable so that its own environment and memory cannot be read. Records are single lines, shorter than PIPE_BUF and so written whole:
//!
//! ```text
//! TOKEN started                    the program was executed
//! TOKEN exit CODE last|others      the primary returned CODE
//! TOKEN signal NUMBER last|others  the primary was killed by signal NUMBER
//! TOKEN failed ERRNO last|others   the program could not be started
//! ```
//!
//! `last` says that init ends now, `others` that further tasks go on.
//!
//! Exit code of init: that of the primary, 128+n when signal n killed it, 127 when the program is not there, 126 when it cannot be
//! executed, 125 when init itself failed. One binary, linked statically, no dependency: it must run in an empty root.

mod hold;
mod others;
mod primary;
mod shim;
mod status;
mod sys;

use std::{
    ffi::OsString,
    io::{Error, Result},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use primary::Ended;
use status::Status;

/// How often an unread record is offered again while further tasks go on.
const RETRY_MILLISECONDS: i32 = 500;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            primary::complain(format_args!("portlayer init: {error}"));
            ExitCode::from(125)
        }
    }
}

struct Arguments {
    keep: bool,
    program: Vec<OsString>,
}

fn arguments() -> Result<Arguments> {
    let mut given = std::env::args_os().skip(1);
    let mut keep = false;
    for argument in given.by_ref() {
        match argument.to_str() {
            Some("--keep") => keep = true,
            Some("--") => break,
            _ => {
                return Err(Error::other(format!(
                    "unknown argument {argument:?}, usage: init [--keep] [-- PROGRAM ARGUMENT...]"
                )));
            }
        }
    }
    let program: Vec<_> = given.collect();
    Ok(Arguments {
        keep: keep || program.is_empty(),
        program,
    })
}

fn run() -> Result<u8> {
    let mut given = std::env::args_os();
    let name = given.next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(shim::NAME.as_ref()) {
        shim::run()?;
        return Ok(0);
    }
    if given.next().is_some_and(|argument| argument == "--hold") {
        let directory = given
            .next()
            .ok_or_else(|| Error::other("--hold needs a directory"))?;
        hold::run(directory.as_ref())?;
        return Ok(0);
    }
    sys::set_undumpable()?;
    let arguments = arguments()?;
    let mut status = Status::from_environment();
    let former_mask = sys::block_all_signals()?;
    let signals = sys::signal_fd()?;

    let mut primary = None;
    let mut ended = None;
    if !arguments.program.is_empty() {
        match primary::start(&arguments.program, status::task_environment(), &former_mask)? {
            Ok(pid) => {
                status.started();
                primary = Some(pid);
            }
            Err(failure) => ended = Some(failure),
        }
    }
    // From here on only the tasks hold the standard streams, so that the reader of a log sees its end.
    sys::let_go_of_standard_streams();

    let mut reported = false;
    loop {
        while let Some((pid, outcome)) = sys::reap() {
            if primary == Some(pid) {
                primary = None;
                ended = Some(outcome);
            }
        }
        let mut others = Vec::new();
        let mut timeout = -1;
        if let Some(ended) = &ended {
            if !arguments.keep {
                // Without /proc nobody else can be seen, and then the primary alone counts.
                others = others::tasks().unwrap_or_default();
            }
            let last = others.is_empty() && !arguments.keep;
            reported = reported || status.ended(ended, last);
            if last {
                return Ok(ended.code());
            }
            if !reported {
                timeout = RETRY_MILLISECONDS;
            }
        }
        sys::wait_readable(
            std::iter::once(signals.as_fd()).chain(others.iter().map(AsFd::as_fd)),
            timeout,
        )?;
        while let Some(signal) = sys::next_signal(&signals)? {
            match (signal, primary) {
                (sys::SIGCHLD, _) => {}
                (signal, Some(pid)) => sys::kill(pid, translate(signal)),
                // Without a primary there is nobody to pass it to; an empty executor is ended by a plain request.
                (sys::SIGTERM | sys::SIGINT, None) if arguments.program.is_empty() => return Ok(0),
                _ => {}
            }
        }
    }
}

fn translate(signal: i32) -> i32 {
    match signal {
        64 => sys::SIGKILL,
        63 => sys::SIGSTOP,
        other => other,
    }
}

impl Ended {
    fn code(&self) -> u8 {
        match *self {
            Ended::Exit(code) => code,
            Ended::Signal(number) => 128u8.saturating_add(number),
            Ended::Failed(sys::ENOENT | sys::ENOTDIR) => 127,
            Ended::Failed(_) => 126,
        }
    }
}
