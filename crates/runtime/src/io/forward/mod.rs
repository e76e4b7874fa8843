//! Logs that get the stored output of tasks sent on: journald and syslog.
//!
//! A follower per log, task and executor reads the stored files and sends lines; its place is durable after each piece. So
//! it goes on where it was when the receiver was away, or we were; after a break the lines of the last second come again,
//! each with the same sequence as before.

mod lines;
mod message;
mod place;
mod receiver;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use portlayer::element::ElementId;
use portlayer::log::LogSpec;
use portlayer::runtime::{LogChunk, LogProgress, LogQuery, SinkPlan};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::log::Logs;
use super::{Stream, reader};
use lines::{Line, Lines};
use message::Whose;
use place::{Followed, Next};
use receiver::Receiver;

/// Waits before a receiver that was away is tried again: the first, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// How long a receiver with a connection may take to show that it never read what its kernel took: TCP tells no more, and
/// syslog answers nothing. Lines that are younger come again when the connection breaks.
const SETTLE: Duration = Duration::from_secs(1);
/// Lines kept for that at most.
const MAX_SETTLING: usize = 8192;
/// How long the removal of an executor waits for what is on its way.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// All followers of a node. They end when this is dropped, and go on when the next one is opened.
#[derive(Debug)]
pub(crate) struct Forwarders {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    logs: Arc<Logs>,
    /// By the files of their places.
    running: Mutex<HashMap<PathBuf, JoinHandle<()>>>,
}

impl Drop for Forwarders {
    fn drop(&mut self) {
        for (_, follower) in self.shared.running().drain() {
            follower.abort();
        }
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<PathBuf, JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarders {
    pub(crate) fn new(logs: Arc<Logs>) -> Forwarders {
        let running = Mutex::default();
        Forwarders {
            shared: Arc::new(Shared { logs, running }),
        }
    }

    /// Goes on with everything that was not sent when we ended. In a runtime; blocks.
    pub(crate) fn resume(&self) -> io::Result<()> {
        for (output, file) in place::all(self.shared.logs.root())? {
            if place::read(&file)?.is_some_and(|followed| !followed.done) {
                self.follow(output, file);
            }
        }
        Ok(())
    }

    /// Sends what a task writes from now on. Called when its output is open for writing. In a runtime; blocks.
    pub(crate) fn begin(
        &self,
        executor: &ElementId,
        task: &ElementId,
        sinks: &[SinkPlan],
    ) -> io::Result<()> {
        let output = self.shared.logs.directory(executor, task);
        for (plan, file) in forwarded(&output, sinks) {
            std::fs::create_dir_all(output.join("sinks"))?;
            let followed = match place::read(&file)? {
                Some(known) => Followed {
                    plan: plan.clone(),
                    done: false,
                    ..known
                },
                None => {
                    // What earlier runs wrote was not for it.
                    let sequence = self.shared.logs.next_sequence(&output);
                    Followed {
                        executor: executor.clone(),
                        task: task.clone(),
                        plan: plan.clone(),
                        next: [Next { sequence, skip: 0 }; 2],
                        counts: place::Counts::default(),
                        done: false,
                    }
                }
            };
            // One that runs has its place in memory; the plan of a task does not change while it runs.
            if !self.shared.running().contains_key(&file) {
                place::write(&file, &followed)?;
                self.follow(output.clone(), file);
            }
        }
        Ok(())
    }

    /// Goes on with what an earlier process of ours began: the output is open for writing again.
    pub(crate) fn again(
        &self,
        executor: &ElementId,
        task: &ElementId,
        sinks: &[SinkPlan],
    ) -> io::Result<()> {
        let output = self.shared.logs.directory(executor, task);
        for (_, file) in forwarded(&output, sinks) {
            if place::read(&file)?.is_some() {
                self.follow(output.clone(), file);
            }
        }
        Ok(())
    }

    /// How far each log has got with the output of a task, by the log's id. Blocks.
    pub(crate) fn progress(
        &self,
        executor: &ElementId,
        task: &ElementId,
    ) -> io::Result<Vec<LogProgress>> {
        let mut found = Vec::new();
        for file in place::of(&self.shared.logs.directory(executor, task))? {
            found.extend(place::read(&file)?.map(LogProgress::from));
        }
        found.sort_by(|one, other| one.log.cmp(&other.log));
        Ok(found)
    }

    fn follow(&self, output: PathBuf, file: PathBuf) {
        let mut running = self.shared.running();
        if !running.contains_key(&file) {
            let (shared, path) = (self.shared.clone(), file.clone());
            let follower = tokio::spawn(async move { follow(&shared, &output, &path).await });
            running.insert(file, follower);
        }
    }

    /// Ends the followers of an executor; what is on its way gets a moment.
    pub(crate) async fn end(&self, executor: &ElementId) {
        let below = self.shared.logs.root().join(executor.digest_hex());
        let of_it: Vec<_> = {
            let mut running = self.shared.running();
            let files: Vec<_> = running
                .keys()
                .filter(|file| file.starts_with(&below))
                .cloned()
                .collect();
            files
                .into_iter()
                .filter_map(|file| running.remove(&file))
                .collect()
        };
        let limit = Instant::now() + REMOVE_LIMIT;
        for mut follower in of_it {
            if tokio::time::timeout_at(limit, &mut follower).await.is_err() {
                tracing::warn!(%executor, "output that was not sent on is removed");
                follower.abort();
            }
        }
    }
}

/// Whether a receiver can be reached now.
pub(crate) async fn reach(spec: &LogSpec) -> io::Result<()> {
    match spec.is_forwarded() {
        true => Receiver::connect(spec).await.map(drop),
        false => Ok(()),
    }
}

/// The destinations that output is sent on to, each with its file.
fn forwarded<'a>(
    output: &Path,
    sinks: &'a [SinkPlan],
) -> impl Iterator<Item = (&'a SinkPlan, PathBuf)> {
    sinks
        .iter()
        .filter(|plan| plan.spec.is_forwarded())
        .map(|plan| (plan, place::file(output, &plan.log)))
}

/// Follows until nobody writes any more and all is sent.
async fn follow(shared: &Shared, output: &Path, file: &Path) {
    loop {
        if let Err(error) = follow_once(shared, file).await {
            tracing::warn!(%error, file = %file.display(), "stored output cannot be sent on");
            tokio::time::sleep(WAITS[1]).await;
            continue;
        }
        let mut running = shared.running();
        // Somebody may have begun to write in between: who did that has seen us.
        if shared.logs.watch(output).is_none() {
            running.remove(file);
            return;
        }
    }
}

async fn follow_once(shared: &Shared, file: &Path) -> io::Result<()> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || place::read(&path)).await;
    let Some(followed) = read.map_err(io::Error::other)?? else {
        return Ok(());
    };
    let query = LogQuery::new(&followed.executor, &followed.task).follow();
    let mut chunks = reader(&shared.logs, &query);
    let mut follower = Follower::new(followed, file);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| io::Error::other(error.text))?;
        follower.take(chunk).await?;
    }
    follower.end().await
}

/// One log of one task.
struct Follower {
    followed: Followed,
    file: PathBuf,
    whose: Whose,
    lines: [Lines; 2],
    receiver: Option<Receiver>,
    /// Sent, but the receiver may yet turn out not to have read them: when, and what.
    settling: VecDeque<(Instant, Line)>,
    /// Behind the last piece that was read.
    seen: u64,
}

impl Follower {
    fn new(followed: Followed, file: &Path) -> Follower {
        let spec = &followed.plan.spec;
        let lines = |stream| Lines::new(stream, spec.line_bytes, spec.lines_per_second);
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let host = if host.is_empty() {
            "-".to_owned()
        } else {
            host
        };
        Follower {
            lines: [lines(Stream::Out), lines(Stream::Err)],
            whose: Whose {
                executor: followed.executor.clone(),
                task: followed.task.clone(),
                host,
            },
            file: file.to_owned(),
            receiver: None,
            settling: VecDeque::new(),
            seen: 0,
            followed,
        }
    }

    /// A piece of the stored output, which may have been sent already, all of it or a part.
    async fn take(&mut self, chunk: LogChunk) -> io::Result<()> {
        self.seen = chunk.sequence + 1;
        let stream = if chunk.stderr {
            Stream::Err
        } else {
            Stream::Out
        };
        let next = self.followed.next[stream.index()];
        if !self.followed.wants(stream) || chunk.sequence < next.sequence {
            return Ok(());
        }
        let skip = if chunk.sequence == next.sequence {
            next.skip
        } else {
            0
        };
        let piece = chunk.bytes.get(skip..).unwrap_or_default();
        if piece.is_empty() && (skip > 0 || chunk.lost_bytes == 0) {
            return Ok(());
        }
        let (mut out, mut counts) = (Vec::new(), self.followed.counts);
        if skip == 0 {
            counts.lost_bytes += chunk.lost_bytes;
        }
        let from = Next {
            sequence: chunk.sequence,
            skip,
        };
        let lines = &mut self.lines[stream.index()];
        let mut after = lines.take(from, chunk.time.as_nanos(), piece, &mut counts, &mut out);
        if piece.is_empty() && after == from {
            // Only a loss, which is counted now.
            after.sequence += 1;
        }
        counts.sent += out.len() as u64;
        self.send(out).await;
        self.followed.counts = counts;
        self.followed.next[stream.index()] = after;
        self.store().await
    }

    /// Nobody writes any more: what has no newline is a line now.
    async fn end(mut self) -> io::Result<()> {
        let (mut out, mut counts) = (Vec::new(), self.followed.counts);
        for lines in &mut self.lines {
            lines.end(&mut counts, &mut out);
        }
        counts.sent += out.len() as u64;
        self.send(out).await;
        self.settle().await;
        self.followed.counts = counts;
        // Further runs begin behind everything there is.
        for next in &mut self.followed.next {
            if next.sequence < self.seen {
                *next = Next {
                    sequence: self.seen,
                    skip: 0,
                };
            }
        }
        self.followed.done = true;
        self.store().await
    }

    /// Sends lines, however long that takes: the output waits in its files.
    async fn send(&mut self, mut lines: Vec<Line>) {
        self.forget_settled();
        let (mut sent, mut wait) = (0, WAITS[0]);
        while sent < lines.len() {
            if let Err(error) = self.try_send(&lines, &mut sent).await {
                if sent > 0 {
                    wait = WAITS[0];
                }
                self.receiver = None;
                let mut again = self.unsettled();
                again.extend(lines.drain(sent..));
                (lines, sent) = (again, 0);
                tracing::debug!(%error, log = %self.followed.plan.log, "a log is away");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAITS[1]);
            }
        }
        if self.receiver.as_ref().is_some_and(Receiver::may_break) {
            let now = Instant::now();
            self.settling
                .extend(lines.into_iter().map(|line| (now, line)));
            let many = self.settling.len().saturating_sub(MAX_SETTLING);
            self.settling.drain(..many);
        }
    }

    /// Waits until everything that was sent has settled.
    async fn settle(&mut self) {
        loop {
            self.forget_settled();
            if self.settling.is_empty() {
                return;
            }
            if self
                .receiver
                .as_ref()
                .is_some_and(|receiver| receiver.check().is_ok())
            {
                tokio::time::sleep(WAITS[0]).await;
            } else {
                self.receiver = None;
                let again = self.unsettled();
                self.send(again).await;
            }
        }
    }

    fn unsettled(&mut self) -> Vec<Line> {
        self.settling.drain(..).map(|(_, line)| line).collect()
    }

    fn forget_settled(&mut self) {
        while let Some((since, _)) = self.settling.front()
            && since.elapsed() >= SETTLE
        {
            self.settling.pop_front();
        }
    }

    async fn try_send(&mut self, lines: &[Line], sent: &mut usize) -> io::Result<()> {
        let spec = &self.followed.plan.spec;
        let receiver = match &mut self.receiver {
            Some(receiver) => receiver,
            none => none.insert(Receiver::connect(spec).await?),
        };
        receiver.send(spec, &self.whose, lines, sent).await
    }

    async fn store(&self) -> io::Result<()> {
        let (file, followed) = (self.file.clone(), self.followed.clone());
        let stored = tokio::task::spawn_blocking(move || place::write(&file, &followed)).await;
        stored.map_err(io::Error::other)?
    }
}
