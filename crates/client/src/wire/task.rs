//! Runs: exit records, output, interrupts, stats, one-call runs.

use bytes::Bytes;
use portlayer::compose::{Interrupt, Interrupted};
use portlayer::runtime::{
    ContainerStats, LogChunk, LogProgress, LogQuery, LogStreams, SignalScope,
};
use portlayer::task::{ExitReason, ExitRecord};
use portlayer_proto::v1;

use super::{
    Wire, WireError, bind, choice, id, join, missing, optional, optional_id, read_time, time,
};
use crate::compose::Edit;

impl Wire for ExitReason {
    type Message = v1::ExitReason;

    fn into_wire(self) -> v1::ExitReason {
        match self {
            ExitReason::Exited => v1::ExitReason::Exited,
            ExitReason::Signaled => v1::ExitReason::Signaled,
            ExitReason::Oom => v1::ExitReason::Oom,
            ExitReason::Deadline => v1::ExitReason::Deadline,
            ExitReason::Cancelled => v1::ExitReason::Cancelled,
            ExitReason::StartFailed => v1::ExitReason::StartFailed,
            ExitReason::Lost => v1::ExitReason::Lost,
        }
    }

    fn from_wire(message: v1::ExitReason) -> Result<Self, WireError> {
        Ok(match message {
            v1::ExitReason::Unspecified => return Err(missing("reason")),
            v1::ExitReason::Exited => ExitReason::Exited,
            v1::ExitReason::Signaled => ExitReason::Signaled,
            v1::ExitReason::Oom => ExitReason::Oom,
            v1::ExitReason::Deadline => ExitReason::Deadline,
            v1::ExitReason::Cancelled => ExitReason::Cancelled,
            v1::ExitReason::StartFailed => ExitReason::StartFailed,
            v1::ExitReason::Lost => ExitReason::Lost,
        })
    }
}

impl Wire for ExitRecord {
    type Message = v1::ExitRecord;

    fn into_wire(self) -> v1::ExitRecord {
        let ExitRecord {
            executor,
            task,
            run,
            reason,
            code,
            signal,
            cpu_ns,
            memory_peak_bytes,
            started,
            exited,
            reconciled,
            message,
        } = self;
        v1::ExitRecord {
            executor: executor.to_string(),
            task: task.to_string(),
            run,
            reason: reason.into_wire().into(),
            code,
            signal,
            cpu_ns,
            memory_peak_bytes,
            started: Some(time(started)),
            exited: Some(time(exited)),
            reconciled,
            message,
        }
    }

    fn from_wire(message: v1::ExitRecord) -> Result<Self, WireError> {
        Ok(ExitRecord {
            executor: id("executor", &message.executor)?,
            task: id("task", &message.task)?,
            run: message.run,
            reason: choice("reason", message.reason)?,
            code: message.code,
            signal: message.signal,
            cpu_ns: message.cpu_ns,
            memory_peak_bytes: message.memory_peak_bytes,
            started: read_time("started", message.started)?,
            exited: read_time("exited", message.exited)?,
            reconciled: message.reconciled,
            message: message.message,
        })
    }
}

impl Wire for LogStreams {
    type Message = v1::LogStreams;

    fn into_wire(self) -> v1::LogStreams {
        match self {
            LogStreams::Stdout => v1::LogStreams::Stdout,
            LogStreams::Stderr => v1::LogStreams::Stderr,
            LogStreams::Both => v1::LogStreams::Both,
        }
    }

    fn from_wire(message: v1::LogStreams) -> Result<Self, WireError> {
        Ok(match message {
            v1::LogStreams::Stdout => LogStreams::Stdout,
            v1::LogStreams::Stderr => LogStreams::Stderr,
            v1::LogStreams::Unspecified | v1::LogStreams::Both => LogStreams::Both,
        })
    }
}

impl Wire for LogProgress {
    type Message = v1::LogSent;

    fn into_wire(self) -> v1::LogSent {
        let LogProgress {
            log,
            sent_lines,
            dropped_lines,
            cut_bytes,
            lost_bytes,
            done,
        } = self;
        v1::LogSent {
            log: log.to_string(),
            sent_lines,
            dropped_lines,
            cut_bytes,
            lost_bytes,
            done,
        }
    }

    fn from_wire(message: v1::LogSent) -> Result<Self, WireError> {
        Ok(LogProgress {
            log: id("log", &message.log)?,
            sent_lines: message.sent_lines,
            dropped_lines: message.dropped_lines,
            cut_bytes: message.cut_bytes,
            lost_bytes: message.lost_bytes,
            done: message.done,
        })
    }
}

/// A query of stored output as a message.
pub fn logs_request(query: LogQuery) -> v1::LogsRequest {
    let LogQuery {
        executor,
        task,
        streams,
        since,
        tail,
        follow,
    } = query;
    v1::LogsRequest {
        executor: executor.to_string(),
        task: task.to_string(),
        streams: streams.into_wire().into(),
        since: since.map(time),
        tail: tail.map(|lines| lines as u64),
        follow,
    }
}

/// The query of a message.
pub fn log_query(message: v1::LogsRequest) -> Result<LogQuery, WireError> {
    Ok(LogQuery {
        executor: id("executor", &message.executor)?,
        task: id("task", &message.task)?,
        streams: choice("streams", message.streams)?,
        since: match message.since {
            None => None,
            since => Some(read_time("since", since)?),
        },
        // More than all is all.
        tail: message
            .tail
            .map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        follow: message.follow,
    })
}

impl Wire for LogChunk {
    type Message = v1::LogChunk;

    fn into_wire(self) -> v1::LogChunk {
        let LogChunk {
            stderr,
            time: stored,
            sequence,
            bytes,
            lost_bytes,
        } = self;
        v1::LogChunk {
            stderr,
            time: Some(time(stored)),
            sequence,
            data: Bytes::from(bytes),
            lost_bytes,
        }
    }

    fn from_wire(message: v1::LogChunk) -> Result<Self, WireError> {
        Ok(LogChunk {
            stderr: message.stderr,
            time: read_time("time", message.time)?,
            sequence: message.sequence,
            bytes: Vec::from(message.data),
            lost_bytes: message.lost_bytes,
        })
    }
}

impl Wire for Interrupt {
    type Message = v1::interrupt_request::How;

    fn into_wire(self) -> Self::Message {
        use v1::interrupt_request::{How, Pause, Resume, Signal, Stop};
        match self {
            Interrupt::Signal { signal, scope } => How::Signal(Signal {
                signal,
                all: scope == SignalScope::All,
            }),
            Interrupt::Stop { how } => How::Stop(Stop {
                how: how.map(Wire::into_wire),
            }),
            Interrupt::Pause => How::Pause(Pause {}),
            Interrupt::Resume => How::Resume(Resume {}),
        }
    }

    fn from_wire(message: Self::Message) -> Result<Self, WireError> {
        use v1::interrupt_request::How;
        Ok(match message {
            How::Signal(signal) => Interrupt::Signal {
                signal: signal.signal,
                scope: if signal.all {
                    SignalScope::All
                } else {
                    SignalScope::Process
                },
            },
            How::Stop(stop) => Interrupt::Stop {
                how: optional("stop.how", stop.how)?,
            },
            How::Pause(_) => Interrupt::Pause,
            How::Resume(_) => Interrupt::Resume,
        })
    }
}

impl Wire for Interrupted {
    type Message = v1::InterruptResponse;

    fn into_wire(self) -> v1::InterruptResponse {
        use v1::InterruptOutcome as O;
        let (outcome, exit) = match self {
            Interrupted::Delivered => (O::Delivered, None),
            Interrupted::AlreadyExited(exit) => (O::AlreadyExited, exit),
            Interrupted::NotRunning => (O::NotRunning, None),
        };
        v1::InterruptResponse {
            outcome: outcome.into(),
            exit: exit.map(|exit| exit.into_wire()),
        }
    }

    fn from_wire(message: v1::InterruptResponse) -> Result<Self, WireError> {
        use v1::InterruptOutcome as O;
        match O::try_from(message.outcome) {
            Ok(O::Delivered) => Ok(Interrupted::Delivered),
            Ok(O::AlreadyExited) => {
                let exit: Option<ExitRecord> = optional("exit", message.exit)?;
                Ok(Interrupted::AlreadyExited(exit.map(Box::new)))
            }
            Ok(O::NotRunning) => Ok(Interrupted::NotRunning),
            Ok(O::Unspecified) | Err(_) => Err(missing("outcome")),
        }
    }
}

impl Wire for ContainerStats {
    type Message = v1::StatsResponse;

    fn into_wire(self) -> v1::StatsResponse {
        let ContainerStats {
            cpu_ns,
            memory_bytes,
            memory_peak_bytes,
            pids,
            oom_kills,
        } = self;
        v1::StatsResponse {
            time: Some(time(portlayer::time::Timestamp::now())),
            cpu_ns,
            memory_bytes,
            memory_peak_bytes,
            pids,
            oom_kills,
        }
    }

    fn from_wire(message: v1::StatsResponse) -> Result<Self, WireError> {
        Ok(ContainerStats {
            cpu_ns: message.cpu_ns,
            memory_bytes: message.memory_bytes,
            memory_peak_bytes: message.memory_peak_bytes,
            pids: message.pids,
            oom_kills: message.oom_kills,
        })
    }
}

impl Wire for Edit {
    type Message = v1::Edit;

    fn into_wire(self) -> v1::Edit {
        use v1::edit::{Bind, Edit as E, Join, Leave, Unbind};
        v1::Edit {
            edit: Some(match self {
                Edit::Join { id, how } => E::Join(Join {
                    id: id.to_string(),
                    how: Some(how.into_wire()),
                }),
                Edit::Bind { id, how } => E::Bind(Bind {
                    id: id.map(|id| id.to_string()),
                    how: Some(how.into_wire()),
                }),
                Edit::Unbind { id } => E::Unbind(Unbind {
                    id: id.map(|id| id.to_string()),
                }),
                Edit::Leave { id } => E::Leave(Leave { id: id.to_string() }),
            }),
        }
    }

    fn from_wire(message: v1::Edit) -> Result<Self, WireError> {
        use v1::edit::Edit as E;
        Ok(match message.edit.ok_or_else(|| missing("edit"))? {
            E::Join(edit) => Edit::Join {
                id: id("join.id", &edit.id)?,
                how: join(edit.how).map_err(|error| error.within("join"))?,
            },
            E::Bind(edit) => Edit::Bind {
                id: optional_id("bind.id", edit.id.as_deref())?,
                how: bind(edit.how).map_err(|error| error.within("bind"))?,
            },
            E::Unbind(edit) => Edit::Unbind {
                id: optional_id("unbind.id", edit.id.as_deref())?,
            },
            E::Leave(edit) => Edit::Leave {
                id: id("leave.id", &edit.id)?,
            },
        })
    }
}

/// A terminal's size: columns and rows.
impl Wire for (u16, u16) {
    type Message = v1::TerminalSize;

    fn into_wire(self) -> v1::TerminalSize {
        v1::TerminalSize {
            columns: self.0.into(),
            rows: self.1.into(),
        }
    }

    fn from_wire(message: v1::TerminalSize) -> Result<Self, WireError> {
        Ok((
            super::small("columns", message.columns)?,
            super::small("rows", message.rows)?,
        ))
    }
}
