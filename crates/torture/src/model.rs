//! Everything that was acknowledged, and the judge of what a worker finds after a kill.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::{Answer, Edit, Exit, LogSeen, Op, State};
use crate::report::Report;
use crate::tasks::{TEMPLATES, Template};

/// A value as acknowledged, and as it may be because of an operation whose answer did not come.
#[derive(Debug, Clone, Default)]
struct Cell<T> {
    acknowledged: T,
    perhaps: Option<T>,
}

impl<T: PartialEq + Clone> Cell<T> {
    fn set(&mut self, value: T) {
        (self.acknowledged, self.perhaps) = (value, None);
    }

    /// Takes what was found for true; false when it cannot be.
    fn find(&mut self, found: &T) -> bool {
        let possible = self.acknowledged == *found || self.perhaps.as_ref() == Some(found);
        self.set(found.clone());
        possible
    }
}

/// What an executor is; `None` = there is none.
type Joined = Option<BTreeSet<String>>;
/// Executor and task.
pub(crate) type Place = (String, String);

/// Faults of the engine that explain ends nobody wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// The engine lives: every end is exact.
    None,
    /// Shims were killed: a run may be killed or lost.
    Shims,
}

/// The model.
pub(crate) struct Model {
    faults: Faults,
    volumes: BTreeMap<String, Cell<Option<u64>>>,
    executors: BTreeMap<String, Cell<Joined>>,
    /// An element of a partly done or unanswered commit: its members are taken as found.
    loose: BTreeSet<String>,
    /// Runs whose start was acknowledged.
    started: BTreeSet<(String, String, u32)>,
    /// Runs that may have been stopped by us, by place: from this run on.
    stopped: BTreeMap<Place, BTreeSet<u32>>,
    exits: BTreeMap<(String, String, u32), Exit>,
    /// Next event wanted.
    pub(crate) from: u64,
    /// How far each log was judged: run, bytes of both streams, and how many deaths there had been.
    judged: BTreeMap<Place, (u32, usize, usize, u32)>,
    /// Logs that went with their executor while runs may have been unknown: what is found next is where judging begins.
    unmeasured: BTreeSet<Place>,
    /// Newest run by place and whether it runs, as last found.
    runs: BTreeMap<Place, (u32, bool)>,
    live: BTreeSet<String>,
    leaks: BTreeSet<String>,
    /// Deaths of the port layer.
    deaths: u32,
}

impl Model {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults,
            volumes: BTreeMap::new(),
            executors: BTreeMap::new(),
            loose: BTreeSet::new(),
            started: BTreeSet::new(),
            stopped: BTreeMap::new(),
            exits: BTreeMap::new(),
            from: 1,
            judged: BTreeMap::new(),
            unmeasured: BTreeSet::new(),
            runs: BTreeMap::new(),
            live: BTreeSet::new(),
            leaks: BTreeSet::new(),
            deaths: 0,
        }
    }

    /// What is joined to an executor; `None` = there is no such executor.
    pub(crate) fn joined(&self, executor: &str) -> Option<&BTreeSet<String>> {
        self.executors.get(executor)?.acknowledged.as_ref()
    }

    /// Whether an executor was found running.
    pub(crate) fn is_live(&self, executor: &str) -> bool {
        self.live.contains(executor)
    }

    pub(crate) fn volume(&self, name: &str) -> Option<u64> {
        self.volumes.get(name)?.acknowledged
    }

    /// Runs that started and have no exit record yet.
    pub(crate) fn open_runs(&self) -> Vec<(String, String, u32)> {
        let open = self.started.iter();
        open.filter(|run| !self.exits.contains_key(run))
            .cloned()
            .collect()
    }

    pub(crate) fn exits(&self) -> usize {
        self.exits.len()
    }

    pub(crate) fn started(&self) -> usize {
        self.started.len()
    }

    /// Notes that the port layer died.
    pub(crate) fn died(&mut self) {
        self.deaths += 1;
    }

    /// Notes that an operation is about to be asked for: what it does may be found from here on.
    pub(crate) fn asked(&mut self, op: &Op) {
        match op {
            Op::CreateVolume { name, value } | Op::UpdateVolume { name, value } => {
                self.volumes.entry(name.clone()).or_default().perhaps = Some(Some(*value));
            }
            Op::DeleteVolume { name } => {
                self.volumes.entry(name.clone()).or_default().perhaps = Some(None);
            }
            Op::CreateExecutor { name } => {
                self.executors.entry(name.clone()).or_default().perhaps =
                    Some(Some(BTreeSet::new()));
            }
            Op::DeleteExecutor { name } => {
                self.executors.entry(name.clone()).or_default().perhaps = Some(None);
            }
            Op::Commit { executor, edits } => {
                let after = self.after(executor, edits);
                self.executors.entry(executor.clone()).or_default().perhaps = Some(after);
                for task in self.stops(executor, edits) {
                    self.may_stop(executor, &task);
                }
            }
            Op::Stop { executor, task } => self.may_stop(executor, task),
            Op::Setup
            | Op::CreateFilled { .. }
            | Op::CreateHeavy { .. }
            | Op::Wait { .. }
            | Op::State(_)
            | Op::Running(_) => {}
        }
    }

    /// Takes the answer to an operation.
    pub(crate) fn answered(&mut self, op: &Op, answer: &Answer) {
        let done = match answer {
            Answer::Done | Answer::Committed { .. } => true,
            Answer::Refused { .. } => false,
            Answer::PartlyDone => {
                if let Op::Commit { executor, .. } = op {
                    self.loose.insert(executor.clone());
                }
                return;
            }
            Answer::Opened { .. } | Answer::State(_) => return,
        };
        match op {
            Op::CreateVolume { name, .. }
            | Op::UpdateVolume { name, .. }
            | Op::DeleteVolume { name } => {
                settle(self.volumes.entry(name.clone()).or_default(), done);
            }
            Op::CreateExecutor { name } => {
                settle(self.executors.entry(name.clone()).or_default(), done)
            }
            Op::DeleteExecutor { name } => {
                settle(self.executors.entry(name.clone()).or_default(), done);
                if done {
                    self.forget_logs(name);
                }
            }
            Op::Commit { executor, .. } => {
                settle(self.executors.entry(executor.clone()).or_default(), done);
            }
            Op::Setup
            | Op::CreateFilled { .. }
            | Op::CreateHeavy { .. }
            | Op::Stop { .. }
            | Op::Wait { .. }
            | Op::State(_)
            | Op::Running(_) => {}
        }
        if let (Op::Commit { executor, .. }, Answer::Committed { runs }) = (op, answer) {
            for (task, run) in runs {
                self.started.insert((executor.clone(), task.clone(), *run));
                self.runs
                    .insert((executor.clone(), task.clone()), (*run, true));
                self.live.insert(executor.clone());
            }
        }
    }

    /// Logs go with their executor, also of runs that started and ended since we last looked; runs are numbered on.
    fn forget_logs(&mut self, executor: &str) {
        let tasks = TEMPLATES.iter().map(|template| template.name.to_owned());
        self.unmeasured
            .extend(tasks.map(|task| (executor.to_owned(), task)));
    }

    fn after(&self, executor: &str, edits: &[Edit]) -> Joined {
        let mut joined = self.joined(executor).cloned().unwrap_or_default();
        for edit in edits {
            match edit {
                Edit::JoinImage => joined.insert("busybox".to_owned()),
                Edit::JoinVolume(name) | Edit::JoinTask(name) => joined.insert(name.clone()),
                Edit::LeaveTask(name) | Edit::LeaveVolume(name) => joined.remove(name),
                _ => false,
            };
        }
        Some(joined)
    }

    fn stops(&self, executor: &str, edits: &[Edit]) -> Vec<String> {
        let mut tasks = Vec::new();
        for edit in edits {
            match edit {
                Edit::UnbindTask(name) | Edit::LeaveTask(name) => tasks.push(name.clone()),
                Edit::UnbindAll => {
                    tasks.extend(self.joined(executor).into_iter().flatten().cloned())
                }
                _ => {}
            }
        }
        tasks
    }

    /// The run that is known, and the next one that may have started meanwhile, may end as stopped.
    fn may_stop(&mut self, executor: &str, task: &str) {
        let place = (executor.to_owned(), task.to_owned());
        let run = self.runs.get(&place).map_or(0, |(run, _)| *run);
        self.stopped.entry(place).or_default().extend(run..=run + 3);
    }

    /// Judges what was found. Everything found is taken for true afterwards, so that one fault is told once.
    pub(crate) fn judge(&mut self, state: &State, report: &mut Report) {
        self.judge_volumes(state, report);
        self.judge_executors(state, report);
        if state.gaps > 0 {
            report.wrong(format!("{} events are missing", state.gaps));
        }
        for exit in &state.exits {
            self.judge_exit(exit, report);
        }
        self.from = state.last + 1;
        for exit in &state.recorded {
            let key = (exit.executor.clone(), exit.task.clone(), exit.run);
            if self.exits.get(&key) != Some(exit) {
                report.wrong(format!(
                    "the exit record {exit:?} was told as {:?}",
                    self.exits.get(&key)
                ));
            }
        }
        for leak in &state.leaks {
            // Told once, however often it is found.
            if self.leaks.insert(leak.clone()) {
                report.add("leaks", 1);
                report.wrong(format!("leaked: {leak}"));
            }
        }
        for log in &state.logs {
            self.judge_log(log, report);
        }
    }

    fn judge_volumes(&mut self, state: &State, report: &mut Report) {
        let found: BTreeMap<_, _> = state.volumes.iter().cloned().collect();
        let names: BTreeSet<_> = found.keys().chain(self.volumes.keys()).cloned().collect();
        for name in names {
            let value = found.get(&name).copied().flatten();
            let cell = self.volumes.entry(name.clone()).or_default();
            let before = cell.clone();
            if !cell.find(&value) {
                report.add("lost_changes", 1);
                report.wrong(format!("volume {name} is {value:?}, wanted {before:?}"));
            }
        }
    }

    fn judge_executors(&mut self, state: &State, report: &mut Report) {
        let found: BTreeMap<_, _> = state
            .executors
            .iter()
            .map(|e| (e.name.clone(), e))
            .collect();
        let names: BTreeSet<_> = found.keys().chain(self.executors.keys()).cloned().collect();
        self.runs.clear();
        self.live.clear();
        for name in names {
            let joined: Joined = found.get(&name).map(|e| e.joined.iter().cloned().collect());
            let cell = self.executors.entry(name.clone()).or_default();
            let before = cell.clone();
            // A commit that stops tasks or unmounts records what leaves in a second step.
            let between = match (&joined, &before.perhaps) {
                (Some(joined), Some(Some(perhaps))) => {
                    before.acknowledged.as_ref().is_some_and(|old| {
                        joined.is_superset(&(old & perhaps)) && joined.is_subset(&(old | perhaps))
                    })
                }
                _ => false,
            };
            if !cell.find(&joined) && !between && !self.loose.contains(&name) {
                report.add("lost_changes", 1);
                report.wrong(format!("executor {name} has {joined:?}, wanted {before:?}"));
            }
            let Some(executor) = found.get(&name) else {
                self.forget_logs(&name);
                continue;
            };
            if executor.live {
                self.live.insert(name.clone());
            }
            for (task, run, runs) in &executor.runs {
                self.runs
                    .insert((name.clone(), task.clone()), (*run, *runs));
                // A start that was not acknowledged but happened counts like every other.
                self.started.insert((name.clone(), task.clone(), *run));
            }
        }
        self.loose.clear();
    }

    fn judge_exit(&mut self, exit: &Exit, report: &mut Report) {
        let key = (exit.executor.clone(), exit.task.clone(), exit.run);
        if let Some(before) = self.exits.get(&key) {
            report.add("wrong_exits", 1);
            report.wrong(format!("a second exit record: {before:?}, then {exit:?}"));
        }
        self.started.insert(key.clone());
        if !self.is_right(exit) {
            report.add("wrong_exits", 1);
            report.wrong(format!("a wrong exit record: {exit:?}"));
        }
        self.exits.insert(key, exit.clone());
    }

    fn is_right(&self, exit: &Exit) -> bool {
        let Some(template) = Template::named(&exit.task) else {
            return false;
        };
        let place = (exit.executor.clone(), exit.task.clone());
        let stopped = self
            .stopped
            .get(&place)
            .is_some_and(|runs| runs.contains(&exit.run));
        match exit.reason.as_str() {
            "exited" => !template.stays && exit.code == Some(template.code),
            "cancelled" => stopped,
            "deadline" => template.deadline_ms.is_some(),
            // A signal that was sent by a port layer that died before it could say why.
            "signaled" => {
                let ours = stopped || template.deadline_ms.is_some();
                exit.signal == Some(9) && (ours || self.faults == Faults::Shims)
            }
            "lost" => self.faults == Faults::Shims,
            _ => false,
        }
    }

    /// Runs of each place must be numbered without a hole, and each must have ended.
    pub(crate) fn judge_end(&self, report: &mut Report) {
        for run in self.open_runs() {
            report.add("missing_exits", 1);
            report.wrong(format!("no exit record of {run:?}"));
        }
        let mut last: BTreeMap<Place, u32> = BTreeMap::new();
        for (executor, task, run) in self.exits.keys() {
            let before = last.entry((executor.clone(), task.clone())).or_default();
            if *run != *before + 1 {
                report.add("missing_exits", 1);
                report.wrong(format!("{executor} {task}: run {run} follows {before}"));
            }
            *before = *run;
        }
    }

    /// Logs that can be judged: nothing of them runs, and there is something new.
    pub(crate) fn quiet_logs(&self) -> Vec<Place> {
        let quiet = self.runs.iter().filter(|(_, (_, runs))| !runs);
        quiet
            .filter(|(place, (run, _))| {
                self.judged
                    .get(*place)
                    .is_none_or(|(judged, ..)| judged < run)
            })
            .map(|(place, _)| place.clone())
            .collect()
    }

    fn judge_log(&mut self, log: &LogSeen, report: &mut Report) {
        let place = (log.executor.clone(), log.task.clone());
        let Some(template) = Template::named(&log.task) else {
            return;
        };
        // It was started again since it was chosen.
        let Some((newest, false)) = self.runs.get(&place).copied() else {
            return;
        };
        if self.unmeasured.remove(&place) {
            let measured = (newest, log.out.len(), log.err.len(), self.deaths);
            self.judged.insert(place, measured);
            return;
        }
        let (mut run, mut out, mut err, before) =
            self.judged.get(&place).copied().unwrap_or_default();
        let deaths = self.deaths - before;
        let mut wholes = Vec::new();
        while run < newest {
            run += 1;
            if let Some(exit) = self.exits.get(&(place.0.clone(), place.1.clone(), run)) {
                wholes.push(exit.reason == "exited");
            }
        }
        for (text, at, stream) in [(&log.out, &mut out, "out"), (&log.err, &mut err, "err")] {
            let rest = text.get(*at..).unwrap_or_default();
            if let Err(why) = follow(rest, template, stream, &wholes, deaths) {
                report.add("wrong_logs", 1);
                report.wrong(format!(
                    "{place:?} to run {run} {stream} from byte {at}: {why}"
                ));
            }
            *at = text.len();
        }
        if log.lost > 0 {
            report.add("wrong_logs", 1);
            report.wrong(format!("{place:?}: {} bytes dropped", log.lost));
        }
        report.add("logs_judged", 1);
        self.judged.insert(place, (run, out, err, self.deaths));
    }
}

/// Whether a text is the output of these runs, whole ones and others, one after the other. A start that was rolled back
/// because the port layer died in it has written too: there are at most `deaths` of those, and of one whose output was just being
/// moved the rest went with its container.
pub(crate) fn follow(
    text: &str,
    template: &Template,
    stream: &str,
    wholes: &[bool],
    deaths: u32,
) -> Result<(), String> {
    let (whole, first) = (template.whole(stream), template.first(stream));
    let start = first.split_inclusive('\n').next().unwrap_or_default();
    let (mut pieces, mut cut) = (Vec::new(), 0);
    let mut rest = text;
    while !rest.is_empty() {
        let next = rest[1..].find(start).map_or(rest.len(), |at| at + 1);
        let piece;
        (piece, rest) = rest.split_at(next);
        if !whole.starts_with(piece) {
            return Err(format!("after {} runs is {piece:?}", pieces.len()));
        }
        cut += u32::from(piece != whole && piece != first);
        pieces.push(piece == whole);
    }
    if cut > deaths {
        return Err(format!("{cut} runs are cut off, {deaths} deaths: {text:?}"));
    }
    // Every run that ended by itself is there, in order; what is left over is explained by stops and deaths.
    let wanted = wholes.iter().filter(|whole| **whole).count();
    let found = pieces.iter().filter(|whole| **whole).count();
    if found < wanted {
        return Err(format!("{found} whole runs of {wanted}"));
    }
    let others = wholes.len() - wanted;
    let explained = wanted + others + deaths as usize;
    if pieces.len() > explained {
        return Err(format!(
            "{} runs wrote, {} were recorded",
            pieces.len(),
            wholes.len()
        ));
    }
    Ok(())
}

fn settle<T: PartialEq + Clone>(cell: &mut Cell<T>, done: bool) {
    if let (true, Some(value)) = (done, cell.perhaps.take()) {
        cell.acknowledged = value;
    }
}
