//! One person at one task: its output to ours, our input and signals to it, until it ends or the person leaves.

use std::sync::Arc;

use futures::StreamExt;
use nix::libc;
use portlayer::compose::Interrupt;
use portlayer::element::ElementId;
use portlayer::runtime::{LogQuery, LogStreams, SignalScope};
use portlayer::task::{ExitRecord, StopSpec};
use portlayer_client::{Client, LogStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::signals::Signals;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Streams};
use crate::cli::terminal::{self, DetachKeys, RawMode};

/// So many interrupts from the keyboard mean that the task is to end, whatever it does with them.
const PATIENCE: u32 = 3;

/// A person at a task.
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
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
        let left = Arc::new(Notify::new());
        // Ends with us: whoever feeds a task keeps its call open.
        let (mut output, _feeding) = self.attach(raw.is_some(), left.clone()).await?;
        let mut streams = Streams::new();
        let mut interrupts = 0;
        loop {
            tokio::select! {
                chunk = output.next() => match chunk {
                    Some(chunk) => {
                        let chunk = chunk?;
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
        let mut wait = std::pin::pin!(self.client.wait(self.executor, self.task, self.run));
        loop {
            tokio::select! {
                exit = &mut wait => return Ok(Ended::Exit(Box::new(exit?))),
                number = signals.next() => self.signal(number, &mut interrupts).await?,
            }
        }
    }

    /// The task's output; what is typed is passed on from now on, and `left` is told when the detach keys were.
    async fn attach(
        &self,
        raw: bool,
        left: Arc<Notify>,
    ) -> Result<(LogStream, Option<AbortOnDropHandle<()>>), Failure> {
        if !self.stdin {
            return Ok((self.output().await?, None));
        }
        let (executor, task) = (self.executor, self.task);
        let attached = match self.client.attach(executor, task, self.replay, true).await {
            Ok(attached) => attached,
            // It was faster than we.
            Err(error) if error.reason() == "not_running" => {
                return Ok((self.output().await?, None));
            }
            Err(error) => return Err(error.into()),
        };
        let feeding = attached.input.map(|input| {
            let keys = raw.then(|| self.detach.clone());
            AbortOnDropHandle::new(tokio::spawn(pass_on(input, keys, left)))
        });
        if feeding.is_none() {
            output::note(&format!("{task} takes no input: it was created without -i"));
        }
        if let Some(ended) = attached.input_ended {
            let task = task.clone();
            tokio::spawn(async move {
                // A task that reads no more is none of our business; the output is still to be seen.
                if let Ok(Err(error)) = ended.await
                    && error.reason() == "busy"
                {
                    output::note(&format!("somebody else feeds the input of {task}: {error}"));
                }
            });
        }
        Ok((attached.output, feeding))
    }

    async fn output(&self) -> Result<LogStream, Failure> {
        let query = LogQuery {
            executor: self.executor.clone(),
            task: self.task.clone(),
            streams: LogStreams::Both,
            since: None,
            tail: (!self.replay).then_some(0),
            follow: true,
        };
        Ok(self.client.logs(&query).await?)
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
        self.client
            .interrupt(self.executor, Some(self.task), how)
            .await?;
        Ok(())
    }

    async fn resize(&self) {
        if let Some((columns, rows)) = terminal::size() {
            let resized = self.client.resize(self.executor, self.task, columns, rows);
            // A terminal of the wrong size is better than none.
            if let Err(error) = resized.await {
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
