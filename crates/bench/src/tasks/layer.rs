//! The port layer, through the API a scheduler uses: everything up to the composed handle is made before the clock
//! starts, everything after it is the port layer's price.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use portlayer::PortLayer;
use portlayer::compose::{BindHow, Handle, JoinHow};
use portlayer::element::{ElementId, ImageSpec, Kind, NewElement, Spec, VolumeSpec};
use portlayer::error::CreateError;
use portlayer::runtime::ContainerId;
use portlayer::task::{ExecutorSpec, TaskSpec};

use super::{Node, Timing, Variant, names};
use crate::busybox::TRUE;

/// Volumes of the variant that has some.
const VOLUMES: usize = 20;

fn id(kind: Kind, location: &str, name: &str) -> Result<ElementId> {
    Ok(ElementId::new(kind, location, name)?)
}

pub(super) fn task_id(name: &str) -> Result<ElementId> {
    id(Kind::Task, "tasks", name)
}

pub(super) fn executor_id(name: &str) -> Result<ElementId> {
    id(Kind::Executor, "executors", name)
}

/// The workload's image as an element; made by the first that asks.
pub(super) async fn image(node: &Node) -> Result<ElementId> {
    let image = id(Kind::Image, "images", "busybox")?;
    let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default()))
        .data(std::io::Cursor::new(node.busybox().archive()?));
    match node.layer().create(new).await {
        Ok(_) | Err(CreateError::AlreadyExists { .. }) => Ok(image),
        Err(error) => Err(error.into()),
    }
}

async fn create_task(layer: &PortLayer, name: &str, argv: &[&str]) -> Result<ElementId> {
    let spec = TaskSpec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        ..TaskSpec::default()
    };
    let task = task_id(name)?;
    let new = NewElement::new(task.clone(), Spec::Task(Box::new(spec)));
    layer.create(new).await?;
    Ok(task)
}

/// A fresh executor with the image at `/`, the volumes and the task, all bound, ready to be committed.
async fn composed(
    layer: &PortLayer,
    name: &str,
    image: &ElementId,
    volumes: &[ElementId],
    task: &ElementId,
    spec: ExecutorSpec,
) -> Result<Handle> {
    let executor = executor_id(name)?;
    let spec = Spec::Executor(Box::new(spec));
    layer
        .create(NewElement::new(executor.clone(), spec))
        .await?;
    let volumes = volumes.iter().enumerate();
    let volumes = volumes.map(|(at, volume)| (volume, JoinHow::volume(format!("/tmp/v{at}"))));
    let parts = [(image, JoinHow::root()), (task, JoinHow::Task)];
    let parts: Vec<_> = parts.into_iter().chain(volumes).collect();
    Ok(layer.composed(&executor, parts).await?)
}

/// The handle with the task joined and bound.
async fn further(layer: &PortLayer, handle: Handle, task: &ElementId) -> Result<Handle> {
    let handle = layer.join(handle, task, JoinHow::Task).await?;
    Ok(layer.bind(handle, Some(task), BindHow::Plain).await?)
}

/// Commits, waits for the exit record, then removes with `remove` what the commit made.
async fn timed(
    layer: &PortLayer,
    handle: Handle,
    task: &ElementId,
    remove: impl AsyncFnOnce() -> Result<()>,
) -> Result<Timing> {
    let executor = handle.executor().clone();
    let start = Instant::now();
    layer.commit(handle).await?;
    let committed = start.elapsed();
    let record = layer.wait(&executor, task, None).await?;
    let exit = start.elapsed();
    ensure!(record.code == Some(0), "{task} ended with {record:?}");
    remove().await?;
    let gone = start.elapsed();
    Ok(Timing {
        exit: Some(exit),
        gone,
        phases: vec![
            ("commit", committed),
            ("wait", exit - committed),
            ("remove", gone - exit),
        ],
    })
}

/// Handles made before their runs.
#[derive(Default)]
struct Handles(Mutex<BTreeMap<u64, Handle>>);

impl Handles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, run: u64, handle: Handle) {
        self.lock().insert(run, handle);
    }

    fn take(&self, run: u64) -> Result<Handle> {
        self.lock().remove(&run).context("no handle for this run")
    }
}

/// A composed executor with one task, from commit to exit; then the executor is deleted. Output is stored.
pub(super) struct Executor {
    layer: PortLayer,
    name: &'static str,
    /// How the names of its elements begin.
    prefix: &'static str,
    spec: ExecutorSpec,
    image: ElementId,
    volumes: Vec<ElementId>,
    handles: Handles,
}

impl Executor {
    pub(super) fn new(node: &Arc<Node>, image: &ElementId) -> Self {
        Self {
            layer: node.layer().clone(),
            name: names::LAYER,
            prefix: "run",
            spec: ExecutorSpec::default(),
            image: image.clone(),
            volumes: Vec::new(),
            handles: Handles::default(),
        }
    }

    /// The same with the host's user ids, which is all the direct client can have.
    pub(super) fn with_host_users(node: &Arc<Node>, image: &ElementId) -> Self {
        let mut executor = Self {
            name: names::LAYER_HOST_USERS,
            prefix: "host-users",
            ..Self::new(node, image)
        };
        executor.spec.isolation.host_users = true;
        executor
    }

    /// The same with [`VOLUMES`] volumes mounted.
    pub(super) async fn with_volumes(node: &Arc<Node>, image: &ElementId) -> Result<Self> {
        let mut executor = Self {
            name: names::LAYER_VOLUMES,
            prefix: "volumes",
            ..Self::new(node, image)
        };
        for at in 0..VOLUMES {
            let volume = id(Kind::Volume, "volumes", &format!("v{at}"))?;
            let new = NewElement::new(volume.clone(), Spec::Volume(VolumeSpec::default()));
            executor.layer.create(new).await?;
            executor.volumes.push(volume);
        }
        Ok(executor)
    }

    fn element(&self, run: u64) -> String {
        format!("{}-{run}", self.prefix)
    }
}

#[async_trait]
impl Variant for Executor {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn before(&self, run: u64) -> Result<()> {
        let name = self.element(run);
        let task = create_task(&self.layer, &name, &[TRUE]).await?;
        let (image, spec) = (&self.image, self.spec.clone());
        let handle = composed(&self.layer, &name, image, &self.volumes, &task, spec).await?;
        self.handles.keep(run, handle);
        Ok(())
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let handle = self.handles.take(run)?;
        let executor = handle.executor().clone();
        let task = task_id(&self.element(run))?;
        let remove = async || Ok(self.layer.delete(&executor).await?);
        timed(&self.layer, handle, &task, remove).await
    }

    async fn after(&self, run: u64) -> Result<()> {
        self.layer.delete(&task_id(&self.element(run))?).await?;
        Ok(())
    }

    fn in_throughput(&self) -> bool {
        self.volumes.is_empty()
    }
}

/// A further task in an executor that runs.
pub(super) struct Further {
    layer: PortLayer,
    executor: ElementId,
    handles: Handles,
}

impl Further {
    /// Starts the executor, with a task that sleeps.
    pub(super) async fn start(node: &Arc<Node>, image: &ElementId) -> Result<Self> {
        let layer = node.layer().clone();
        let sleeper = create_task(&layer, "sleeper", &["/bin/sleep", "100000"]).await?;
        let spec = ExecutorSpec::default();
        let handle = composed(&layer, "host", image, &[], &sleeper, spec).await?;
        let executor = handle.executor().clone();
        layer.commit(handle).await?;
        Ok(Self {
            layer,
            executor,
            handles: Handles::default(),
        })
    }

    /// The container it runs in: the executor's first.
    pub(super) fn container(&self) -> ContainerId {
        ContainerId::new(&self.executor, 1)
    }
}

#[async_trait]
impl Variant for Further {
    fn name(&self) -> &'static str {
        names::LAYER_FURTHER
    }

    async fn before(&self, run: u64) -> Result<()> {
        let task = create_task(&self.layer, &format!("further-{run}"), &[TRUE]).await?;
        let handle = self.layer.compose(&self.executor).await?;
        self.handles
            .keep(run, further(&self.layer, handle, &task).await?);
        Ok(())
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let handle = self.handles.take(run)?;
        let task = task_id(&format!("further-{run}"))?;
        let remove = async || {
            let handle = self.layer.compose(&self.executor).await?;
            let handle = self.layer.unbind(handle, Some(&task)).await?;
            let handle = self.layer.leave(handle, &task).await?;
            self.layer.commit(handle).await?;
            Ok(())
        };
        timed(&self.layer, handle, &task, remove).await
    }

    async fn after(&self, run: u64) -> Result<()> {
        self.layer
            .delete(&task_id(&format!("further-{run}"))?)
            .await?;
        Ok(())
    }

    fn in_throughput(&self) -> bool {
        false
    }
}
