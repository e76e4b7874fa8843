//! Starts the primary task: search, fork, execve.

use std::{
    ffi::{CString, OsString},
    fmt, io,
    io::Write,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use crate::sys;

/// Where a bare program name is looked for when the task has no PATH; the same directories as other engines use.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How the primary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(u8),
    Signal(u8),
    /// The program never ran; the errno of execve.
    Failed(i32),
}

/// Starts `program` in its own process group. The inner error says that the program could not be executed.
pub(crate) fn start(
    program: &[OsString],
    environment: impl Iterator<Item = (OsString, OsString)>,
    mask: &sys::SignalSet,
) -> io::Result<Result<i32, Ended>> {
    let environment: Vec<(OsString, OsString)> = environment.collect();
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value.as_bytes());
    let candidates = candidates(program[0].as_bytes(), path);
    let argv = program
        .iter()
        .map(|argument| c_string(argument.as_bytes().to_vec()))
        .collect::<io::Result<Vec<_>>>()?;
    let envp = environment
        .iter()
        .map(|(name, value)| {
            let mut pair = name.clone().into_vec();
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            c_string(pair)
        })
        .collect::<io::Result<Vec<_>>>()?;
    match sys::spawn(&candidates, &argv, &envp, mask)? {
        Ok(pid) => Ok(Ok(pid)),
        Err(errno) => {
            let name = program[0].to_string_lossy();
            complain(format_args!(
                "portlayer: {}: {}",
                name.escape_debug(),
                io::Error::from_raw_os_error(errno)
            ));
            Ok(Err(Ended::Failed(errno)))
        }
    }
}

/// One line on the task's standard error; nothing can be done when that fails.
pub(crate) fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn c_string(bytes: Vec<u8>) -> io::Result<CString> {
    CString::new(bytes).map_err(io::Error::other)
}

/// The paths to try in order. A name with a slash is taken as it is, relative to the working directory.
fn candidates(name: &[u8], path: &[u8]) -> Vec<CString> {
    let joined = if name.contains(&b'/') {
        vec![name.to_vec()]
    } else if name.is_empty() {
        Vec::new()
    } else {
        path.split(|&byte| byte == b':')
            .map(|directory| {
                let mut full = if directory.is_empty() {
                    b".".to_vec()
                } else {
                    directory.to_vec()
                };
                full.push(b'/');
                full.extend_from_slice(name);
                full
            })
            .collect()
    };
    joined
        .into_iter()
        .filter_map(|path| CString::new(path).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::candidates;

    fn texts(name: &str, path: &str) -> Vec<String> {
        candidates(name.as_bytes(), path.as_bytes())
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_bare_name_is_searched_in_every_directory() {
        assert_eq!(texts("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(texts("sh", ":/bin"), ["./sh", "/bin/sh"]);
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        assert_eq!(texts("./run", "/bin"), ["./run"]);
        assert_eq!(texts("/bin/sh", "/bin"), ["/bin/sh"]);
        assert!(texts("", "/bin").is_empty());
    }
}
