//! Called by the name `shim`: containerd's shim for runc, started without a start of its own.
//!
//! containerd runs a shim's binary to have a shim started (`... start`, runtime/v2/README.md of containerd 1.6 and
//! later). The one for runc then binds its socket, runs itself once more as the server, says the address and ends: a
//! whole Go program, of some 5 ms, and an address that is synced to the disk, in the way of each first task. This does
//! the same for the containers of the port layer; everything else it is asked (`delete`, `-v`, `-info`), and the server
//! itself, is the real shim's.
//!
//! Left out, because our containers never ask for them: shims that several containers share (annotations of CRI), a cgroup for
//! the shim, core scheduling. The socket has a name one can read, where that of runc's shim has a sum.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Error, ErrorKind, Read, Result, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
        process::{CommandExt, parent_id},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::sys;

/// The name it is called by.
pub(crate) const NAME: &str = "shim";

/// The real one, found as containerd finds it: by PATH.
const REAL: &str = "containerd-shim-runc-v2";

/// Where shims listen, those of all containerds of the host.
const SOCKETS: &str = "/run/containerd/s";

/// The most likely to be killed when memory is short.
const OOM_SCORE_MAX: i32 = 1000;

/// What containerd says.
#[derive(Debug, Default)]
struct Call {
    namespace: OsString,
    id: OsString,
    address: OsString,
    debug: bool,
    action: OsString,
}

impl Call {
    /// `None` when it is not one to start a shim.
    fn parse(arguments: &[OsString]) -> Option<Call> {
        let mut call = Call::default();
        let mut given = arguments.iter();
        while let Some(argument) = given.next() {
            match argument.to_str()? {
                "-namespace" => call.namespace = given.next()?.clone(),
                "-id" => call.id = given.next()?.clone(),
                "-address" => call.address = given.next()?.clone(),
                "-publish-binary" | "-bundle" => drop(given.next()?),
                "-debug" => call.debug = true,
                flag if flag.starts_with('-') => return None,
                _ => call.action = argument.clone(),
            }
        }
        let is_whole = ![&call.namespace, &call.id, &call.address]
            .iter()
            .any(|value| value.is_empty());
        (call.action == "start" && is_whole).then_some(call)
    }

    fn socket(&self) -> PathBuf {
        let mut name = self.namespace.clone();
        name.push("-");
        name.push(&self.id);
        Path::new(SOCKETS).join(name)
    }
}

/// Does what is asked. Returns only when a shim was started, with its address said, or with an error.
pub(crate) fn run() -> Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(call) = Call::parse(&arguments) else {
        return Err(Command::new(REAL).args(&arguments).exec());
    };
    let socket = call.socket();
    let address = format!("unix://{}", socket.display());
    if let Some(listener) = listen(&socket)? {
        let started = write_address(&address).and_then(|()| serve(&call, listener));
        if let Err(error) = started {
            let _ = fs::remove_file(&socket);
            return Err(error);
        }
    } else {
        write_address(&address)?;
    }
    // What containerd says on standard input are options we never set; its pipe must not break.
    io::stdin().read_to_end(&mut Vec::new())?;
    io::stdout().write_all(address.as_bytes())
}

/// `None` when a shim listens there already. What a killed shim left is removed.
fn listen(socket: &Path) -> Result<Option<UnixListener>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(SOCKETS)?;
    let listener = match UnixListener::bind(socket) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(socket).is_ok() {
                return Ok(None);
            }
            fs::remove_file(socket)?;
            UnixListener::bind(socket)
        }
        other => other,
    }?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Where containerd and the shim itself look for the socket later. Not synced: after a power cut there is no shim.
fn write_address(address: &str) -> Result<()> {
    let new = ".address";
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(new)?;
    file.write_all(address.as_bytes())?;
    fs::rename(new, "address")
}

/// Starts the real shim in the directory we are in, which is the container's bundle, with the listener as descriptor 3.
fn serve(call: &Call, listener: UnixListener) -> Result<()> {
    sys::pass_on(listener.into(), 3)?;
    let mut command = Command::new(REAL);
    let flags: [(&str, &OsStr); 3] = [
        ("-namespace", &call.namespace),
        ("-id", &call.id),
        ("-address", &call.address),
    ];
    for (flag, value) in flags {
        command.arg(flag).arg(value);
    }
    if call.debug {
        command.arg("-debug");
    }
    let mut child = command
        .env("GOMAXPROCS", "4")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // It is to go before containerd does.
    adjust_oom_score(child.id()).inspect_err(|_| {
        let _ = child.kill();
    })
}

fn adjust_oom_score(shim: u32) -> Result<()> {
    let of = |pid| format!("/proc/{pid}/oom_score_adj");
    let text = fs::read_to_string(of(parent_id()))?;
    let containerd: i32 = text.trim().parse().map_err(Error::other)?;
    let score = (containerd + 1).min(OOM_SCORE_MAX);
    fs::write(of(shim), score.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Call> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Call::parse(&arguments)
    }

    #[test]
    fn a_start_is_understood() {
        let line = "-namespace n -address /a.sock -publish-binary /bin/c -id x-1 -debug start";
        let call = parse(line).expect("a start");
        assert_eq!(call.socket(), Path::new("/run/containerd/s/n-x-1"));
        assert_eq!(call.address, "/a.sock");
        assert!(call.debug);
    }

    #[test]
    fn everything_else_is_the_real_shims() {
        for line in [
            "-v",
            "-info",
            "-namespace n -address /a.sock -publish-binary /bin/c -id x -bundle /b delete",
            "-namespace n -address /a.sock -id x -new-flag y start",
            "-namespace n -id x start",
            "-namespace n -address /a.sock -id x",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
