//! A node in memory and short ways to say what is composed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::compose::{BindHow, CommitError, CommitResult, ComposeError, Handle, JoinHow, TaskBind};
use crate::element::{
    Body, DataStream, ElementId, ExecutorBody, ImageBody, Kind, Metadata, Record, State, StoreKeys,
    TaskBody, VolumeBody,
};
use crate::event::{Change, Event};
use crate::ledger::LedgerConfig;
use crate::network::NetworkSpec;
use crate::runtime::fake::FakeRuntime;
use crate::runtime::{
    ContainerId, ContainerPlan, NetworkPlan, OutputPlan, ProcessId, ProcessPlan, RootPlan, Runtime,
    Scope,
};
use crate::store::{
    Access, Location, MountSource, Policy, Put, Store, StoreCapabilities, StoreError, Stored,
};
use crate::task::{ExecutorSpec, ExitRecord, TaskSpec};
use crate::{Config, PortLayer};

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

/// A store that only remembers who is attached, and fails when told to.
#[derive(Default)]
pub(super) struct Volumes {
    attached: Mutex<Vec<(ElementId, ElementId)>>,
    pub(super) fail: Mutex<bool>,
}

impl Volumes {
    pub(super) fn attached(&self) -> Vec<(ElementId, ElementId)> {
        self.attached.lock().unwrap().clone()
    }
}

#[async_trait]
impl Store for Volumes {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities {
            parent_image: false,
            parent_volume: false,
            data: false,
            bounded: false,
            persistent: true,
        }
    }

    async fn put(&self, _put: Put<'_>) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    async fn remove(&self, _id: &ElementId, _keys: &StoreKeys) -> Result<(), StoreError> {
        Ok(())
    }

    async fn export(&self, _record: &Record) -> Result<DataStream, StoreError> {
        Err(StoreError::Unsupported("export"))
    }

    async fn attach(
        &self,
        record: &Record,
        executor: &ElementId,
    ) -> Result<MountSource, StoreError> {
        if std::mem::take(&mut *self.fail.lock().unwrap()) {
            return Err(StoreError::Unavailable("injected".into()));
        }
        let entry = (record.id.clone(), executor.clone());
        let mut attached = self.attached.lock().unwrap();
        if !attached.contains(&entry) {
            attached.push(entry);
        }
        Ok(MountSource::Path(PathBuf::from("/nonexistent/volume")))
    }

    async fn detach(
        &self,
        id: &ElementId,
        _keys: &StoreKeys,
        executor: &ElementId,
    ) -> Result<(), StoreError> {
        let entry = (id.clone(), executor.clone());
        self.attached
            .lock()
            .unwrap()
            .retain(|attached| *attached != entry);
        Ok(())
    }

    async fn ensure_freespace(&self, _record: &Record, _bytes: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn sweep(&self, _digest_hex: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A port layer over a fake engine.
pub(super) struct Node {
    pub(super) layer: PortLayer,
    pub(super) engine: FakeRuntime,
    pub(super) volumes: Arc<Volumes>,
    dir: tempfile::TempDir,
}

pub(super) const X: &str = "executor://x/x1";
pub(super) const IMAGE: &str = "image://images/base";

impl Node {
    /// With `executor://x/x1` and `image://images/base`.
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeRuntime::new();
        let volumes = Arc::new(Volumes::default());
        let layer = open(&dir, &engine, &volumes).await;
        let node = Self {
            layer,
            engine,
            volumes,
            dir,
        };
        node.put(X, Body::Executor(Box::default())).await;
        node.put(IMAGE, Body::Image(Box::<ImageBody>::default()))
            .await;
        node
    }

    /// The same node after the port layer died: ledger and engine are what they were.
    pub(super) async fn restart(self) -> Self {
        self.stop().await.start().await
    }

    /// The port layer dies.
    pub(super) async fn stop(self) -> Stopped {
        let Self {
            layer,
            engine,
            volumes,
            dir,
        } = self;
        drop(layer);
        Stopped {
            engine,
            volumes,
            dir,
        }
    }

    pub(super) async fn put(&self, text: &str, body: Body) -> ElementId {
        let id = id(text);
        let state = if id.kind() == Kind::Executor {
            State::Created
        } else {
            State::Ready
        };
        let record = Record {
            id: id.clone(),
            parent: None,
            owner: None,
            checksum: None,
            size: 0,
            ro: Metadata::new(),
            rw: Metadata::new(),
            revision: 1,
            created: crate::time::Timestamp::now(),
            modified: crate::time::Timestamp::now(),
            state,
            hidden: false,
            body,
        };
        self.write(record).await;
        id
    }

    pub(super) async fn write(&self, record: Record) {
        let written: Result<(), crate::ledger::LedgerError> = self
            .layer
            .shared
            .ledger
            .write(move |txn| txn.put(&record))
            .await;
        written.unwrap();
    }

    pub(super) async fn task(&self, text: &str, script: &str) -> ElementId {
        self.task_with(text, script, |_| {}).await
    }

    pub(super) async fn task_with(
        &self,
        text: &str,
        script: &str,
        change: impl FnOnce(&mut TaskSpec),
    ) -> ElementId {
        let mut spec = TaskSpec {
            argv: script.split(' ').map(str::to_owned).collect(),
            ..TaskSpec::default()
        };
        change(&mut spec);
        self.put(text, Body::Task(Box::new(TaskBody { spec })))
            .await
    }

    pub(super) async fn volume(&self, text: &str) -> ElementId {
        self.put(text, Body::Volume(Box::<VolumeBody>::default()))
            .await
    }

    pub(super) async fn executor_with(&self, text: &str, spec: ExecutorSpec) -> ElementId {
        let composition = crate::compose::Composition::default();
        self.put(
            text,
            Body::Executor(Box::new(ExecutorBody { spec, composition })),
        )
        .await
    }

    pub(super) fn record(&self, id: &ElementId) -> Record {
        self.layer.shared.ledger.get(id).unwrap().unwrap()
    }

    pub(super) fn body(&self) -> ExecutorBody {
        match self.record(&id(X)).body {
            Body::Executor(body) => *body,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn state(&self) -> State {
        self.record(&id(X)).state
    }

    pub(super) async fn open(&self) -> Edit<'_> {
        self.open_of(&id(X)).await
    }

    pub(super) async fn open_of(&self, executor: &ElementId) -> Edit<'_> {
        let handle = self.layer.compose(executor).await.unwrap();
        Edit {
            node: self,
            handle: Ok(handle),
        }
    }

    /// Image and tasks composed and committed.
    pub(super) async fn run(&self, tasks: &[&ElementId]) -> CommitResult {
        let mut edit = self.open().await.root().await;
        for task in tasks {
            edit = edit.task(task).await;
        }
        edit.commit().await.unwrap()
    }

    pub(super) async fn wait(&self, task: &ElementId) -> ExitRecord {
        let executor = id(X);
        let wait = self.layer.wait(&executor, task, None);
        tokio::time::timeout(std::time::Duration::from_secs(20), wait)
            .await
            .expect("it ends")
            .unwrap()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.layer.shared.ledger.events(1, 10_000).unwrap()
    }

    /// Names and ids of the events about executor x1, in order.
    pub(super) fn story(&self) -> Vec<String> {
        let of_x = |event: &Event| event.change.executor() == Some(&id(X));
        let events = self.events().into_iter().filter(of_x);
        events
            .map(|event| format!("{} {}", event.change.as_str(), event.id))
            .collect()
    }

    pub(super) fn exits(&self, task: &ElementId) -> usize {
        let ended = |event: &&Event| matches!(&event.change, Change::Unbound { exit: Some(exit), .. } if exit.task == *task);
        self.events().iter().filter(ended).count()
    }

    /// Waits until nothing is left of a container in the engine but logs, and no volume is attached.
    pub(super) async fn settled(&self) {
        for _ in 0..2000 {
            if self.leftovers().await.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("left: {:?}", self.leftovers().await);
    }

    pub(super) async fn leftovers(&self) -> Vec<String> {
        use crate::runtime::FindingClass;
        let found = self.engine.audit().await.unwrap();
        let found = found
            .into_iter()
            .filter(|finding| finding.class != FindingClass::Log);
        let attached = self
            .volumes
            .attached()
            .into_iter()
            .map(|(id, _)| format!("attached {id}"));
        found
            .map(|finding| format!("{:?} {}", finding.class, finding.name))
            .chain(attached)
            .collect()
    }
}

/// Engine and ledger without a port layer.
pub(super) struct Stopped {
    engine: FakeRuntime,
    volumes: Arc<Volumes>,
    dir: tempfile::TempDir,
}

impl Stopped {
    pub(super) async fn start(self) -> Node {
        let Self {
            engine,
            volumes,
            dir,
        } = self;
        // Drivers end when they next look; the ledger is free after the last.
        for _ in 0..1000 {
            if let Ok(layer) = try_open(&dir, &engine, &volumes).await {
                return Node {
                    layer,
                    engine,
                    volumes,
                    dir,
                };
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the ledger is never closed");
    }

    /// A container as an earlier life of the port layer would have left it.
    pub(super) async fn make_container(&self, container: &ContainerId, executor: &ElementId) {
        let scope = Scope::new(container, 1);
        let root = RootPlan {
            image: None,
            access: Access::ReadWrite,
            ids: None,
            disk: None,
        };
        let process = ProcessPlan {
            id: ProcessId::new(container.clone(), executor, 1),
            primary: true,
            task: executor.clone(),
            run: 1,
            process: serde_json::from_value(serde_json::json!({
                "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["hang"],
            }))
            .unwrap(),
            user_text: String::new(),
            stdin: false,
            sinks: Vec::new(),
            redact: Vec::new(),
            stdout: OutputPlan::Discard,
            stderr: OutputPlan::Discard,
        };
        let plan = ContainerPlan {
            id: container.clone(),
            executor: executor.clone(),
            revision: 1,
            root: root.clone(),
            mounts: Vec::new(),
            network: NetworkPlan::None,
            spec: serde_json::from_value(serde_json::json!({ "ociVersion": "1.0.2" })).unwrap(),
            several: false,
        };
        self.engine.begin(&scope).await.unwrap();
        self.engine
            .prepare_root(&scope, container, &root)
            .await
            .unwrap();
        self.engine
            .create_container(&scope, &plan, &process)
            .await
            .unwrap();
        self.engine.create_process(&process).await.unwrap();
        self.engine.start_process(&process.id, true).await.unwrap();
    }
}

async fn open(dir: &tempfile::TempDir, engine: &FakeRuntime, volumes: &Arc<Volumes>) -> PortLayer {
    try_open(dir, engine, volumes).await.unwrap()
}

async fn try_open(
    dir: &tempfile::TempDir,
    engine: &FakeRuntime,
    volumes: &Arc<Volumes>,
) -> Result<PortLayer, crate::OpenError> {
    let location = |name: &str, kind: Kind, store: Option<Arc<dyn Store>>| Location {
        name: name.to_owned(),
        kinds: vec![kind],
        policy: Policy::ReadWrite,
        store,
    };
    let config = Config {
        ledger: LedgerConfig::new(dir.path().join("ledger")),
        networks: vec![NetworkSpec::new(
            "lan",
            Some("10.9.0.0/29".parse().unwrap()),
            Some("fd09::/64".parse().unwrap()),
        )],
        locations: vec![
            location("x", Kind::Executor, None),
            location("t", Kind::Task, None),
            location("images", Kind::Image, Some(volumes.clone())),
            location("v", Kind::Volume, Some(volumes.clone())),
        ],
        runtime: Arc::new(engine.clone()),
    };
    PortLayer::open(config).await
}

/// A handle being edited; the first refusal is kept.
pub(super) struct Edit<'a> {
    node: &'a Node,
    pub(super) handle: Result<Handle, ComposeError>,
}

impl<'a> Edit<'a> {
    pub(super) async fn join(self, id: &ElementId, how: JoinHow) -> Edit<'a> {
        let node = self.node;
        let handle = match self.handle {
            Ok(handle) => node.layer.join(handle, id, how).await,
            refused => refused,
        };
        Edit { node, handle }
    }

    pub(super) async fn bind(self, id: Option<&ElementId>, how: BindHow) -> Edit<'a> {
        let node = self.node;
        let handle = match self.handle {
            Ok(handle) => node.layer.bind(handle, id, how).await,
            refused => refused,
        };
        Edit { node, handle }
    }

    pub(super) async fn unbind(self, id: Option<&ElementId>) -> Edit<'a> {
        let node = self.node;
        let handle = match self.handle {
            Ok(handle) => node.layer.unbind(handle, id).await,
            refused => refused,
        };
        Edit { node, handle }
    }

    pub(super) async fn leave(self, id: &ElementId) -> Edit<'a> {
        let node = self.node;
        let handle = match self.handle {
            Ok(handle) => node.layer.leave(handle, id).await,
            refused => refused,
        };
        Edit { node, handle }
    }

    pub(super) async fn root(self) -> Edit<'a> {
        let image = id(IMAGE);
        self.part(&image, JoinHow::root()).await
    }

    /// Joined and bound.
    pub(super) async fn part(self, id: &ElementId, how: JoinHow) -> Edit<'a> {
        self.join(id, how)
            .await
            .bind(Some(id), BindHow::Plain)
            .await
    }

    pub(super) async fn task(self, id: &ElementId) -> Edit<'a> {
        self.part(id, JoinHow::Task).await
    }

    pub(super) async fn task_bound(self, id: &ElementId, bind: TaskBind) -> Edit<'a> {
        self.join(id, JoinHow::Task)
            .await
            .bind(Some(id), BindHow::Task(bind))
            .await
    }

    pub(super) fn handle(self) -> Handle {
        self.handle.unwrap()
    }

    pub(super) async fn commit(self) -> Result<CommitResult, CommitError> {
        let node = self.node;
        node.layer.commit(self.handle?).await
    }
}
