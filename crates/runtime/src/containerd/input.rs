//! Feeds the standard input of a process.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use portlayer::runtime::{InputStream, RuntimeError, RuntimeErrorKind};
use tokio::net::unix::pipe;

use super::{Shared, tracked::Tracked};
use crate::{error::failed, process};

/// Gives the input back to the next writer, whatever became of this one.
struct Turn(Arc<Tracked>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.stdin_taken.store(false, Ordering::Release);
    }
}

/// Copies until the input ends, then closes the process's end. Ends early, without an error, when the process has ended or reads no
/// more: both are the process's right.
pub(super) async fn write(
    shared: &Shared,
    tracked: &Arc<Tracked>,
    mut input: InputStream,
) -> Result<(), RuntimeError> {
    let object = tracked.record.task.to_string();
    let refuse = |kind, text: &str| Err(RuntimeError::new(kind, "write to", object.clone(), text));
    if !tracked.record.stdin {
        return refuse(
            RuntimeErrorKind::State,
            "it was created without standard input",
        );
    }
    if tracked.stdin_taken.swap(true, Ordering::AcqRel) {
        return refuse(RuntimeErrorKind::Busy, "somebody else writes to it");
    }
    let _turn = Turn(Arc::clone(tracked));
    if tracked.exit().is_some() {
        return refuse(RuntimeErrorKind::State, "it has ended");
    }
    // Reading too, so that the open needs no reader and a write is no error before the shim reads.
    let mut fifo = match pipe::OpenOptions::new()
        .read_write(true)
        .open_sender(tracked.place.stream("stdin"))
    {
        Ok(fifo) => fifo,
        Err(error) => return Err(failed("open standard input of", object)(error)),
    };
    let copied = tokio::select! {
        copied = tokio::io::copy(&mut input, &mut fifo) => copied.map(drop),
        _ = tracked.ended() => return Ok(()),
    };
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(failed("write to", object)(error));
        }
        _ => {}
    }
    drop(fifo);
    process::close_stdin(&shared.client, &tracked.name()).await
}
