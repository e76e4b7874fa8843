//! `kill`: the port layer dies by SIGKILL at named points and at random moments, and is started again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use portlayer::crash::POINTS;

use crate::Common;
use crate::hand::{Hand, Outcome};
use crate::model::{Faults, Model};
use crate::place::Place;
use crate::protocol::{Answer, Edit, Look, Op};
use crate::report::Report;
use crate::tasks::TEMPLATES;

/// Operations a worker gets to come to its point.
const OPS: usize = 8;
/// The same when the point is in the end of tasks or their restart, which takes its time.
const PATIENCE: Duration = Duration::from_millis(700);
const EXECUTORS: [&str; 4] = ["x0", "x1", "x2", "x3"];
const VOLUMES: [&str; 5] = ["v0", "v1", "v2", "v3", "v4"];
/// Volumes that are mounted.
const MOUNTED: [&str; 2] = ["d0", "d1"];

/// What a worker does to come to points of this prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bias {
    Elements,
    Start,
    Change,
    Ends,
    Any,
}

fn bias(point: &str) -> Bias {
    match point.split('.').next() {
        Some("create" | "update" | "delete") => Bias::Elements,
        Some("start" | "engine") => Bias::Start,
        Some("change" | "step") => Bias::Change,
        Some("exit" | "restart" | "log") => Bias::Ends,
        _ => Bias::Any,
    }
}

pub(crate) fn run(common: &Common, prefix: Option<&str>) -> Result<bool> {
    let rounds = common.rounds.unwrap_or(1000);
    let seed = common.seed();
    let mut report = Report::new("kill", seed);
    let mut place = Place::new(&common.directory)?;
    let mut torturer = Torturer {
        model: Model::new(Faults::None),
        random: fastrand::Rng::with_seed(seed),
        hits: BTreeMap::new(),
        opened: Vec::new(),
        value: 0,
    };
    let points: Vec<_> = POINTS
        .iter()
        .filter(|point| prefix.is_none_or(|prefix| point.starts_with(prefix)))
        .collect();
    ensure!(!points.is_empty(), "no point begins with {prefix:?}");
    let started = Instant::now();
    let outcome = torturer.run(&place, rounds, &points, &mut report);
    if outcome.is_err() || report.wrongs() > 0 {
        if common.keep {
            place.keep();
        }
        println!("{}", tail(&place));
    }
    outcome?;
    report.set("points_hit", torturer.hits.len() as u64);
    for (point, hits) in &torturer.hits {
        println!("  {hits:>5}  {point}");
    }
    report.set("seconds", started.elapsed().as_secs());
    report.spread("open_ms", torturer.opened);
    Ok(report.finish())
}

/// The last lines the workers wrote.
fn tail(place: &Place) -> String {
    let text = std::fs::read_to_string(crate::place::worker_log(place.directory()));
    let text = text.unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

struct Torturer {
    model: Model,
    random: fastrand::Rng,
    /// Deaths by point.
    hits: BTreeMap<String, u64>,
    /// Milliseconds from start to open.
    opened: Vec<f64>,
    value: u64,
}

impl Torturer {
    fn run(
        &mut self,
        place: &Place,
        rounds: u32,
        points: &[&&str],
        report: &mut Report,
    ) -> Result<()> {
        let mut hand = self.start(place, None)?;
        ensure!(
            hand.must(&Op::Setup)? == Answer::Done,
            "the setup was refused"
        );
        for name in MOUNTED {
            let op = Op::CreateVolume {
                name: name.into(),
                value: 0,
            };
            self.model.asked(&op);
            let answer = hand.must(&op)?;
            self.model.answered(&op, &answer);
        }
        hand.close()?;
        let mut order: Vec<usize> = Vec::new();
        for round in 0..rounds {
            if order.is_empty() {
                order = (0..points.len()).collect();
                self.random.shuffle(&mut order);
            }
            // Every eighth death is at a random moment.
            let point = match round % 8 {
                7 => None,
                _ => order.pop().map(|at| *points[at]),
            };
            self.round(place, point, report)?;
            report.add("kills", 1);
            if report.wrongs() > 60 {
                bail!("too much is wrong; see above");
            }
            if round % 50 == 49 {
                println!(
                    "{:>5} kills, {} runs, {} exits, {} wrong",
                    round + 1,
                    self.model.started(),
                    self.model.exits(),
                    report.wrongs()
                );
            }
        }
        self.end(place, report)
    }

    fn start(&mut self, place: &Place, point: Option<&str>) -> Result<Hand> {
        let mut hand = Hand::start(place.directory(), point)?;
        match hand.opened(None)? {
            Outcome::Answered(Answer::Opened { ms }) => {
                #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
                self.opened.push(ms as f64);
                Ok(hand)
            }
            other => bail!("the worker did not open: {other:?}"),
        }
    }

    /// One worker: opens (perhaps dies in that), is judged, works, dies.
    fn round(&mut self, place: &Place, point: Option<&str>, report: &mut Report) -> Result<()> {
        let armed = point.map(|point| {
            // What every operation comes to is passed a few times.
            let often = point.starts_with("ledger.before") || point.starts_with("ledger.after");
            let nth = match (often, point.starts_with("recover")) {
                (true, _) => self.random.u32(1..=12),
                (_, true) => 1,
                _ => self.random.u32(1..=2),
            };
            format!("{point}:{nth}")
        });
        let mut hand = Hand::start(place.directory(), armed.as_deref())?;
        match hand.opened(None)? {
            Outcome::Answered(Answer::Opened { ms }) => {
                #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
                self.opened.push(ms as f64);
            }
            Outcome::Died => {
                self.hit(point, true);
                return Ok(());
            }
            other => bail!("the worker did not open: {other:?}"),
        }
        if !self.look(&mut hand, report)? {
            self.hit(point, true);
            return Ok(());
        }
        let moment = Duration::from_millis(self.random.u64(1..400));
        let kill_at = point.is_none().then(|| Instant::now() + moment);
        let bias = point.map_or(Bias::Any, bias);
        for _ in 0..OPS {
            let op = self.choose(bias);
            self.model.asked(&op);
            match hand.ask(&op, kill_at)? {
                Outcome::Answered(answer) => {
                    if let Answer::Refused { .. } = &answer {
                        report.add("refused", 1);
                    }
                    if std::env::var_os("PORTLAYER_TORTURE_TALK").is_some() {
                        println!("{op:?} -> {answer:?}");
                    }
                    report.add("operations", 1);
                    self.model.answered(&op, &answer);
                }
                died => {
                    self.hit(point, matches!(died, Outcome::Died));
                    return Ok(());
                }
            }
        }
        if bias == Bias::Ends {
            let until = Instant::now() + PATIENCE;
            let wait = self.model.open_runs().into_iter().next_back();
            if let Some((executor, task, run)) = wait {
                let outcome = hand.ask(
                    &Op::Wait {
                        executor,
                        task,
                        run,
                    },
                    Some(until),
                )?;
                if let Outcome::Died = outcome {
                    self.hit(point, true);
                    return Ok(());
                }
            }
        }
        hand.kill()?;
        self.hit(point, false);
        Ok(())
    }

    fn hit(&mut self, point: Option<&str>, died: bool) {
        self.model.died();
        let name = match (point, died) {
            (Some(point), true) => point,
            (Some(_), false) => "(did not come to its point)",
            (None, _) => "(random moment)",
        };
        *self.hits.entry(name.to_owned()).or_default() += 1;
    }

    /// Asks what there is and judges it; false when the worker died.
    fn look(&mut self, hand: &mut Hand, report: &mut Report) -> Result<bool> {
        let look = Look {
            from: self.model.from,
            logs: self.model.quiet_logs(),
            exits_of: self
                .random
                .choice(EXECUTORS)
                .filter(|name| self.model.joined(name).is_some())
                .map(str::to_owned),
            audit: true,
        };
        match hand.ask(&Op::State(look), None)? {
            Outcome::Answered(Answer::State(state)) => {
                self.model.judge(&state, report);
                Ok(true)
            }
            Outcome::Died => Ok(false),
            other => bail!("no state: {other:?}"),
        }
    }

    /// Stops everything, waits for the ends and judges for the last time.
    fn end(&mut self, place: &Place, report: &mut Report) -> Result<()> {
        let mut hand = self.start(place, None)?;
        self.look(&mut hand, report)?;
        for executor in EXECUTORS {
            let Some(joined) = self.model.joined(executor).cloned() else {
                continue;
            };
            let tasks = joined
                .iter()
                .filter(|name| TEMPLATES.iter().any(|t| t.name == **name));
            let edits = tasks.map(|task| Edit::UnbindTask(task.clone()));
            for edit in edits {
                // One by one: what has ended already refuses.
                let op = Op::Commit {
                    executor: executor.into(),
                    edits: vec![edit],
                };
                self.model.asked(&op);
                let answer = hand.must(&op)?;
                self.model.answered(&op, &answer);
            }
        }
        for (executor, task, run) in self.model.open_runs() {
            hand.must(&Op::Wait {
                executor,
                task,
                run,
            })?;
        }
        self.look(&mut hand, report)?;
        self.look(&mut hand, report)?;
        self.model.judge_end(report);
        report.set("runs", self.model.started() as u64);
        report.set("exits", self.model.exits() as u64);
        hand.close()
    }

    fn choose(&mut self, bias: Bias) -> Op {
        let elements = match bias {
            Bias::Elements => 9,
            Bias::Any => 4,
            _ => 1,
        };
        if self.random.u32(..10) < elements {
            return self.element();
        }
        let executor = (*self.random.choice(&EXECUTORS).unwrap_or(&"x0")).to_owned();
        let Some(joined) = self.model.joined(&executor).cloned() else {
            return Op::CreateExecutor { name: executor };
        };
        let live = self.model.is_live(&executor);
        let commit = |edits| Op::Commit {
            executor: executor.clone(),
            edits,
        };
        if joined.is_empty() {
            return commit(self.first(bias));
        }
        if !live {
            return match self.random.u32(..6) {
                0 => Op::DeleteExecutor { name: executor },
                _ => commit(vec![Edit::BindAll]),
            };
        }
        let tasks: Vec<_> = TEMPLATES.iter().map(|template| template.name).collect();
        let some =
            |random: &mut fastrand::Rng| (*random.choice(&tasks).unwrap_or(&"stay")).to_owned();
        let member = |random: &mut fastrand::Rng| {
            let members: Vec<_> = joined
                .iter()
                .filter(|name| tasks.contains(&name.as_str()))
                .collect();
            random.choice(&members).map(|name| (*name).clone())
        };
        let start_often = matches!(bias, Bias::Start | Bias::Ends);
        match self.random.u32(..12) {
            0..=3 => {
                let task = some(&mut self.random);
                match joined.contains(&task) {
                    true => commit(vec![Edit::BindTask(task)]),
                    false => commit(vec![Edit::JoinTask(task.clone()), Edit::BindTask(task)]),
                }
            }
            4 if start_often => commit(vec![Edit::UnbindAll]),
            4 => match member(&mut self.random) {
                Some(task) => Op::Stop { executor, task },
                None => commit(vec![Edit::BindAll]),
            },
            5 | 6 => match member(&mut self.random) {
                Some(task) => commit(vec![Edit::LeaveTask(task)]),
                None => commit(vec![Edit::BindAll]),
            },
            7 => commit(vec![Edit::UnbindAll]),
            8..=9 => {
                let volume = (*self.random.choice(&MOUNTED).unwrap_or(&"d0")).to_owned();
                match joined.contains(&volume) {
                    true => commit(vec![Edit::LeaveVolume(volume)]),
                    false => commit(vec![
                        Edit::JoinVolume(volume.clone()),
                        Edit::BindVolume(volume),
                    ]),
                }
            }
            _ => match member(&mut self.random) {
                Some(task) => commit(vec![Edit::UnbindTask(task)]),
                None => commit(vec![Edit::BindAll]),
            },
        }
    }

    /// The first composition of an executor.
    fn first(&mut self, bias: Bias) -> Vec<Edit> {
        let mut edits = vec![Edit::JoinImage];
        if self.random.bool() {
            let volume = self.random.choice(&MOUNTED).unwrap_or(&"d0");
            edits.push(Edit::JoinVolume((*volume).to_owned()));
        }
        let mut templates: Vec<_> = TEMPLATES.iter().map(|template| template.name).collect();
        if bias == Bias::Ends {
            templates.retain(|name| *name != "stay" && *name != "doze-5");
        }
        for name in self.random.choose_multiple(&templates, 2) {
            edits.push(Edit::JoinTask((*name).to_owned()));
        }
        edits.push(Edit::BindAll);
        edits
    }

    fn element(&mut self) -> Op {
        let name = (*self.random.choice(&VOLUMES).unwrap_or(&"v0")).to_owned();
        self.value += 1;
        let value = self.value;
        match self.model.volume(&name) {
            None => Op::CreateVolume { name, value },
            Some(_) if self.random.u32(..3) == 0 => Op::DeleteVolume { name },
            Some(_) => Op::UpdateVolume { name, value },
        }
    }
}
