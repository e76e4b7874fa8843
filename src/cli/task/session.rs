//! One person at one task: its output to ours, our input and signals to it, until it ends or the person leaves.

use std::sync::Arc;

use futures::StreamExt;
use nix::libc;
use portlayer::compose::{Interrupt, TaskError};
use portlayer::element::ElementId;
use portlayer::runtime::{LogQuery, LogReader, LogStreams, SignalScope};
use portlayer::task::{ExitRecord, StopSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::signals::Signals;
use crate::cli::context::OpenNode;
use crate::cli::failure::{Failure, fail};
use crate::cli::output::{self, Streams};
use crate::cli::terminal::{self, DetachKeys, RawMode};

/// So many interrupts from the keyboard mean that the task is to end, whatever it does with them.
const PATIENCE: u32 = 3;

/// A person at a task.
pub(super) struct Session<'a> {
    pub(super) node: &'a OpenNode,
    pub(super) executor: &'a ElementId,
    pub(super) task: &'a ElementId,
    /// The run, where it is known.
    pub(super) run: Option<u32>,
    /// Output from its beginning, not from now on.
    pub(super) replay: bool,
    /// Pass our standard input on.
    pub(super) stdin: bool,
    /// The task has a terminal.
    pub(super) tty: bool,
    /// Pass signals on; otherwise an interrupt stops the task in stages.
    pub(super) sig_proxy: bool,
    /// Keys that leave.
    pub(super) detach: DetachKeys,
}

/// How it went.
pub(super) enum Ended {
    /// The task ended.
    Exit(Box<ExitRecord>),
    /// The person left.
    Detached,
}

impl Session<'_> {
    /// Stays until the task ended and all its output is written, or the detach keys are typed.
    pub(super) async fn stay(self, signals: &mut Signals) -> Result<Ended, Failure> {
        let raw = if self.tty && self.stdin {
            RawMode::enter()?
        } else {
            None
        };
        if self.tty {
            self.resize().await;
        }
        let mut output = self.output().await?;
        let left = Arc::new(Notify::new());
        self.feed(raw.is_some(), left.clone()).await?;
        let mut streams = Streams::new();
        let mut interrupts = 0;
        loop {
            tokio::select! {
                chunk = output.next() => match chunk {
                    Some(chunk) => {
                        let chunk = chunk.map_err(fail)?;
                        if chunk.lost_bytes > 0 {
                            output::note(&format!("{} bytes of output were lost here", chunk.lost_bytes));
                        }
                        streams.write(chunk.stderr, &chunk.bytes).await?;
                    }
                    None => break,
                },
                number = signals.next() => self.signal(number, &mut interrupts).await?,
                () = left.notified() => return Ok(Ended::Detached),
            }
        }
        let layer = self.node.layer();
        let mut wait = std::pin::pin!(layer.wait(self.executor, self.task, self.run));
        loop {
            tokio::select! {
                exit = &mut wait => return Ok(Ended::Exit(Box::new(exit.map_err(fail)?))),
                number = signals.next() => self.signal(number, &mut interrupts).await?,
            }
        }
    }

    async fn output(&self) -> Result<LogReader, Failure> {
        let query = LogQuery {
            executor: self.executor.clone(),
            task: self.task.clone(),
            streams: LogStreams::Both,
            since: None,
            tail: (!self.replay).then_some(0),
            follow: true,
        };
        self.node.layer().logs(&query).await.map_err(fail)
    }

    /// Starts to pass on what is typed. `left` is told when the detach keys were.
    async fn feed(&self, raw: bool, left: Arc<Notify>) -> Result<(), Failure> {
        if !self.stdin {
            return Ok(());
        }
        let layer = self.node.layer();
        let attached = match layer.attach(self.executor, self.task, false, true).await {
            Ok(attached) => attached,
            // It was faster than we.
            Err(TaskError::NotRunning { .. }) => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        match attached.input {
            Some(input) => {
                let keys = raw.then(|| self.detach.clone());
                tokio::spawn(pass_on(input, keys, left));
            }
            None => output::note(&format!(
                "{} takes no input: it was created without -i",
                self.task
            )),
        }
        Ok(())
    }

    async fn signal(&self, number: i32, interrupts: &mut u32) -> Result<(), Failure> {
        if number == libc::SIGWINCH {
            if self.tty {
                self.resize().await;
            }
            return Ok(());
        }
        let ends = matches!(number, libc::SIGINT | libc::SIGTERM);
        if ends {
            *interrupts += 1;
        }
        let how = if ends && *interrupts >= PATIENCE {
            output::note("stopping the task for good");
            Interrupt::Stop {
                how: Some(StopSpec {
                    signal: None,
                    grace_ms: 0,
                }),
            }
        } else if self.sig_proxy {
            Interrupt::Signal {
                signal: number,
                scope: SignalScope::Process,
            }
        } else {
            Interrupt::Stop { how: None }
        };
        // A task that has just ended is no failure: the loop will see it.
        self.node
            .layer()
            .interrupt(self.executor, Some(self.task), how)
            .await
            .map(|_| ())
            .map_err(fail)
    }

    async fn resize(&self) {
        if let Some((columns, rows)) = terminal::size() {
            let layer = self.node.layer();
            // A terminal of the wrong size is better than none.
            if let Err(error) = layer.resize(self.executor, self.task, columns, rows).await {
                tracing::debug!(%error, "the terminal keeps its size");
            }
        }
    }
}

/// Passes standard input on until it ends or the detach keys are typed; then the task's input is closed.
async fn pass_on(mut input: DuplexStream, mut keys: Option<DetachKeys>, left: Arc<Notify>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // An input that cannot be read has ended.
        let read = stdin.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        let (bytes, detached) = match &mut keys {
            Some(keys) => keys.feed(&buffer[..read]),
            None => (buffer[..read].to_vec(), false),
        };
        let passed = input.write_all(&bytes).await;
        if detached {
            left.notify_one();
        }
        if detached || passed.is_err() {
            return;
        }
    }
}
