//! The driver's side of a worker: starts it, asks it, kills it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::place;
use crate::protocol::{Answer, Op};
use crate::worker;

/// Longest wait for any answer: a worker that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running worker. Killed when dropped.
pub(crate) struct Hand {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    killed: bool,
}

/// What became of a question.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(Answer),
    /// It killed itself at its point before it answered.
    Died,
    /// The moment to kill it came before the answer; it is killed.
    Killed,
}

impl Hand {
    /// Starts a worker; `point` is `name[:nth]`.
    pub(crate) fn start(directory: &Path, point: Option<&str>) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(place::worker_log(directory))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(worker::COMMAND).arg(directory);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        command.env_remove("PORTLAYER_CRASH");
        if let Some(point) = point {
            command.env("PORTLAYER_CRASH", point);
        }
        let mut child = command.spawn().context("cannot start a worker")?;
        let (said, answers) = channel();
        let output = child.stdout.take().context("no standard output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            input: child.stdin.take(),
            child,
            answers,
            killed: false,
        })
    }

    /// The worker's first word: it is open.
    pub(crate) fn opened(&mut self, kill_at: Option<Instant>) -> Result<Outcome> {
        self.answer(kill_at)
    }

    /// Asks and waits for the answer, at most until `kill_at`: then it is killed.
    pub(crate) fn ask(&mut self, op: &Op, kill_at: Option<Instant>) -> Result<Outcome> {
        let mut line = serde_json::to_vec(op)?;
        line.push(b'\n');
        if let Some(input) = &mut self.input {
            // A worker that died has no ears; the answer tells.
            let _ = input.write_all(&line);
        }
        self.answer(kill_at)
    }

    /// Asks what must be answered.
    pub(crate) fn must(&mut self, op: &Op) -> Result<Answer> {
        match self.ask(op, None)? {
            Outcome::Answered(answer) => Ok(answer),
            Outcome::Died | Outcome::Killed => bail!("the worker died at {op:?}"),
        }
    }

    fn answer(&mut self, kill_at: Option<Instant>) -> Result<Outcome> {
        let limit = kill_at.map_or(PATIENCE, |at| at.saturating_duration_since(Instant::now()));
        match self.answers.recv_timeout(limit) {
            Ok(line) => Ok(Outcome::Answered(serde_json::from_str(&line)?)),
            Err(RecvTimeoutError::Timeout) if kill_at.is_some() => {
                self.kill()?;
                // What it said with its last breath was acknowledged.
                match self.answers.recv() {
                    Ok(line) => Ok(Outcome::Answered(serde_json::from_str(&line)?)),
                    Err(_) => Ok(Outcome::Killed),
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("the worker does not answer"),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                match status.signal() {
                    Some(9) if self.killed => Ok(Outcome::Killed),
                    Some(9) => Ok(Outcome::Died),
                    _ => bail!("the worker ended by itself: {status}"),
                }
            }
        }
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.killed = true;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it close the node and end.
    pub(crate) fn close(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the worker did not close: {status}");
        }
        Ok(())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
