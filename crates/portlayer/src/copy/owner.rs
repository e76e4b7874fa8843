//! A thread that makes files as somebody else.

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Runs work on a thread of its own, which ends with it: what it became is no other's.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("copy".to_owned());
    thread.spawn(move || {
        // A caller that went away does not need the answer.
        let _ = answer.send(work());
    })?;
    answered
        .await
        .map_err(|_| io::Error::other("the thread panicked"))
}

/// Files this thread makes from now on belong to these ids of the host. On a mount with mapped ids nobody else can make any.
/// Its rights stay: changing the file system ids from 0 takes those over files away, so they are taken back.
pub(super) fn become_owner(uid: u32, gid: u32) -> io::Result<()> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    let rights = rustix::thread::capabilities(None)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    // The calls answer the former id and never fail: asked again, they say what holds now.
    if setfsgid(gid) != gid || setfsuid(uid) != uid {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    rustix::thread::set_capabilities(None, rights)?;
    Ok(())
}
