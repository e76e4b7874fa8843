//! Executors that are made, run and deleted over and over while the engine dies, and the judge of what became of each run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::compose::{BindHow, CommitError, CommitResult, Handle, JoinHow, TaskBind};
use portlayer::element::{ElementId, Kind, NewElement, Spec};
use portlayer::runtime::LogQuery;
use portlayer::task::{ExitReason, ExitRecord};
use tokio::sync::RwLock;

use super::is_over;
use crate::model::follow;
use crate::tasks::Template;
use crate::worker::{image, last, task};

/// Longer than this nothing may take.
const LIMIT: Duration = Duration::from_secs(90);
/// What a container starts with, and what is started in it later.
const FIRST: [&str; 7] = [
    "quick-0", "quick-7", "nap-3", "nap-42", "doze-5", "stay", "late",
];
const FURTHER: [&str; 4] = ["quick-7", "nap-3", "nap-42", "stay"];

/// What was judged.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) runs: u64,
    /// Commits that failed and left nothing.
    pub(super) refused: u64,
    /// Bytes of output.
    pub(super) bytes: u64,
    /// Runs by how they ended.
    pub(super) ends: BTreeMap<&'static str, u64>,
    wrongs: Vec<(&'static str, String)>,
}

impl Judged {
    pub(super) fn wrong(&mut self, figure: &'static str, text: String) {
        self.wrongs.push((figure, text));
    }

    pub(super) fn ended(&mut self, exit: &ExitRecord) {
        self.runs += 1;
        *self.ends.entry(exit.reason.as_str()).or_default() += 1;
    }
}

/// What workers and torturer share.
pub(super) struct World {
    pub(super) layer: PortLayer,
    /// The workers end after what they are at.
    pub(super) stop: AtomicBool,
    /// Held for reading by every worker at work: who holds it for writing has a quiet node.
    pub(super) quiet: RwLock<()>,
    /// Executors of which a shim was killed: the digits their containers' names begin with.
    victims: Mutex<BTreeSet<String>>,
    judged: Mutex<Judged>,
}

impl World {
    pub(super) fn new(layer: PortLayer) -> Self {
        Self {
            layer,
            stop: AtomicBool::new(false),
            quiet: RwLock::default(),
            victims: Mutex::default(),
            judged: Mutex::default(),
        }
    }

    /// A shim of this container is about to be killed.
    pub(super) fn note_victim(&self, container: &str) {
        let digits = container.split('-').next().unwrap_or(container);
        lock(&self.victims).insert(digits.to_owned());
    }

    pub(super) fn is_victim(&self, executor: &ElementId) -> bool {
        let digest = executor.digest_hex();
        lock(&self.victims)
            .iter()
            .any(|digits| digest.starts_with(digits))
    }

    pub(super) fn add(&self, more: Judged) {
        let mut all = lock(&self.judged);
        all.runs += more.runs;
        all.refused += more.refused;
        all.bytes += more.bytes;
        all.wrongs.extend(more.wrongs);
        for (how, count) in more.ends {
            *all.ends.entry(how).or_default() += count;
        }
    }

    /// What was judged so far, but for what was wrong.
    pub(super) fn judged(&self) -> Judged {
        let all = lock(&self.judged);
        Judged {
            ends: all.ends.clone(),
            wrongs: Vec::new(),
            ..*all
        }
    }

    pub(super) fn take_wrongs(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut lock(&self.judged).wrongs)
    }

    /// Makes, runs and deletes executors until it is to stop.
    pub(super) async fn work(&self, worker: u64, mut random: fastrand::Rng) -> Result<()> {
        for cycle in 0.. {
            let _at_work = self.quiet.read().await;
            if is_over(&self.stop) {
                break;
            }
            let executor =
                ElementId::new(Kind::Executor, "executors", &format!("w{worker}-{cycle}"))?;
            let judged = self.cycle(&executor, &mut random).await;
            self.add(judged.with_context(|| format!("{executor}"))?);
        }
        Ok(())
    }

    /// The life of one executor.
    async fn cycle(&self, executor: &ElementId, random: &mut fastrand::Rng) -> Result<Judged> {
        let layer = &self.layer;
        let new = NewElement::new(executor.clone(), Spec::Executor(Box::default()));
        layer.create(new).await?;
        let mut story = Story::new(executor);
        let first = *random.choice(&FIRST).context("no template")?;
        let image = image()?;
        let started = Instant::now();
        loop {
            let id = task(first)?;
            let handle = layer
                .composed(executor, [(&image, JoinHow::root()), (&id, JoinHow::Task)])
                .await?;
            match commit(self, handle).await? {
                Some(result) => break story.started(&result),
                None => story.refused += 1,
            }
            if started.elapsed() > LIMIT {
                bail!("it cannot be started");
            }
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        if random.bool() {
            self.change(&mut story, random.choice(&FURTHER).context("no template")?)
                .await?;
            tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        }
        for name in story.tasks() {
            if Template::named(&name)
                .is_some_and(|template| template.stays && template.deadline_ms.is_none())
            {
                self.stop(&mut story, &name).await?;
            }
        }
        self.judge(story).await
    }

    /// Starts a further task in the container, which may end meanwhile.
    async fn change(&self, story: &mut Story, name: &str) -> Result<()> {
        let (layer, id) = (&self.layer, task(name)?);
        if story.tasks().contains(name) {
            return Ok(());
        }
        let handle = layer.compose(&story.executor).await?;
        let handle = layer.join(handle, &id, JoinHow::Task).await?;
        let how = BindHow::Task(TaskBind::default());
        let handle = layer.bind(handle, Some(&id), how).await?;
        match layer.commit(handle).await {
            Ok(result) => story.started(&result),
            // Also a handle that became stale, because the first task ended.
            Err(_) => story.refused += 1,
        }
        Ok(())
    }

    /// Stops a task, whatever it takes.
    async fn stop(&self, story: &mut Story, name: &str) -> Result<()> {
        let (layer, id, started) = (&self.layer, task(name)?, Instant::now());
        story.stopped.insert(name.to_owned());
        loop {
            let exits = layer.exits(&story.executor, Some(&id)).await?;
            if exits.len() >= story.runs.iter().filter(|(task, _)| task == name).count() {
                return Ok(());
            }
            let handle = layer.compose(&story.executor).await?;
            let handle = layer.unbind(handle, Some(&id)).await?;
            if let Err(error) = layer.commit(handle).await
                && started.elapsed() > LIMIT
            {
                return Err(error.into());
            }
        }
    }

    async fn judge(&self, story: Story) -> Result<Judged> {
        let (layer, executor) = (&self.layer, &story.executor);
        let mut judged = Judged {
            refused: story.refused,
            ..Judged::default()
        };
        for (name, run) in &story.runs {
            let id = task(name)?;
            let wait = layer.wait(executor, &id, Some(*run));
            match tokio::time::timeout(LIMIT, wait).await {
                Ok(exit) => story.judge_exit(name, &exit?, self.is_victim(executor), &mut judged),
                Err(_) => judged.wrong(
                    "missing_exits",
                    format!("no exit record of {executor} {name} {run}"),
                ),
            }
        }
        let recorded = layer.exits(executor, None).await?;
        if recorded.len() != story.runs.len() {
            judged.wrong(
                "wrong_exits",
                format!("{:?} ended as {recorded:?}", story.runs),
            );
        }
        for name in story.tasks() {
            let text = output(layer, executor, &task(&name)?).await?;
            judged.bytes += text.len() as u64;
            let exits = recorded.iter().filter(|exit| last(&exit.task) == name);
            let wholes: Vec<_> = exits
                .map(|exit| exit.reason == ExitReason::Exited)
                .collect();
            // Read here: a shim that is killed now has nothing more to lose.
            if let Err(why) = story.judge_log(&name, &text, &wholes, self.is_victim(executor)) {
                judged.wrong("wrong_logs", format!("{executor} {name}: {why}"));
            }
        }
        remove(self, executor).await?;
        Ok(judged)
    }
}

/// What is known of one executor.
struct Story {
    executor: ElementId,
    runs: Vec<(String, u32)>,
    /// Tasks that were told to stop.
    stopped: BTreeSet<String>,
    /// Commits that failed: each may have started what it then took back.
    refused: u64,
}

impl Story {
    fn new(executor: &ElementId) -> Self {
        Self {
            executor: executor.clone(),
            runs: Vec::new(),
            stopped: BTreeSet::new(),
            refused: 0,
        }
    }

    fn started(&mut self, result: &CommitResult) {
        let runs = result.runs.iter();
        self.runs.extend(runs.map(|run| (last(&run.task), run.run)));
    }

    fn tasks(&self) -> BTreeSet<String> {
        self.runs.iter().map(|(name, _)| name.clone()).collect()
    }

    fn judge_exit(&self, name: &str, exit: &ExitRecord, victim: bool, judged: &mut Judged) {
        judged.ended(exit);
        let Some(template) = Template::named(name) else {
            return;
        };
        let stopped = self.stopped.contains(name);
        let right = match exit.reason {
            ExitReason::Exited => !template.stays && exit.code == Some(template.code),
            ExitReason::Cancelled => stopped,
            ExitReason::Deadline => template.deadline_ms.is_some(),
            // Killed with its shim, or of its output that nobody reads any more.
            ExitReason::Signaled => victim && matches!(exit.signal, Some(9 | 13)),
            ExitReason::Lost => victim,
            _ => false,
        };
        if !right {
            judged.wrong(
                "wrong_exits",
                format!("killed with its shim: {victim}, recorded: {exit:?}"),
            );
        }
    }

    fn judge_log(
        &self,
        name: &str,
        text: &str,
        wholes: &[bool],
        victim: bool,
    ) -> Result<(), String> {
        let Some(template) = Template::named(name) else {
            return Err("it is not known".to_owned());
        };
        let taken_back = u32::try_from(self.refused).unwrap_or(u32::MAX);
        let (whole, first, mut rest) = (template.whole("out"), template.first("out"), text);
        if !victim {
            return follow(text, template, "out", wholes, taken_back);
        }
        // Of a shim that died the end may be missing, of each start at most once.
        for _ in 0..=wholes.len() as u64 + self.refused {
            // The pieces a start writes at once first: how they begin is alike.
            let same = match rest.starts_with(&whole) {
                true => whole.len(),
                false if rest.starts_with(&first) => first.len(),
                false => whole
                    .bytes()
                    .zip(rest.bytes())
                    .take_while(|(a, b)| a == b)
                    .count(),
            };
            rest = rest.get(same..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
        }
        Err(format!("{rest:?} was not written"))
    }
}

/// Commits; `None` = the engine was away, and nothing was done.
pub(super) async fn commit(world: &World, handle: Handle) -> Result<Option<CommitResult>> {
    match world.layer.commit(handle).await {
        Ok(result) if result.is_error() => bail!("partly done: {result:?}"),
        Ok(result) => Ok(Some(result)),
        Err(CommitError::Step { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The standard output of all runs of a task in an executor.
pub(super) async fn output(
    layer: &PortLayer,
    executor: &ElementId,
    task: &ElementId,
) -> Result<String> {
    let mut query = LogQuery::new(executor, task);
    query.streams = portlayer::runtime::LogStreams::Stdout;
    let mut chunks = layer.logs(&query).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if chunk.lost_bytes > 0 {
            bail!(
                "{} bytes of the output of {executor} were dropped",
                chunk.lost_bytes
            );
        }
        bytes.extend(chunk.bytes);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Deletes an executor; while the engine is away what is left of it may have to be removed later.
pub(super) async fn remove(world: &World, executor: &ElementId) -> Result<()> {
    let started = Instant::now();
    while let Err(error) = world.layer.delete(executor).await {
        if world.layer.read(executor).await.is_err() {
            return Ok(());
        }
        if started.elapsed() > LIMIT {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
