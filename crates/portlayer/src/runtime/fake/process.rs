//! One process of the [fake engine](super::fake): a script that runs as a tokio task.

use tokio::sync::{mpsc, watch};

use crate::element::ElementId;
use crate::runtime::{ProcessExit, ProcessPlan, RuntimeErrorKind};
use crate::task::ExitReason;
use crate::time::Timestamp;

/// Where a process stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    Created,
    Running,
    Ended(ProcessExit),
}

/// How a script ended.
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    Oom,
    Lost,
}

impl Ended {
    pub(super) fn exit(self) -> ProcessExit {
        let (reason, code, signal) = match self {
            Ended::Code(code) => (ExitReason::Exited, Some(code), None),
            Ended::Signal(signal) => (ExitReason::Signaled, None, Some(signal)),
            Ended::Oom => (ExitReason::Oom, None, Some(9)),
            Ended::Lost => (ExitReason::Lost, None, None),
        };
        ProcessExit {
            reason,
            code,
            signal,
            exited: Timestamp::now(),
            cpu_ns: None,
            memory_peak_bytes: None,
        }
    }
}

pub(super) struct FakeProcess {
    pub(super) task: ElementId,
    pub(super) argv: Vec<String>,
    pub(super) primary: bool,
    pub(super) terminal: bool,
    phase: watch::Sender<Phase>,
    signals: Option<mpsc::UnboundedSender<i32>>,
    stdin: bool,
    input: Option<mpsc::Sender<Vec<u8>>>,
}

impl FakeProcess {
    pub(super) fn new(plan: &ProcessPlan) -> Self {
        Self {
            task: plan.task.clone(),
            argv: plan.process.args().clone().unwrap_or_default(),
            primary: plan.primary,
            terminal: plan.process.terminal().unwrap_or_default(),
            phase: watch::Sender::new(Phase::Created),
            signals: None,
            stdin: plan.stdin,
            input: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    pub(super) fn signal(&self, signal: i32) {
        if let Some(signals) = &self.signals {
            // A script that ended hears nothing.
            let _ = signals.send(signal);
        }
    }

    pub(super) fn lose(&self) {
        self.phase.send_replace(Phase::Ended(Ended::Lost.exit()));
    }

    pub(super) fn take_input(&mut self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.input.take()
    }

    /// False when it was started before.
    pub(super) fn start(&mut self, output: impl Fn(bool, Vec<u8>) + Send + 'static) -> bool {
        if self.phase() != Phase::Created {
            return false;
        }
        let (signals, heard) = mpsc::unbounded_channel();
        let (input, read) = mpsc::channel(1);
        self.signals = Some(signals);
        self.input = self.stdin.then_some(input);
        self.phase.send_replace(Phase::Running);
        let (phase, argv) = (self.phase.clone(), self.argv.clone());
        tokio::spawn(async move {
            let ended = run(&argv, heard, read, output).await;
            phase.send_if_modified(|phase| {
                let first = *phase == Phase::Running;
                if first {
                    *phase = Phase::Ended(ended.exit());
                }
                first
            });
        });
        true
    }
}

/// Why the script cannot be started.
pub(super) fn script_error(argv: &[String]) -> Option<RuntimeErrorKind> {
    let known = [
        "echo", "err", "sleep", "hang", "trap", "cat", "oom", "exit", "true",
    ];
    let program = argv.first().map_or("", String::as_str);
    if program == "denied" {
        return Some(RuntimeErrorKind::NotExecutable);
    }
    (!known.contains(&program)).then_some(RuntimeErrorKind::ExecutableNotFound)
}

async fn run(
    argv: &[String],
    mut signals: mpsc::UnboundedReceiver<i32>,
    mut input: mpsc::Receiver<Vec<u8>>,
    output: impl Fn(bool, Vec<u8>),
) -> Ended {
    let mut trapped = Vec::new();
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        let mut argument = || words.next().cloned().unwrap_or_default();
        let wait = match word.as_str() {
            "echo" => {
                output(false, format!("{}\n", argument()).into_bytes());
                None
            }
            "err" => {
                output(true, format!("{}\n", argument()).into_bytes());
                None
            }
            "trap" => {
                trapped.push(argument().parse().unwrap_or_default());
                None
            }
            "exit" => return Ended::Code(argument().parse().unwrap_or(255)),
            "oom" => return Ended::Oom,
            "sleep" => Some(argument().parse().unwrap_or_default()),
            "hang" => Some(u64::MAX / 2_000_000),
            "cat" => {
                loop {
                    tokio::select! {
                        piece = input.recv() => match piece {
                            Some(piece) => output(false, piece),
                            None => break,
                        },
                        signal = signals.recv() => match signal {
                            Some(signal) if !ends(signal, &trapped) => {}
                            Some(signal) => return Ended::Signal(signal),
                            None => return Ended::Lost,
                        },
                    }
                }
                None
            }
            _ => None,
        };
        let Some(millis) = wait else { continue };
        let until = tokio::time::sleep(std::time::Duration::from_millis(millis));
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                signal = signals.recv() => match signal {
                    Some(signal) if !ends(signal, &trapped) => {}
                    Some(signal) => return Ended::Signal(signal),
                    None => return Ended::Lost,
                },
            }
        }
    }
    Ended::Code(0)
}

fn ends(signal: i32, trapped: &[i32]) -> bool {
    signal == 9 || !trapped.contains(&signal)
}
