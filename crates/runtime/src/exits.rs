//! Learns how processes end. One waiter per process, in containerd's Wait; its events are not used, because they are lossy and have
//! no order (reference/reliability.md finding 7).

use std::time::Duration;

use containerd_client::tonic::Code;
use portlayer::{runtime::ProcessExit, task::ExitReason, time::Timestamp};

use crate::{
    cgroup::{Layout, Usage},
    client::Client,
    process::{self, Name},
    status::Word,
};

/// First pause between attempts while containerd is away, and the longest. It serves again some 80 ms after a kill.
const RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(200);

const SIGKILL: i32 = 9;

/// What containerd knows about an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Code as the shim gives it, signals as 128+n, and the time.
    Ended(i32, Timestamp),
    /// Nobody knows the process any more.
    Lost,
}

/// Waits for the end, through restarts of containerd.
pub(crate) async fn wait(client: &Client, name: &Name) -> Seen {
    let mut pause = RETRY;
    loop {
        let asked = tokio::time::Instant::now();
        match process::wait(client, name).await {
            Ok((code, time)) => return Seen::Ended(i32::try_from(code).unwrap_or(255), time),
            Err(status) if status.code() == Code::NotFound => return Seen::Lost,
            // The connection broke, or the shim did not answer: whether it ended is asked again.
            Err(_) => {
                // It was there until now.
                if asked.elapsed() > LAST_RETRY {
                    pause = RETRY;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
            }
        }
    }
}

/// Puts together what init, containerd and the kernel say.
///
/// init's word counts most: it tells a code from a signal. Without it, init was killed, and a code of 128+n is signal n. Further
/// processes have no init (`word` = `None`): their code is told as it is, because containerd gives 128+n for a signal and for
/// a code alike. Only 137 is SIGKILL: who was killed with the container while we were away must not look as if it ended.
pub(crate) fn judge(
    word: Option<Word>,
    seen: Option<Seen>,
    usage: Usage,
    oom_kills_before: u64,
) -> ProcessExit {
    let time = match seen {
        Some(Seen::Ended(_, time)) => time,
        _ => Timestamp::now(),
    };
    let (mut reason, mut code, mut signal) = match (word, seen) {
        (Some(Word::Exit(code)), _) => (ExitReason::Exited, Some(code), None),
        (Some(Word::Signal(signal)), _) => (ExitReason::Signaled, None, Some(signal)),
        (Some(Word::Failed(errno)), _) => (
            ExitReason::StartFailed,
            Some(if errno == 2 || errno == 20 { 127 } else { 126 }),
            None,
        ),
        (Some(_), Some(Seen::Ended(code @ 129..=192, _))) => {
            (ExitReason::Signaled, None, Some(code - 128))
        }
        (None, Some(Seen::Ended(137, _))) => (ExitReason::Signaled, None, Some(SIGKILL)),
        (_, Some(Seen::Ended(code, _))) => (ExitReason::Exited, Some(code), None),
        (_, Some(Seen::Lost) | None) => (ExitReason::Lost, None, None),
    };
    if signal == Some(SIGKILL) && usage.oom_kills > oom_kills_before {
        (reason, code, signal) = (ExitReason::Oom, None, Some(SIGKILL));
    }
    ProcessExit {
        reason,
        code,
        signal,
        exited: time,
        cpu_ns: usage.cpu_ns,
        memory_peak_bytes: usage.memory_peak_bytes,
    }
}

/// What the container used, read now: the files go when containerd deletes the process.
pub(crate) async fn usage(layout: &Layout, cgroup: &str) -> Usage {
    let (layout, cgroup) = (layout.clone(), cgroup.to_owned());
    tokio::task::spawn_blocking(move || layout.usage(&cgroup))
        .await
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Option<Seen> {
        Some(Seen::Ended(code, Timestamp::from_nanos(5)))
    }

    #[test]
    fn init_tells_a_code_from_a_signal() {
        let exit = judge(Some(Word::Exit(137)), ended(137), Usage::default(), 0);
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Exited, Some(137), None)
        );
        let exit = judge(Some(Word::Signal(15)), ended(143), Usage::default(), 0);
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Signaled, None, Some(15))
        );
        assert_eq!(exit.exited, Timestamp::from_nanos(5));
    }

    #[test]
    fn a_code_above_128_is_a_signal_only_where_init_would_have_told_otherwise() {
        assert_eq!(
            judge(Some(Word::Started), ended(139), Usage::default(), 0).signal,
            Some(11)
        );
        let exit = judge(None, ended(139), Usage::default(), 0);
        assert_eq!(
            (exit.reason, exit.code, exit.signal),
            (ExitReason::Exited, Some(139), None)
        );
        assert_eq!(judge(None, ended(137), Usage::default(), 0).signal, Some(9));
        assert_eq!(
            judge(Some(Word::Started), ended(7), Usage::default(), 0).code,
            Some(7)
        );
    }

    #[test]
    fn lost_is_never_a_code() {
        let exit = judge(Some(Word::Started), Some(Seen::Lost), Usage::default(), 0);
        assert_eq!((exit.reason, exit.code), (ExitReason::Lost, None));
    }

    #[test]
    fn out_of_memory_needs_the_kernels_count() {
        let usage = Usage {
            oom_kills: 1,
            ..Usage::default()
        };
        assert_eq!(
            judge(Some(Word::Signal(9)), ended(137), usage, 0).reason,
            ExitReason::Oom
        );
        assert_eq!(
            judge(Some(Word::Signal(9)), ended(137), usage, 1).reason,
            ExitReason::Signaled
        );
        assert_eq!(
            judge(Some(Word::Exit(0)), ended(0), usage, 0).reason,
            ExitReason::Exited
        );
    }
}
