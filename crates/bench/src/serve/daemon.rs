//! A daemon in a process of its own, which also makes events when told to: through the socket the writers would be
//! measured and not the subscribers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::element::{ElementId, Kind, NewElement, Patch, Spec};
use portlayer_node::config::Config;
use portlayer_node::server::{Access, Facts, Listener, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::machine::resident_mib_of;

/// The hidden command by which this program starts itself.
pub(crate) const COMMAND: &str = "probe-serve";
/// Elements that are changed in turn.
const ELEMENTS: u64 = 256;
/// Changes under way at once.
const WRITERS: usize = 512;
/// Bytes of the ledger's page cache: one that is full before memory is compared.
const CACHE: u64 = 64 << 20;

/// The `n`th element that is changed.
pub(super) fn element(n: u64) -> Result<ElementId> {
    let name = format!("n{}", n % ELEMENTS);
    Ok(ElementId::new(Kind::Task, "tasks", &name)?)
}

fn config(directory: &Path) -> Config {
    let mut config = Config::new(directory);
    config.ledger.cache_bytes = CACHE;
    config
}

/// Serves the node below `directory` until standard input ends. Each line there is how many events to make; each
/// line on standard output is the sequence of the last event so far.
pub(crate) async fn serve_here(directory: &Path) -> Result<()> {
    let config = config(directory);
    let node = portlayer_node::open(&config).await?;
    let served = serve(&config, &node).await;
    node.remove().await?;
    served
}

async fn serve(config: &Config, node: &portlayer_node::Node) -> Result<()> {
    let layer = &node.port_layer;
    let server = Server::new(layer.clone(), Facts::of(config, node), Access::own());
    let listener = Listener::unix(&config.socket, 0o600, None)?;
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    println!("{}", layer.last_sequence());
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        make(layer, order.parse()?).await?;
        println!("{}", layer.last_sequence());
    }
    server.cut_off();
    serving.await??;
    Ok(())
}

/// Makes so many events by changing elements; every change is durable when this returns.
async fn make(layer: &PortLayer, count: u64) -> Result<()> {
    for n in 0..ELEMENTS {
        let new = NewElement::new(element(n)?, Spec::Task(Box::default()));
        match layer.create(new).await {
            Ok(_) | Err(portlayer::error::CreateError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let first = layer.last_sequence();
    let changes = futures::stream::iter(0..count).map(|n| async move {
        // Another value than the last time, or it would be no change.
        let value = (first + n).to_string().into_bytes();
        let patch = Patch::from([("n".to_owned(), Some(value))]);
        layer.update(&element(n)?, patch, None).await?;
        anyhow::Ok(())
    });
    let mut changes = changes.buffer_unordered(WRITERS);
    while let Some(changed) = changes.next().await {
        changed?;
    }
    ensure!(
        layer.last_sequence() == first + count,
        "a change made no event"
    );
    Ok(())
}

/// That process, seen from here.
pub(super) struct Daemon {
    directory: PathBuf,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Daemon {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = child.stdout.take().context("no standard output")?;
        let mut daemon = Self {
            directory: directory.to_owned(),
            child,
            orders,
            answers: BufReader::new(answers).lines(),
        };
        daemon.answer().await?;
        Ok(daemon)
    }

    pub(super) fn socket(&self) -> PathBuf {
        config(&self.directory).socket
    }

    /// Its resident memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        Ok(Memory(self.child.id().context("the daemon ended")?))
    }

    /// Makes so many events; returns the sequence of the last.
    pub(super) async fn make(&mut self, count: u64) -> Result<u64> {
        self.orders
            .write_all(format!("{count}\n").as_bytes())
            .await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<u64> {
        let line = self.answers.next_line().await?;
        Ok(line.context("the daemon ended")?.parse()?)
    }

    /// Ends it with everything it has.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.orders);
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("the daemon ended: {status}");
        }
        Ok(())
    }
}

/// The memory of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory(u32);

impl Memory {
    /// Resident now, in MiB.
    pub(super) fn mib(self) -> Result<f64> {
        resident_mib_of(&self.0.to_string())
    }
}
