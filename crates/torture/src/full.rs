//! `full`: the disk of one part of the node is full, and then there is room again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Common;
use crate::hand::{Hand, Outcome};
use crate::place::{self, Place};
use crate::protocol::{Answer, Edit, Look, Op};
use crate::report::Report;

/// How long a part may take to work again once there is room.
const PATIENCE: Duration = Duration::from_secs(2);
const EXECUTOR: &str = "x0";

/// A part of the node with a disk of its own.
struct Part {
    name: &'static str,
    /// Below the node's directory.
    at: &'static str,
    megabytes: u32,
}

const PARTS: [Part; 4] = [
    Part {
        name: "ledger",
        at: "ledger",
        // Its file never becomes shorter: each round must find some of the disk still free of it.
        megabytes: 512,
    },
    Part {
        name: "volume",
        at: "volumes/volumes",
        megabytes: 8,
    },
    Part {
        name: "log",
        at: "logs",
        megabytes: 16,
    },
    Part {
        name: "engine",
        at: "root",
        megabytes: 128,
    },
];

/// A mounted file system in memory; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, megabytes: u32) -> Result<Self> {
        std::fs::create_dir_all(&at)?;
        let options = format!("size={megabytes}m");
        mount(
            Some("plt"),
            &at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("cannot mount {}", at.display()))?;
        Ok(Self(at))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Writes until there is no room for another byte.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    piece.truncate(piece.len() / 2);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

pub(crate) fn run(common: &Common) -> Result<bool> {
    let rounds = common.rounds.unwrap_or(200);
    let seed = common.seed();
    let mut report = Report::new("full", seed);
    let place = Place::new(&common.directory)?;
    let data = place::data(place.directory());
    let mut disks = Vec::new();
    for part in &PARTS {
        disks.push(Disk::mount(data.join(part.at), part.megabytes)?);
    }
    let started = Instant::now();
    let mut torture = Full {
        hand: open(place.directory())?,
        value: 0,
        heavy: Vec::new(),
        report: &mut report,
    };
    torture.setup()?;
    for round in 0..rounds {
        let at = round as usize % PARTS.len();
        torture.round(PARTS[at].name, &disks[at])?;
        if round % 20 == 19 {
            let wrongs = torture.report.wrongs();
            println!("{:>5} full disks, {wrongs} wrong", round + 1);
        }
    }
    torture.hand.close()?;
    report.set("full_disks", rounds);
    report.set("seconds", started.elapsed().as_secs());
    drop(place);
    Ok(report.finish())
}

fn open(directory: &Path) -> Result<Hand> {
    let mut hand = Hand::start(directory, None)?;
    match hand.opened(None)? {
        Outcome::Answered(Answer::Opened { .. }) => Ok(hand),
        other => bail!("the worker did not open: {other:?}"),
    }
}

struct Full<'a> {
    hand: Hand,
    value: u64,
    /// Elements whose creation was acknowledged in this round and that fill the ledger.
    heavy: Vec<String>,
    report: &'a mut Report,
}

impl Full<'_> {
    fn setup(&mut self) -> Result<()> {
        ensure!(
            self.hand.must(&Op::Setup)? == Answer::Done,
            "the setup was refused"
        );
        self.hand.must(&Op::CreateExecutor {
            name: EXECUTOR.into(),
        })?;
        let edits = vec![Edit::JoinImage, Edit::JoinTask("quick-7".into())];
        self.hand.must(&Op::Commit {
            executor: EXECUTOR.into(),
            edits,
        })?;
        Ok(())
    }

    fn round(&mut self, part: &str, disk: &Disk) -> Result<()> {
        disk.fill()?;
        let refused = match part {
            "log" => {
                self.log_is_full()?;
                true
            }
            _ => self.is_refused(part)?,
        };
        if !refused {
            self.report
                .wrong(format!("{part}: nothing was refused on a full disk"));
        }
        self.reads_go_on(part)?;
        disk.free()?;
        let since = Instant::now();
        loop {
            let op = self.op(part);
            let answer = self.hand.must(&op)?;
            if self.undo(&op, &answer)? {
                break;
            }
            if since.elapsed() > PATIENCE {
                self.report
                    .wrong(format!("{part}: still refused with room: {answer:?}"));
                break;
            }
        }
        for name in std::mem::take(&mut self.heavy) {
            self.hand.must(&Op::DeleteVolume { name })?;
        }
        Ok(())
    }

    /// Something that needs room in this part.
    fn op(&mut self, part: &str) -> Op {
        self.value += 1;
        match part {
            // A new one each time: what is replaced, the ledger puts where the old one was.
            "ledger" => Op::CreateHeavy {
                name: format!("h{}", self.value),
                bytes: 48 << 10,
            },
            "volume" => Op::CreateFilled {
                name: format!("n{}", self.value),
                bytes: 256 << 10,
            },
            _ => Op::Commit {
                executor: EXECUTOR.into(),
                edits: vec![Edit::BindAll],
            },
        }
    }

    /// Takes back what was done; false when it was refused.
    fn undo(&mut self, op: &Op, answer: &Answer) -> Result<bool> {
        match (op, answer) {
            (Op::CreateFilled { name, .. }, Answer::Done) => {
                self.hand.must(&Op::DeleteVolume { name: name.clone() })?;
                Ok(true)
            }
            (Op::Commit { .. }, Answer::Committed { runs }) => {
                for (task, run) in runs {
                    let (executor, task) = (EXECUTOR.to_owned(), task.clone());
                    self.hand.must(&Op::Wait {
                        executor,
                        task,
                        run: *run,
                    })?;
                }
                Ok(true)
            }
            // It stays until the round is over: it is what fills the ledger's disk.
            (Op::CreateHeavy { name, .. }, Answer::Done) => {
                self.heavy.push(name.clone());
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Asks until something is refused; the refusal must say that there is no space.
    fn is_refused(&mut self, part: &str) -> Result<bool> {
        for _ in 0..5000 {
            let op = self.op(part);
            match self.hand.must(&op)? {
                Answer::Refused { text, reason } => {
                    if !reason.contains("space") {
                        self.report
                            .wrong(format!("{part}: refused as {reason}: {text}"));
                    }
                    self.report.add("refused", 1);
                    return Ok(true);
                }
                answer => {
                    self.undo(&op, &answer)?;
                }
            }
        }
        Ok(false)
    }

    /// A task that writes must end as ever; what it wrote is dropped and counted.
    fn log_is_full(&mut self) -> Result<()> {
        let op = self.op("log");
        let answer = self.hand.must(&op)?;
        if !self.undo(&op, &answer)? {
            self.report.wrong(format!(
                "log: a full log kept a task from running: {answer:?}"
            ));
        }
        Ok(())
    }

    fn reads_go_on(&mut self, part: &str) -> Result<()> {
        let look = Look {
            from: 1,
            ..Look::default()
        };
        let Answer::State(state) = self.hand.must(&Op::State(look))? else {
            bail!("no state");
        };
        let found: BTreeSet<_> = state.volumes.iter().map(|(name, _)| name).collect();
        for name in self.heavy.iter().filter(|name| !found.contains(name)) {
            self.report
                .wrong(format!("{part}: the volume {name} is lost"));
        }
        let wrong = state.exits.iter().filter(|exit| exit.code != Some(7));
        for exit in wrong {
            self.report.wrong(format!("{part}: {exit:?}"));
        }
        Ok(())
    }
}
