//! Output of the processes in memory.

use std::sync::PoisonError;

use super::FakeRuntime;
use crate::element::ElementId;
use crate::runtime::{LogChunk, LogQuery, LogReader};
use crate::time::Timestamp;

impl FakeRuntime {
    /// Where a process writes: a function that stores a piece of output.
    pub(super) fn output(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> impl Fn(bool, Vec<u8>) + use<> {
        let (state, executor, task) = (self.state.clone(), executor.clone(), task.clone());
        move |stderr, bytes| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let log = state.logs.entry(executor.clone()).or_default();
            let sequence = log.len() as u64;
            let chunk = LogChunk {
                stderr,
                time: Timestamp::now(),
                sequence,
                bytes,
                lost_bytes: 0,
            };
            log.push((task.clone(), chunk));
        }
    }

    /// The stored output, and what comes when it is to be followed.
    pub(super) fn read(&self, query: LogQuery) -> LogReader {
        let fake = self.clone();
        let skip = match query.tail {
            Some(tail) => fake.read_log(&query, 0).len().saturating_sub(tail),
            None => 0,
        };
        let chunks = futures::stream::unfold((fake, query, skip), |(fake, query, at)| async move {
            loop {
                // Asked before the read: what was written before the end is then in the read.
                let living = fake.is_living(&query.executor, &query.task);
                if let Some(chunk) = fake.read_log(&query, at).into_iter().next() {
                    return Some((Ok(chunk), (fake, query, at + 1)));
                }
                if !query.follow || !living {
                    return None;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
        Box::pin(chunks)
    }

    fn read_log(&self, query: &LogQuery, from: usize) -> Vec<LogChunk> {
        let state = self.lock();
        let log = state.logs.get(&query.executor);
        let chunks = log.into_iter().flatten().filter(|(task, chunk)| {
            use crate::runtime::LogStreams::{Both, Stderr, Stdout};
            let stream = match query.streams {
                Both => true,
                Stdout => !chunk.stderr,
                Stderr => chunk.stderr,
            };
            *task == query.task && stream && query.since.is_none_or(|since| chunk.time >= since)
        });
        chunks.skip(from).map(|(_, chunk)| chunk.clone()).collect()
    }

    fn is_living(&self, executor: &ElementId, task: &ElementId) -> bool {
        let state = self.lock();
        let mut containers = state.containers.values();
        containers.any(|container| {
            let mut processes = container.processes.values();
            container.executor == *executor && processes.any(|p| p.task == *task && p.running())
        })
    }
}
