//! `scale`: how long an open takes when there is much to find: many tasks that run and many that ended while nobody watched,
//! many leaked snapshots, many elements. What is found must be right however long it takes.

mod bulk;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portlayer::element::{ElementId, Kind};

use crate::Common;
use crate::hand::{Hand, Outcome};
use crate::place::{self, Place};
use crate::protocol::{Answer, Edit, Look, Op, State};
use crate::report::Report;
use crate::tasks::{GATED, GATED_TASK};

/// Longer than this nothing may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The volume with the FIFO that gated tasks wait at.
const GATE: &str = "gate";

/// How much there is to find.
#[derive(Debug, clap::Args)]
pub(crate) struct Sizes {
    /// Tasks that run, and as many that end while nobody watches
    #[arg(long, default_value_t = 100)]
    tasks: u32,
    /// Snapshots that nobody owns
    #[arg(long, default_value_t = 10_000)]
    snapshots: u32,
    /// Elements; a tenth of them beside the snapshots
    #[arg(long, default_value_t = 1_000_000)]
    elements: u32,
}

impl Sizes {
    /// The sizes the targets are meant for.
    fn are_full(&self) -> bool {
        self.tasks >= 100 && self.snapshots >= 10_000 && self.elements >= 1_000_000
    }
}

pub(crate) fn run(common: &Common, sizes: &Sizes) -> Result<bool> {
    let mut scale = Scale {
        common,
        report: Report::new("scale", common.seed()),
        full: sizes.are_full(),
    };
    scale.tasks(sizes.tasks)?;
    scale.leaked(sizes.snapshots, sizes.elements / 10)?;
    scale.elements(sizes.elements)?;
    Ok(scale.report.finish())
}

struct Scale<'a> {
    common: &'a Common,
    report: Report,
    full: bool,
}

impl Scale<'_> {
    /// Notes how long something took. With less to find than the target is meant for it is only told.
    fn took(&mut self, figure: &str, took: Duration, target_s: u64) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        println!("{figure:>28} {ms:>8}");
        self.report.set(figure, ms);
        if self.full && took > Duration::from_secs(target_s) {
            self.report
                .wrong(format!("{figure}: {ms} ms are more than {target_s} s"));
        }
    }

    /// Tasks that run and tasks that end while nobody watches: kill -9, then an open.
    fn tasks(&mut self, count: u32) -> Result<()> {
        let place = Place::new(&self.common.directory)?;
        let mut hand = open(&place)?;
        done(&mut hand, &Op::Setup)?;
        done(
            &mut hand,
            &Op::CreateVolume {
                name: GATE.into(),
                value: 0,
            },
        )?;
        let gate = gate(place.directory())?;
        mkfifo(&gate, Mode::from_bits_truncate(0o666))
            .context("cannot make a FIFO in the volume")?;
        std::fs::set_permissions(&gate, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        for number in 0..count * 2 {
            start(&mut hand, number, number % 2 == 0)?;
        }
        let State { last, .. } = state(&mut hand, 1, false)?;
        hand.kill()?;
        drop(hand);
        // One line for each; what is not read stays in the FIFO as long as it is open.
        let mut open_gate = File::options().read(true).write(true).open(&gate)?;
        open_gate.write_all(&vec![b'\n'; count as usize * 2])?;
        let begun = Instant::now();
        while bulk::waits_at(&gate_inside())? > 0 {
            ensure!(begun.elapsed() < LIMIT, "the tasks do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(open_gate);

        let begun = Instant::now();
        let mut hand = open(&place)?;
        self.took("tasks_ready_ms", begun.elapsed(), 2);
        let mut exits = Vec::new();
        let mut from = last + 1;
        let found = loop {
            let found = state(&mut hand, from, false)?;
            from = found.last + 1;
            exits.extend(found.exits.clone());
            let running = found
                .executors
                .iter()
                .filter(|executor| executor.live)
                .count();
            if exits.len() >= count as usize && running <= count as usize {
                break found;
            }
            if begun.elapsed() > LIMIT {
                break found;
            }
        };
        self.took("tasks_right_ms", begun.elapsed(), 2);
        let running = found
            .executors
            .iter()
            .filter(|executor| executor.live)
            .count();
        if running != count as usize || exits.len() != count as usize {
            self.report.wrong(format!(
                "{running} run and {} ended, of {count} each",
                exits.len()
            ));
        }
        for exit in exits {
            if exit.reason != "exited" || exit.code != Some(GATED.code) {
                self.report.wrong(format!("a wrong exit record: {exit:?}"));
            }
        }
        for leak in state(&mut hand, from, true)?.leaks {
            self.report.wrong(format!("leaked: {leak}"));
        }
        self.report.set("tasks", u64::from(count) * 2);
        hand.kill()
    }

    /// Snapshots nobody owns among many elements: ready at once, and swept while it serves.
    fn leaked(&mut self, snapshots: u32, elements: u32) -> Result<()> {
        let place = Place::new(&self.common.directory)?;
        let directory = place.directory();
        bulk::elements(directory, elements)?;
        let begun = Instant::now();
        bulk::snapshots(directory, snapshots)?;
        println!("{snapshots} snapshots made in {:.0?}", begun.elapsed());
        let begun = Instant::now();
        let mut hand = open(&place)?;
        self.took("leaked_ready_ms", begun.elapsed(), 2);
        let leaks = loop {
            let leaks = state(&mut hand, u64::MAX / 2, true)?.leaks;
            if leaks.is_empty() || begun.elapsed() > LIMIT {
                break leaks.len();
            }
        };
        self.report.set(
            "leaked_swept_ms",
            u64::try_from(begun.elapsed().as_millis())?,
        );
        if leaks > 0 {
            self.report.wrong(format!(
                "{leaks} of {snapshots} leaked snapshots are still there"
            ));
        }
        self.report.set("snapshots", snapshots);
        hand.close()
    }

    /// Many elements: an open after a clean end, and one after a kill.
    fn elements(&mut self, elements: u32) -> Result<()> {
        let place = Place::new(&self.common.directory)?;
        let begun = Instant::now();
        bulk::elements(place.directory(), elements)?;
        println!("{elements} elements made in {:.0?}", begun.elapsed());
        for figure in ["elements_ready_ms", "elements_ready_after_kill_ms"] {
            let begun = Instant::now();
            let mut hand = open(&place)?;
            self.took(figure, begun.elapsed(), 6);
            hand.kill()?;
        }
        self.report.set("elements", elements);
        Ok(())
    }
}

fn open(place: &Place) -> Result<Hand> {
    let mut hand = Hand::start(place.directory(), None)?;
    match hand.opened(None)? {
        Outcome::Answered(Answer::Opened { .. }) => Ok(hand),
        other => bail!("the worker did not open: {other:?}"),
    }
}

fn done(hand: &mut Hand, op: &Op) -> Result<()> {
    let answer = hand.must(op)?;
    ensure!(answer == Answer::Done, "{op:?} was answered {answer:?}");
    Ok(())
}

/// An executor with a task that stays, or one that waits at the gate.
fn start(hand: &mut Hand, number: u32, stays: bool) -> Result<()> {
    let name = format!("x{number}");
    done(hand, &Op::CreateExecutor { name: name.clone() })?;
    let task = if stays { "stay" } else { GATED_TASK };
    let edits = vec![
        Edit::JoinImage,
        Edit::JoinVolume(GATE.into()),
        Edit::JoinTask(task.into()),
        Edit::BindAll,
    ];
    let answer = hand.must(&Op::Commit {
        executor: name,
        edits,
    })?;
    ensure!(matches!(answer, Answer::Committed { .. }), "{answer:?}");
    Ok(())
}

fn state(hand: &mut Hand, from: u64, audit: bool) -> Result<State> {
    let look = Look {
        from,
        audit,
        ..Look::default()
    };
    match hand.must(&Op::Running(look))? {
        Answer::State(state) => Ok(*state),
        other => bail!("no state: {other:?}"),
    }
}

/// Where the FIFO is on the host.
fn gate(directory: &Path) -> Result<std::path::PathBuf> {
    let volume = ElementId::new(Kind::Volume, "volumes", GATE)?;
    let live = place::data(directory).join("volumes/volumes/live");
    Ok(live.join(volume.digest_hex()).join("open"))
}

/// Where it is in an executor.
fn gate_inside() -> String {
    format!("/tmp/{GATE}/open")
}
