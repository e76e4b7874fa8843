//! `logs`: the reader of a task's output dies again and again while the task writes as fast as it can.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::Common;
use crate::hand::{Hand, Outcome};
use crate::place::Place;
use crate::protocol::{Answer, Edit, Look, Op};
use crate::report::Report;
use crate::tasks::{FLOOD, FLOOD_TASK};

pub(crate) fn run(common: &Common) -> Result<bool> {
    let rounds = common.rounds.unwrap_or(1000);
    let seed = common.seed();
    let mut report = Report::new("logs", seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut place = Place::new(&common.directory)?;
    let started = Instant::now();
    let mut hand = open(&place)?;
    ensure!(
        hand.must(&Op::Setup)? == Answer::Done,
        "the setup was refused"
    );
    let (mut deaths, mut bytes, mut floods) = (0, 0, 0);
    while deaths < rounds {
        // A flood ends by itself some time; then the next begins, in an executor of its own: what is kept of one is bounded.
        let executor = format!("x{floods}");
        floods += 1;
        hand.must(&Op::CreateExecutor {
            name: executor.clone(),
        })?;
        let op = Op::Commit {
            executor: executor.clone(),
            edits: vec![
                Edit::JoinImage,
                Edit::JoinTask(FLOOD_TASK.into()),
                Edit::BindAll,
            ],
        };
        let Answer::Committed { runs } = hand.must(&op)? else {
            bail!("the flood was not started");
        };
        let run = runs.first().map_or(0, |run| run.1);
        let wait = Op::Wait {
            executor: executor.clone(),
            task: FLOOD_TASK.into(),
            run,
        };
        loop {
            let last = deaths >= rounds;
            let moment = Duration::from_millis(random.u64(1..60));
            let kill_at = (!last).then(|| Instant::now() + moment);
            match hand.ask(&wait, kill_at)? {
                Outcome::Answered(_) => break,
                Outcome::Killed => {
                    deaths += 1;
                    report.add("deaths", 1);
                    if deaths % 100 == 0 {
                        println!("{deaths:>6} deaths");
                    }
                    hand = open(&place)?;
                }
                Outcome::Died => bail!("the worker died by itself"),
            }
        }
        // A kill may have come with the answer.
        drop(hand);
        hand = open(&place)?;
        bytes += judge(&mut hand, &executor, &mut report)?;
        hand.must(&Op::DeleteExecutor { name: executor })?;
    }
    report.set("floods", floods);
    report.set("bytes", bytes);
    report.set("seconds", started.elapsed().as_secs());
    hand.close()?;
    if report.wrongs() > 0 && common.keep {
        place.keep();
    }
    Ok(report.finish())
}

fn open(place: &Place) -> Result<Hand> {
    let mut hand = Hand::start(place.directory(), None)?;
    match hand.opened(None)? {
        Outcome::Answered(Answer::Opened { .. }) => Ok(hand),
        other => bail!("the worker did not open: {other:?}"),
    }
}

/// The log of a flood must be exactly what it wrote.
fn judge(hand: &mut Hand, executor: &str, report: &mut Report) -> Result<u64> {
    let look = Look {
        from: 1,
        logs: vec![(executor.into(), FLOOD_TASK.into())],
        audit: true,
        ..Look::default()
    };
    let Answer::State(state) = hand.must(&Op::State(look))? else {
        bail!("no state");
    };
    for leak in &state.leaks {
        report.wrong(format!("leaked: {leak}"));
    }
    for exit in &state.exits {
        if exit.code != Some(FLOOD.code) {
            report.wrong(format!("a wrong exit record: {exit:?}"));
        }
    }
    for log in &state.logs {
        for (stream, text) in [("out", &log.out), ("err", &log.err)] {
            let wanted = FLOOD.text(stream);
            if *text != wanted {
                let at = text
                    .bytes()
                    .zip(wanted.bytes())
                    .take_while(|(a, b)| a == b)
                    .count();
                report.wrong(format!(
                    "{stream}: {} bytes of {}, different from byte {at}",
                    text.len(),
                    wanted.len()
                ));
            }
        }
        if log.lost > 0 {
            report.wrong(format!("{} bytes dropped", log.lost));
        }
    }
    let written = FLOOD.text("out").len() + FLOOD.text("err").len();
    Ok(written as u64)
}
