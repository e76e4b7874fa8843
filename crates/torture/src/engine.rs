//! `engine`: containerd and shims die by SIGKILL under a node that goes on, with tasks that run, write, end and are being
//! started. Half of the shims die while containerd is away.
//!
//! The node is in this process. Some executors run for the whole time, others are made, run and deleted over and over (see
//! `work`); every few rounds they rest and the audit is taken.

mod steady;
mod victim;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portlayer::EngineStatus;
use portlayer_node::Node;
use tokio::task::JoinSet;

use crate::Common;
use crate::place::{self, Place};
use crate::report::Report;
use crate::worker;
use steady::Steady;
use victim::{Gate, Victims};
use work::{Judged, World};

/// Executors that are made and deleted all the time.
const WORKERS: u64 = 4;
/// Executors that run all the time.
const STEADY: usize = 3;
/// Rounds between two audits.
const REST: u32 = 10;
/// What the loss of the engine may cost: from its return until every run is watched again.
const TARGET: Duration = Duration::from_secs(2);
/// Longer than this nothing may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(common: &Common, shims: Option<u32>) -> Result<bool> {
    let rounds = common.rounds.unwrap_or(250);
    let shims = shims.unwrap_or(rounds * 2 / 5);
    let seed = common.seed();
    let mut report = Report::new("engine", seed);
    let mut place = Place::new(&common.directory)?;
    let log = std::fs::File::create(place::worker_log(place.directory()))?;
    worker::trace(log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let started = Instant::now();
    let outcome = runtime.block_on(torture(&place, rounds, shims, seed, &mut report));
    // Nothing of the node may hold its place when that is cleaned.
    runtime.shutdown_timeout(Duration::from_secs(10));
    if (outcome.is_err() || report.wrongs() > 0) && common.keep {
        place.keep();
    }
    let late = outcome?;
    // A run of a few rounds may be a test beside others on a machine that has no time.
    if late > 0 && common.rounds.is_none() {
        report.wrong(format!(
            "{late} times what runs was found again later than {TARGET:?}"
        ));
    }
    report.set("late", late);
    report.set("seconds", started.elapsed().as_secs());
    Ok(report.finish())
}

async fn torture(
    place: &Place,
    rounds: u32,
    shims: u32,
    seed: u64,
    report: &mut Report,
) -> Result<usize> {
    let gate = Gate::new(place.directory())?;
    let mut config = place::config(place.directory());
    config.engine.containerd = gate.program();
    let node = portlayer_node::open(&config).await?;
    worker::setup(&node.port_layer).await?;
    let world = Arc::new(World::new(node.port_layer.clone()));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let (world, random) = (
            Arc::clone(&world),
            fastrand::Rng::with_seed(seed ^ (number + 1)),
        );
        workers.spawn(async move { world.work(number, random).await });
    }
    let mut torturer = Torturer {
        place,
        gate,
        victims: Victims::new(&node),
        node: &node,
        world: Arc::clone(&world),
        steady: Vec::new(),
        random: fastrand::Rng::with_seed(seed),
        killed_with: 0,
        killed_without: 0,
        reattached: Vec::new(),
    };
    let outcome = torturer.run(rounds, shims, report).await;
    world.stop.store(true, Ordering::Release);
    outcome?;
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    torturer.end(report).await?;
    let reattached = std::mem::take(&mut torturer.reattached);
    drop(torturer);
    let target = TARGET.as_secs_f64() * 1000.0;
    let late = reattached.iter().filter(|ms| **ms > target).count();
    report.spread("reattach_ms", reattached);
    drop(world);
    node.remove().await.context("the node cannot be removed")?;
    Ok(late)
}

struct Torturer<'a> {
    place: &'a Place,
    node: &'a Node,
    gate: Gate,
    victims: Victims,
    world: Arc<World>,
    steady: Vec<Steady>,
    random: fastrand::Rng,
    /// Shims killed while containerd was there, and while it was away.
    killed_with: u64,
    killed_without: u64,
    /// Milliseconds from containerd's return until everything was watched again.
    reattached: Vec<f64>,
}

impl Torturer<'_> {
    async fn run(&mut self, rounds: u32, shims: u32, report: &mut Report) -> Result<()> {
        for number in 0..STEADY {
            self.steady
                .push(Steady::start(&self.world, self.place, number, 0).await?);
        }
        for round in 0..rounds {
            // Spread evenly, whichever of both is more.
            let due = (u64::from(round + 1) * u64::from(shims)).div_ceil(u64::from(rounds));
            // One that was killed again and again is started again later and later.
            let limit = if self.random.bool() { 400 } else { 1500 };
            self.pause(limit).await;
            let mut without = 0;
            while self.shims_killed() + without < due {
                match self.killed_without + without <= self.killed_with {
                    true => without += 1,
                    false if self.kill_shim().await? => self.killed_with += 1,
                    false => break,
                }
            }
            self.round(without, report).await?;
            if report.wrongs() > 60 {
                bail!("too much is wrong; see above");
            }
            if round % REST == REST - 1 {
                self.rest(report).await?;
                println!(
                    "{:>5} kills of containerd, {} of shims, {} runs, {} wrong",
                    round + 1,
                    self.shims_killed(),
                    self.world.judged().runs,
                    report.wrongs()
                );
            }
        }
        report.set("shims_killed", self.shims_killed());
        report.set("shims_killed_without_containerd", self.killed_without);
        Ok(())
    }

    fn shims_killed(&self) -> u64 {
        self.killed_with + self.killed_without
    }

    async fn pause(&mut self, limit_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(1..limit_ms))).await;
    }

    /// Kills containerd and so many shims while it is away; waits until everything is found again.
    async fn round(&mut self, shims: u64, report: &mut Report) -> Result<()> {
        let mut status = self.node.port_layer.engine_status();
        let mut losses = status.borrow().losses;
        // Else it comes back at once.
        let held = shims > 0 || self.random.u8(..3) == 0;
        if held {
            self.gate.hold()?;
        }
        let started = Instant::now();
        while !self.victims.kill_containerd()? {
            // It ended by itself, and is about to be started.
            if started.elapsed() > LIMIT {
                bail!("there is no containerd to kill");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            losses = status.borrow().losses;
        }
        report.add("kills", 1);
        wait(
            &mut status,
            |status| status.losses > losses,
            "containerd's death was not noticed",
        )
        .await?;
        for _ in 0..shims {
            // When there is none, another round has one more.
            self.killed_without += u64::from(self.kill_shim().await?);
        }
        if held {
            report.add("held_away", 1);
            self.pause(1200).await;
            self.gate.release()?;
        }
        self.victims.until_it_listens(LIMIT).await?;
        let returned = Instant::now();
        wait(
            &mut status,
            |status| status.reattached > losses,
            "what runs was not found again",
        )
        .await?;
        let took = returned.elapsed();
        self.reattached.push(took.as_secs_f64() * 1000.0);
        if took > TARGET {
            let last = status.borrow().last.clone();
            println!("late: {took:?} after containerd's return, {last:?}");
        }
        Ok(())
    }

    /// Kills one of the shims there are; false when there is none.
    async fn kill_shim(&mut self) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            let shims = self.victims.shims()?;
            if let Some(shim) = self.random.choice(&shims) {
                // Told before: what is judged from here on may be its death.
                self.world.note_victim(&shim.container);
                if self.victims.kill_shim(shim)? {
                    return Ok(true);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(false)
    }

    /// Lets the workers rest, sees that nothing is leaked and starts steady executors again that were killed.
    async fn rest(&mut self, report: &mut Report) -> Result<()> {
        let world = Arc::clone(&self.world);
        let quiet = tokio::time::timeout(LIMIT, world.quiet.write());
        let quiet = quiet.await.context("the workers do not come to rest")?;
        self.tell_wrongs(report);
        let mut status = self.node.port_layer.engine_status();
        wait(
            &mut status,
            |status| status.reconciled == status.losses,
            "leftovers were not swept",
        )
        .await?;
        for steady in &mut self.steady {
            if self.world.is_victim(&steady.executor) {
                let judged = steady.end(&self.world, true).await?;
                self.world.add(judged);
                *steady =
                    Steady::start(&self.world, self.place, steady.number, steady.life + 1).await?;
            }
        }
        for leak in worker::leaks(&self.node.port_layer).await? {
            report.add("leaks", 1);
            report.wrong(format!("leaked: {leak}"));
        }
        drop(quiet);
        Ok(())
    }

    /// Ends what runs, judges it and takes the last audit.
    async fn end(&mut self, report: &mut Report) -> Result<()> {
        for mut steady in std::mem::take(&mut self.steady) {
            let killed = self.world.is_victim(&steady.executor);
            let judged = steady.end(&self.world, killed).await?;
            self.world.add(judged);
        }
        self.rest(report).await?;
        self.tell_wrongs(report);
        let Judged {
            runs,
            refused,
            bytes,
            ends,
            ..
        } = self.world.judged();
        report.set("runs", runs);
        report.set("commits_refused", refused);
        report.set("log_bytes_judged", bytes);
        for (how, count) in ends {
            report.set(&format!("ended_{how}"), count);
        }
        Ok(())
    }

    fn tell_wrongs(&self, report: &mut Report) {
        for (figure, text) in self.world.take_wrongs() {
            report.add(figure, 1);
            report.wrong(text);
        }
    }
}

async fn wait(
    status: &mut tokio::sync::watch::Receiver<EngineStatus>,
    wanted: impl FnMut(&EngineStatus) -> bool,
    fault: &'static str,
) -> Result<()> {
    let waited = tokio::time::timeout(LIMIT, status.wait_for(wanted)).await;
    waited.context(fault)?.context("the port layer is gone")?;
    Ok(())
}

/// True once the workers are to end.
fn is_over(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Acquire)
}
