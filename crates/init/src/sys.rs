//! The few system calls init needs, as safe functions over the C library that std links anyway.
#![allow(unsafe_code, reason = "this module is the border to the C library")]

use std::{
    ffi::{CString, c_char, c_int, c_long, c_ulong, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

use crate::primary::Ended;

pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGSTOP: i32 = 19;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EACCES: i32 = 13;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EINTR: i32 = 4;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const O_NONBLOCK: i32 = 0o4000;

const O_RDWR: c_int = 2;
const F_SETFD: c_int = 2;
const O_CLOEXEC: c_int = 0o2_000_000;
const SIG_BLOCK: c_int = 0;
const SIG_SETMASK: c_int = 2;
const SIG_DFL: usize = 0;
const SIGPIPE: c_int = 13;
const WNOHANG: c_int = 1;
const PR_SET_DUMPABLE: c_int = 4;
const SYS_PIDFD_OPEN: c_long = 434;
const POLLIN: i16 = 1;

/// A glibc `sigset_t`: 1024 bits.
#[repr(C)]
pub(crate) struct SignalSet([c_ulong; 128 / size_of::<c_ulong>()]);

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: i16,
    revents: i16,
}

unsafe extern "C" {
    fn prctl(
        option: c_int,
        argument: c_ulong,
        third: c_ulong,
        fourth: c_ulong,
        fifth: c_ulong,
    ) -> c_int;
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, former: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn read(fd: c_int, buffer: *mut c_void, length: usize) -> isize;
    fn write(fd: c_int, buffer: *const c_void, length: usize) -> isize;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn fork() -> c_int;
    fn setpgid(pid: c_int, group: c_int) -> c_int;
    fn getpgrp() -> c_int;
    fn isatty(fd: c_int) -> c_int;
    fn tcsetpgrp(fd: c_int, group: c_int) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
    -> c_int;
    fn _exit(code: c_int) -> !;
    #[link_name = "kill"]
    fn c_kill(pid: c_int, signal: c_int) -> c_int;
    #[link_name = "open"]
    fn c_open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn getenv(name: *const c_char) -> *mut c_char;
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Makes `/proc/1/environ` and `/proc/1/mem` unreadable for the tasks, short of those with CAP_SYS_PTRACE. Undone by execve in the child.
pub(crate) fn set_undumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one integer and touches no memory of ours.
    check(unsafe { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Overwrites a variable's value where the kernel shows it (`/proc/1/environ`), which no setenv does.
pub(crate) fn scrub_variable(name: &std::ffi::CStr) {
    // SAFETY: getenv returns null or a pointer to a C string in the initial environment block, which is writable; init has one
    // thread, and std copies values out on reading, so nobody else looks at these bytes.
    unsafe {
        let mut byte = getenv(name.as_ptr());
        while !byte.is_null() && *byte != 0 {
            *byte = c_char::from_ne_bytes([b'x']);
            byte = byte.add(1);
        }
    }
}

/// Blocks every signal and returns the former mask, for the child.
pub(crate) fn block_all_signals() -> io::Result<SignalSet> {
    let mut all = SignalSet([0; 128 / size_of::<c_ulong>()]);
    let mut former = SignalSet([0; 128 / size_of::<c_ulong>()]);
    // SAFETY: both sets are live, writable and as large as glibc's sigset_t.
    unsafe {
        check(sigfillset(&raw mut all))?;
        check(sigprocmask(SIG_BLOCK, &raw const all, &raw mut former))?;
    }
    Ok(former)
}

/// A non-blocking descriptor that delivers every signal.
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    let mut all = SignalSet([0; 128 / size_of::<c_ulong>()]);
    // SAFETY: the set is live; the returned descriptor is new and owned by nobody else.
    unsafe {
        check(sigfillset(&raw mut all))?;
        Ok(OwnedFd::from_raw_fd(check(signalfd(
            -1,
            &raw const all,
            O_NONBLOCK | O_CLOEXEC,
        ))?))
    }
}

/// The next pending signal, or none.
pub(crate) fn next_signal(fd: &OwnedFd) -> io::Result<Option<i32>> {
    // signalfd_siginfo: 128 bytes that begin with the signal's number.
    let mut information = [0u8; 128];
    loop {
        // SAFETY: the buffer is live and of the length given.
        let got = unsafe {
            read(
                fd.as_raw_fd(),
                information.as_mut_ptr().cast(),
                information.len(),
            )
        };
        if got >= 4 {
            let [a, b, c, d, ..] = information;
            return Ok(i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok());
        }
        match errno() {
            EINTR => {}
            EAGAIN => return Ok(None),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

/// Waits until one of the descriptors is readable or `timeout` milliseconds have passed (-1: for ever).
pub(crate) fn wait_readable<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: i32,
) -> io::Result<()> {
    let mut polled: Vec<PollFd> = fds
        .map(|fd| PollFd {
            fd: fd.as_raw_fd(),
            events: POLLIN,
            revents: 0,
        })
        .collect();
    let count = c_ulong::try_from(polled.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the count describe one live, writable vector.
    match check(unsafe { poll(polled.as_mut_ptr(), count, timeout) }) {
        Err(error) if error.raw_os_error() == Some(EINTR) => Ok(()),
        other => other.map(drop),
    }
}

/// Reaps one ended child, if there is one.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    let mut status: c_int = 0;
    // SAFETY: `status` is live and writable.
    let pid = unsafe { waitpid(-1, &raw mut status, WNOHANG) };
    if pid <= 0 {
        return None;
    }
    // The layout of a wait status: low 7 bits the signal, else the second byte the code.
    let [low, code, ..] = status.to_le_bytes();
    Some((
        pid,
        if low & 0x7f == 0 {
            Ended::Exit(code)
        } else {
            Ended::Signal(low & 0x7f)
        },
    ))
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: plain integers. `pid` is a child that has not been reaped, so it cannot be somebody else.
    unsafe { c_kill(pid, signal) };
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the descriptor returned is new.
    let fd = unsafe { syscall(SYS_PIDFD_OPEN, pid, 0) };
    let fd = check(c_int::try_from(fd).map_err(io::Error::other)?)?;
    // SAFETY: see above, and it is valid since the call succeeded.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces descriptors 0, 1 and 2 by the null device, or closes them in a root that has none.
pub(crate) fn let_go_of_standard_streams() {
    // SAFETY: the path is a C string; no Rust object owns descriptors 0 to 2, and std tolerates closed standard streams.
    unsafe {
        let null = c_open(c"/dev/null".as_ptr(), O_RDWR | O_CLOEXEC);
        for stream in 0..3 {
            if null >= 0 {
                dup2(null, stream);
            } else {
                close(stream);
            }
        }
        if null > 2 {
            close(null);
        }
    }
}

/// Makes `fd` the descriptor `number` of every program that is started from here on.
pub(crate) fn pass_on(fd: OwnedFd, number: i32) -> io::Result<()> {
    let fd = fd.into_raw_fd();
    // SAFETY: plain integers; nothing of ours owns `fd` any more, and the caller has no use for what `number` was.
    unsafe {
        if fd == number {
            return check(fcntl(fd, F_SETFD, 0)).map(drop);
        }
        let passed = check(dup2(fd, number)).map(drop);
        close(fd);
        passed
    }
}

/// Forks and executes the first candidate that can be; the inner error is the errno of the attempt that counts.
pub(crate) fn spawn(
    candidates: &[CString],
    argv: &[CString],
    envp: &[CString],
    mask: &SignalSet,
) -> io::Result<Result<i32, i32>> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { pipe2(ends.as_mut_ptr(), O_CLOEXEC) })?;
    // SAFETY: both descriptors are new and owned by nobody else.
    let (result, report) =
        unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: init has one thread, so the child may run any code; it ends in execve or _exit and never returns.
    let pid = check(unsafe { fork() })?;
    if pid == 0 {
        // SAFETY: all pointers are to live, null-terminated arrays of C strings; the rest are integers.
        unsafe {
            setpgid(0, 0);
            // SIGTTOU is still blocked, so a background group may take the terminal.
            if isatty(0) == 1 {
                tcsetpgrp(0, getpgrp());
            }
            // std set SIGPIPE to be ignored, which execve would hand down.
            signal(SIGPIPE, SIG_DFL);
            sigprocmask(SIG_SETMASK, mask, std::ptr::null_mut());
            let mut failure = ENOENT;
            for candidate in candidates {
                execve(candidate.as_ptr(), argv.as_ptr(), envp.as_ptr());
                match errno() {
                    ENOENT | ENOTDIR => {}
                    // Another directory may still have one that may be executed.
                    EACCES => failure = EACCES,
                    other => {
                        failure = other;
                        break;
                    }
                }
            }
            let bytes = failure.to_ne_bytes();
            write(report.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
            _exit(if failure == ENOENT { 127 } else { 126 });
        }
    }
    drop(report);
    let mut bytes = [0u8; 4];
    loop {
        // SAFETY: the buffer is live and of the length given.
        let got = unsafe { read(result.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        match got {
            4 => return Ok(Err(i32::from_ne_bytes(bytes))),
            got if got < 0 && errno() == EINTR => {}
            // The pipe was closed by a successful execve.
            _ => return Ok(Ok(pid)),
        }
    }
}
