//! Ends and removes everything of one engine, by looking into the kernel and not into what the engine believes.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{EngineError, Places, SHIM_SOCKETS, STOP_LIMIT, io_error, keeper};
use crate::{cgroup::Layout, host, network, root::error_text};

/// Ends everything that runs, in an order in which nothing comes back: the one that restarts things first, then what keeps others
/// busy.
pub(super) fn end(places: &Places) -> Result<(), EngineError> {
    end_containerd(places)?;
    end_shims(places)?;
    end_keeper(places)?;
    let layout = Layout::detect().map_err(io_error("read", Path::new("/proc/self/mountinfo")))?;
    layout
        .remove(&places.cgroup_parent, STOP_LIMIT)
        .map_err(io_error("remove cgroup", Path::new(&places.cgroup_parent)))?;
    remove_shim_sockets(places);
    remove_roots(places)?;
    network::clean(&places.directory, &places.namespace).map_err(|error| {
        EngineError::Networks {
            directory: places.directory.clone(),
            text: error_text(&error),
        }
    })?;
    // Loop devices that back a mount below are freed by its unmounting.
    host::unmount_below(&places.directory).map_err(io_error("unmount below", &places.directory))
}

/// Unmounts root file systems. Nothing is removed through a mount point: their directories are empty.
fn remove_roots(places: &Places) -> Result<(), EngineError> {
    let roots = places.roots();
    host::unmount_below(&roots).map_err(io_error("unmount below", &roots))?;
    match fs::remove_dir_all(&roots) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .map_err(io_error("remove", &roots))
}

/// Whether a task runs: each has a shim.
pub(super) fn tasks_run(places: &Places) -> Result<bool, EngineError> {
    Ok(!shims(places)?.is_empty())
}

fn shims(places: &Places) -> Result<Vec<host::Process>, EngineError> {
    host::processes(|process| is_shim(process, places))
        .map_err(io_error("look for", Path::new("containerd-shim")))
}

/// Ends everything and removes the directory.
pub(super) fn clean(places: &Places) -> Result<(), EngineError> {
    end(places)?;
    match fs::remove_dir_all(&places.directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .map_err(io_error("remove", &places.directory))
}

/// Ends containerd, politely first: it then removes its sockets and closes its database.
pub(super) fn end_containerd(places: &Places) -> Result<(), EngineError> {
    let running = || {
        places
            .running()
            .map_err(io_error("look for", Path::new("containerd")))
    };
    for process in running()? {
        host::signal(&process, Signal::TERM);
    }
    until_none(running, Signal::KILL)
}

/// Kills shims. Their containers are killed with the cgroups.
fn end_shims(places: &Places) -> Result<(), EngineError> {
    let found = shims(places)?;
    for process in &found {
        host::signal(process, Signal::KILL);
    }
    until_none(|| shims(places), Signal::KILL)?;
    // Killed, it leaves its socket; and its bundle, which names the socket, may be gone before it.
    for id in found.iter().filter_map(|shim| shim.flag("-id")) {
        places
            .remove_shim_socket(id)
            .map_err(io_error("remove the socket of", Path::new(id)))?;
    }
    Ok(())
}

/// Kills the shim of one container that containerd knows nothing of: a call that was broken off in the middle leaves one
/// (containerd 1.6). Removes its socket, its bundle and the OCI runtime's state; what runs is killed with the cgroup.
/// Idempotent. Blocks.
pub(crate) fn end_shim_of(places: &Places, container: &str) -> io::Result<()> {
    let of_it = |process: &host::Process| {
        is_shim(process, places) && process.flag("-id") == Some(container)
    };
    let started = Instant::now();
    loop {
        let shims = host::processes(of_it)?;
        if shims.is_empty() {
            break;
        }
        if started.elapsed() > STOP_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for shim in &shims {
            host::signal(shim, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let bundle = bundles(places).join(container);
    remove_shim_socket(&bundle);
    for directory in [
        bundle,
        places.runc_root().join(&places.namespace).join(container),
    ] {
        host::unmount_below(&directory)?;
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Kills the keeper of unread output: the tasks that wrote it are gone.
fn end_keeper(places: &Places) -> Result<(), EngineError> {
    let running = || {
        keeper::running(places).map_err(io_error("look for", Path::new("portlayer-init --hold")))
    };
    for process in running()? {
        host::signal(&process, Signal::KILL);
    }
    until_none(running, Signal::KILL)
}

/// True for a shim that containerd of this directory started.
pub(crate) fn is_shim(process: &host::Process, places: &Places) -> bool {
    process
        .flag("-address")
        .is_some_and(|path| Path::new(path) == places.socket)
}

fn until_none(
    running: impl Fn() -> Result<Vec<host::Process>, EngineError>,
    then: Signal,
) -> Result<(), EngineError> {
    let started = Instant::now();
    loop {
        // A zombie has no arguments and so is not found any more.
        let left = running()?;
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > STOP_LIMIT {
            left.iter().for_each(|process| host::signal(process, then));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Shims listen below /run/containerd/s, outside of our directory; each bundle names its socket.
fn remove_shim_sockets(places: &Places) {
    for bundle in fs::read_dir(bundles(places))
        .into_iter()
        .flatten()
        .flatten()
    {
        remove_shim_socket(&bundle.path());
    }
}

/// Where containerd keeps what belongs to a container that runs.
fn bundles(places: &Places) -> std::path::PathBuf {
    places
        .directory
        .join("state/io.containerd.runtime.v2.task")
        .join(&places.namespace)
}

fn remove_shim_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else {
        return;
    };
    let socket = Path::new(address.trim().trim_start_matches("unix://"));
    if socket.starts_with(SHIM_SOCKETS) {
        let _ = fs::remove_file(socket);
    }
}
