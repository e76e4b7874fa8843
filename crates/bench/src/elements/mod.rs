//! Elements through the public API, on a real ledger on disk and over a real engine, idle meanwhile: its client is
//! part of the port layer's memory.

mod access;
pub(crate) mod probe;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use portlayer::element::{ElementId, Kind, NewElement, Spec};
use portlayer::ledger::LedgerConfig;
use portlayer::store::{Location, Policy};
use portlayer::task::TaskSpec;
use portlayer::{Config, PortLayer};
use portlayer_runtime::{Containerd, Engine, EngineConfig};

use crate::report::Group;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Elements in the ledger while reading and listing.
    pub(crate) sizes: &'static [u64],
    /// Creates per cell of the durability table.
    pub(crate) creates: u64,
    /// Rounds of the durability table.
    pub(crate) rounds: usize,
    /// Reads per size; a fiftieth as many pages.
    pub(crate) reads: u64,
}

/// Elements per prefix.
const PER_PREFIX: u64 = 1_000;
const LOCATION: &str = "bench";

/// Everything about elements, with ledgers and engine below `directory`.
pub(crate) async fn measure(directory: &Path, extent: Extent) -> Result<Vec<Group>> {
    let measured = async {
        let rates = write::rates(&directory.join("writers"), extent).await?;
        let mut groups = vec![rates];
        groups.extend(access::by_size(&directory.join("elements"), extent).await?);
        anyhow::Ok(groups)
    };
    let measured = tokio::select! {
        measured = measured => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    // Whatever happened, also in a process of ours that was ended: no engine stays.
    for part in ["writers", "elements"] {
        Engine::clean(&engine(&directory.join(part)))?;
    }
    measured
}

fn engine(directory: &Path) -> PathBuf {
    directory.join("engine")
}

/// An open port layer.
struct Opened {
    layer: PortLayer,
    runtime: Arc<Containerd>,
    /// What opening it took, without the start of the engine.
    took: Duration,
}

/// Opens a port layer with one location of tasks, ledger and engine in `directory`.
async fn open(directory: &Path) -> Result<Opened> {
    let engine = Engine::start(EngineConfig::new(engine(directory))).await?;
    let runtime = Arc::new(Containerd::open(engine).await?);
    let config = Config {
        ledger: LedgerConfig::new(directory.join("ledger")),
        networks: Vec::new(),
        locations: vec![Location {
            name: LOCATION.to_owned(),
            kinds: vec![Kind::Task],
            policy: Policy::ReadWrite,
            store: None,
        }],
        runtime: runtime.clone(),
    };
    let start = Instant::now();
    let layer = PortLayer::open(config).await?;
    Ok(Opened {
        layer,
        runtime,
        took: start.elapsed(),
    })
}

impl Opened {
    /// Closes the ledger and removes the engine.
    async fn close(self) -> Result<()> {
        drop(self.layer);
        self.runtime.stop().await?;
        Ok(())
    }
}

/// The `n`th element: some prefixes hold [`PER_PREFIX`] of them each.
fn id(n: u64) -> Result<ElementId> {
    let name = format!("p{:05}/n{:03}", n / PER_PREFIX, n % PER_PREFIX);
    Ok(ElementId::new(Kind::Task, LOCATION, &name)?)
}

/// A task as a scheduler would make it: a short command line and a few labels. One in ten is of the team `a`.
fn element(id: ElementId, n: u64) -> NewElement {
    let spec = TaskSpec {
        argv: ["/bin/sh", "-c", "make test"].map(str::to_owned).to_vec(),
        env: vec![("CI".to_owned(), "true".to_owned())],
        ..TaskSpec::default()
    };
    let team = if n.is_multiple_of(10) { "a" } else { "b" };
    NewElement::new(id, Spec::Task(Box::new(spec)))
        .ro("build", n.to_string())
        .rw("team", team)
        .rw("note", "some forty bytes of whatever one notes")
}
