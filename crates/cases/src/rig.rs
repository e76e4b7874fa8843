//! What the cases need: a node with the fixtures, Diego's tasks on it, a file server and a hook server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portlayer::element::{ElementId, ImageSpec, Kind, ListQuery, NewElement, Spec};
use portlayer::error::CreateError;
use portlayer::network::NetworkSpec;
use portlayer::store::Policy;
use portlayer_node::Node;
use portlayer_node::config::{Backing, Config, LocationConfig};
use portlayer_taskdef::diego::{Capacity, Settings, Tasks, Timers, image_of};
use portlayer_taskdef::fetch::{Fetcher, Http};
use portlayer_taskdef::log::{LogLine, LogSink};
use portlayer_taskdef::plan::Overflow;
use portlayer_taskdef::run::{Feature, RunSettings, Runner};
use sha2::{Digest, Sha256};

use crate::fixtures;
use crate::server::Server;
use crate::world::{self, World};

/// Everything the cases share.
pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) tasks: Tasks,
    /// Tasks whose results are cut as the seed's document says: the first 10240 bytes.
    pub(crate) seed_tasks: Tasks,
    pub(crate) files: Server,
    pub(crate) hooks: Server,
    pub(crate) log: Arc<Log>,
    sums: BTreeMap<String, String>,
    unenforced: BTreeSet<Feature>,
    _world: World,
    _directory: tempfile::TempDir,
}

/// Keeps every line.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<LogLine>>);

impl LogSink for Log {
    fn emit(&self, line: LogLine) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

impl Log {
    /// The lines of one stream so far.
    pub(crate) fn of(&self, stream: &str) -> Vec<LogLine> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .filter(|line| &*line.stream == stream)
            .cloned()
            .collect()
    }
}

impl Rig {
    /// What cases need. Callbacks that nobody takes are given up soon.
    pub(crate) async fn open() -> Result<Self> {
        Self::open_for(Duration::from_secs(15)).await
    }

    /// The same with another time after which completed tasks are given up.
    pub(crate) async fn open_for(completed_expiry: Duration) -> Result<Self> {
        // Below /var/tmp, because overlay wants a real file system; short, because sockets are in it.
        let directory = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp")?;
        let world = World::new()?;
        let mut config = Config::new(directory.path().join("node"));
        config.locations.push(LocationConfig {
            name: "seed".to_owned(),
            kinds: vec![Kind::Task],
            policy: Policy::ReadWrite,
            backing: Backing::None,
        });
        let subnet = "10.254.0.0/16".parse().map_err(anyhow::Error::msg)?;
        config
            .networks
            .push(NetworkSpec::new("tasks", Some(subnet), None));
        config.engine.network_namespace = Some(world.home());
        let node = portlayer_node::open(&config).await;
        let node = node.context("opening a node (needs root and containerd)")?;
        let image: ElementId = "image://images/cflinuxfs4".parse()?;
        let root = Cursor::new(fixtures::root_file_system()?);
        let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default())).data(root);
        node.port_layer
            .create(new)
            .await
            .context("making the root file system")?;

        let files = fixtures::files()?;
        let sum =
            |(name, bytes): (&String, &Vec<u8>)| (name.clone(), hex::encode(Sha256::digest(bytes)));
        let sums = files.iter().map(sum).collect();
        let settings = Settings {
            preloaded: BTreeMap::from([("cflinuxfs4".to_owned(), image)]),
            volume_drivers: BTreeMap::from([("localdriver".to_owned(), "volumes".to_owned())]),
            capacity: Capacity {
                // For a thousand tasks at once.
                containers: 2000,
                ..Settings::default().capacity
            },
            timers: Timers {
                start_retry: Duration::from_secs(1),
                kick: Duration::from_secs(3),
                completed_expiry,
                ..Timers::default()
            },
            ..Settings::default()
        };
        // What the core cannot do yet; printed, so that nobody takes it for done.
        let unenforced: BTreeSet<Feature> = BTreeSet::new();
        let log = Arc::new(Log::default());
        let fetcher = Fetcher::new(Arc::new(Http::new()?), directory.path().join("spool"))?;
        let run = RunSettings {
            unenforced: unenforced.clone(),
            network: Some("network://node/tasks".parse()?),
            ..RunSettings::default()
        };
        let runner = Runner::new(
            node.port_layer.with_actor("diego"),
            Arc::new(fetcher),
            log.clone(),
            run,
        );
        let seed = Settings {
            result_limit_bytes: 10_240,
            result_overflow: Overflow::Truncate,
            ..settings.clone()
        };
        let seed_tasks = Tasks::open(runner.clone(), seed, "seed").await?;
        let tasks = Tasks::open(runner, settings, "tasks").await?;
        Ok(Self {
            node,
            tasks,
            seed_tasks,
            files: Server::files(files).await?,
            hooks: Server::hooks().await?,
            log,
            sums,
            unenforced,
            _world: world,
            _directory: directory,
        })
    }

    /// Imports the root file system under the name a `docker://` URL asks for, as if it had been pulled.
    pub(crate) async fn import(&self, rootfs: &str) -> Result<()> {
        let Some(image) = image_of(rootfs, "images") else {
            return Ok(());
        };
        let root = Cursor::new(fixtures::root_file_system()?);
        let new = NewElement::new(image, Spec::Image(ImageSpec::default())).data(root);
        match self.node.port_layer.create(new).await {
            Ok(_) | Err(CreateError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error).context("importing the image of a case"),
        }
    }

    /// Fills the placeholders of a case.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text
            .replace("@FILES@", &self.files.url())
            .replace("@HOOK@", &self.hooks.url());
        if !std::path::Path::new("/proc/sysrq-trigger").exists() {
            // This kernel has no such file: the portable variant that the case itself names.
            text = text.replace(
                "\"echo h > /proc/sysrq-trigger\"",
                "\"grep -q '^ *0 *0 *4294967295$' /proc/self/uid_map\"",
            );
        }
        // Debian's busybox shell takes its own applet, which has no -z, before what PATH finds.
        text = text
            .replace("nc -w", "/bin/nc -w")
            .replace("@PEER_RANGE@", world::PEER_RANGE)
            .replace("@PEER@", world::PEER);
        for (name, sum) in &self.sums {
            text = text.replace(&format!("@SHA256:{name}@"), sum);
        }
        text
    }

    pub(crate) fn unenforced(&self) -> String {
        let fields: Vec<_> = self
            .unenforced
            .iter()
            .map(|feature| feature.field())
            .collect();
        match fields.is_empty() {
            true => "nothing".to_owned(),
            false => fields.join(", "),
        }
    }

    /// Executors that are there.
    pub(crate) async fn executors(&self) -> Result<Vec<String>> {
        let query = ListQuery {
            kind: Some(Kind::Executor),
            hidden: true,
            limit: 1000,
            ..ListQuery::default()
        };
        let listed = self.node.port_layer.list(query).await?;
        Ok(listed
            .items
            .into_iter()
            .map(|element| element.id.to_string())
            .collect())
    }

    /// Ends everything; nothing may be left.
    pub(crate) async fn close(self) -> Result<()> {
        self.tasks.close().await;
        self.seed_tasks.close().await;
        let left = self.executors().await?;
        let Self {
            node,
            tasks,
            seed_tasks,
            _world: world,
            ..
        } = self;
        drop((tasks, seed_tasks));
        node.remove().await.context("removing the node")?;
        drop(world);
        ensure!(left.is_empty(), "executors were left: {}", left.join(", "));
        Ok(())
    }
}
