//! The least a client of containerd can do for one task: no lease, no record, no recovery, but the container the port layer
//! makes. What the port layer adds on top of this is its price.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use containerd_client::Client as Containerd;
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, GetContainerRequest, StartRequest, WaitRequest,
};
use portlayer::runtime::ContainerId;
use prost_types::Any;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tonic::metadata::{Ascii, MetadataValue};

use super::{Node, Timing, Variant, names};
use crate::busybox;

const SNAPSHOTTER: &str = "overlayfs";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// How much of what the port layer does a direct client does too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The task's output goes to `/dev/null`, its user ids are the host's.
    Minimal,
    /// Its output goes through FIFOs into files.
    Stored,
    /// And it has a user namespace: the same isolation. Its root is not mapped, so that it owns none of its files.
    StoredUsers,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Minimal => "direct",
            Kind::Stored => "stored",
            Kind::StoredUsers => "stored-users",
        }
    }
}

/// One connection for all runs.
pub(super) struct Client {
    containerd: Containerd,
    namespace: MetadataValue<Ascii>,
    parent: String,
    spec: serde_json::Value,
    node: Arc<Node>,
    directory: PathBuf,
    kind: Kind,
}

impl Client {
    pub(super) async fn connect(
        node: &Arc<Node>,
        made: &serde_json::Value,
        kind: Kind,
    ) -> Result<Self> {
        let spec = document(made.clone(), kind)?;
        let directory = node.directory().join(kind.prefix());
        tokio::fs::create_dir(&directory).await?;
        if kind == Kind::StoredUsers {
            // Its root is in containerd's own directory, which nobody else can enter otherwise.
            for place in node.way_to_roots() {
                std::fs::set_permissions(&place, Permissions::from_mode(0o711))?;
            }
        }
        Ok(Self {
            containerd: Containerd::from_path(node.socket()).await?,
            namespace: node.namespace().parse()?,
            parent: node.busybox().diff_id(),
            spec,
            node: node.clone(),
            directory,
            kind,
        })
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        request(&self.namespace, message)
    }

    fn id(&self, run: u64) -> String {
        format!("{}-{run}", self.kind.prefix())
    }

    fn container(&self, id: &str) -> Result<Container> {
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = serde_json::json!(self.node.cgroup(id));
        Ok(Container {
            id: id.to_owned(),
            image: busybox::REFERENCE.to_owned(),
            runtime: Some(Runtime {
                name: "io.containerd.runc.v2".to_owned(),
                options: None,
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value: serde_json::to_vec(&spec)?,
            }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.to_owned(),
            ..Container::default()
        })
    }
}

#[async_trait]
impl Variant for Client {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Minimal => names::DIRECT,
            Kind::Stored => names::DIRECT_STORED,
            Kind::StoredUsers => names::DIRECT_USERS,
        }
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let id = self.id(run);
        let container = self.container(&id)?;
        let mut clock = Clock::start();

        // The container refers to its snapshot, but only from its creation on: until then the label keeps the
        // garbage collector away (reliability.md, finding 2).
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.clone(),
            parent: self.parent.clone(),
            labels: [("containerd.io/gc.root".to_owned(), "bench".to_owned())].into(),
        };
        let rootfs = self
            .containerd
            .snapshots()
            .prepare(self.request(prepare))
            .await?;
        let rootfs = rootfs.into_inner().mounts;
        clock.phase("snapshot prepare");

        let create = CreateContainerRequest {
            container: Some(container),
        };
        self.containerd
            .containers()
            .create(self.request(create))
            .await?;
        clock.phase("container create");

        let streams = match self.kind {
            Kind::Minimal => None,
            Kind::Stored | Kind::StoredUsers => Some(Streams::open(&self.directory.join(&id))?),
        };
        let path = |name| match &streams {
            Some(streams) => streams.path(name),
            None => String::new(),
        };
        let create = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdout: path("stdout"),
            stderr: path("stderr"),
            ..CreateTaskRequest::default()
        };
        self.containerd.tasks().create(self.request(create)).await?;
        let copies = streams.map(Streams::copy);
        clock.phase("task create");

        // Asked before the start, as every careful client does: no exit can be missed.
        let wait = self.request(WaitRequest {
            container_id: id.clone(),
            exec_id: String::new(),
        });
        let mut tasks = self.containerd.tasks();
        let wait = tokio::spawn(async move { tasks.wait(wait).await });
        let start = StartRequest {
            container_id: id.clone(),
            exec_id: String::new(),
        };
        self.containerd.tasks().start(self.request(start)).await?;
        clock.phase("task start");

        let exit = wait.await??.into_inner();
        ensure!(
            exit.exit_status == 0,
            "{id} ended with {}",
            exit.exit_status
        );
        clock.phase("task wait");

        if let Some(copies) = copies {
            copies.finish().await?;
            clock.phase("output stored");
        }
        let exit = clock.elapsed();
        let delete = DeleteTaskRequest {
            container_id: id.clone(),
        };
        self.containerd.tasks().delete(self.request(delete)).await?;
        clock.phase("task delete");

        let delete = DeleteContainerRequest { id: id.clone() };
        self.containerd
            .containers()
            .delete(self.request(delete))
            .await?;
        clock.phase("container delete");

        let remove = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.clone(),
        };
        self.containerd
            .snapshots()
            .remove(self.request(remove))
            .await?;
        clock.phase("snapshot remove");
        Ok(Timing {
            exit: Some(exit),
            gone: clock.elapsed(),
            phases: clock.phases,
        })
    }

    async fn after(&self, run: u64) -> Result<()> {
        if self.kind != Kind::Minimal {
            tokio::fs::remove_dir_all(self.directory.join(self.id(run))).await?;
        }
        Ok(())
    }
}

fn request<T>(namespace: &MetadataValue<Ascii>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace.clone());
    request
}

/// The document of a container the port layer made.
pub(super) async fn made(node: &Node, container: &ContainerId) -> Result<serde_json::Value> {
    let containerd = Containerd::from_path(node.socket()).await?;
    let get = GetContainerRequest {
        id: container.as_str().to_owned(),
    };
    let get = request(&node.namespace().parse()?, get);
    let found = containerd.containers().get(get).await?.into_inner();
    let document = found.container.and_then(|container| container.spec);
    let document = document.context("the container has no document")?;
    Ok(serde_json::from_slice(&document.value)?)
}

/// That document as a direct client writes it: the same isolation with its own root and without init. So the difference between
/// the two is what the port layer does, not how much it isolates.
fn document(mut spec: serde_json::Value, kind: Kind) -> Result<serde_json::Value> {
    spec["root"] = serde_json::json!({"path": "rootfs", "readonly": false});
    spec["process"]["args"] = serde_json::json!([busybox::TRUE]);
    // A root with mapped ids no client of containerd 1.6 gets from the engine.
    if let (Some(linux), true) = (spec["linux"].as_object_mut(), kind != Kind::StoredUsers) {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let namespaces = linux
            .get_mut("namespaces")
            .and_then(|list| list.as_array_mut());
        namespaces
            .context("the document has no namespaces")?
            .retain(|namespace| namespace["type"] != "user");
    }
    for (list, field) in [("/mounts", "/destination"), ("/process/env", "")] {
        let entries = spec.pointer_mut(list).and_then(|list| list.as_array_mut());
        entries
            .with_context(|| format!("the document has no {list}"))?
            .retain(|entry| {
                let text = entry.pointer(field).and_then(|text| text.as_str());
                !text.is_some_and(|text| INITS.iter().any(|prefix| text.starts_with(prefix)))
            });
    }
    Ok(spec)
}

/// How mounts and variables begin that are for the port layer's init.
const INITS: [&str; 2] = ["/dev/.portlayer/", "PORTLAYER_"];

/// The FIFOs of one task, open for reading.
struct Streams {
    directory: PathBuf,
    readers: Vec<(&'static str, pipe::Receiver)>,
}

/// Copies in flight, one per stream.
struct Copies(Vec<JoinHandle<std::io::Result<u64>>>);

impl Streams {
    /// Makes them in a fresh directory. Open before the task is created: the shim waits for a reader
    /// (reliability.md, finding 4).
    fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir(directory)?;
        let mut readers = Vec::new();
        for name in ["stdout", "stderr"] {
            let path = directory.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)
                .with_context(|| format!("mkfifo {}", path.display()))?;
            readers.push((name, pipe::OpenOptions::new().open_receiver(&path)?));
        }
        Ok(Self {
            directory: directory.to_owned(),
            readers,
        })
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Copies until the shim closes its ends; it has them open once the task is created.
    fn copy(self) -> Copies {
        let directory = self.directory;
        let copy = |(name, mut reader): (&str, pipe::Receiver)| {
            let path = directory.join(format!("{name}.log"));
            tokio::spawn(async move {
                let mut file = tokio::fs::File::create(path).await?;
                tokio::io::copy(&mut reader, &mut file).await
            })
        };
        Copies(self.readers.into_iter().map(copy).collect())
    }
}

impl Copies {
    async fn finish(self) -> Result<()> {
        for copy in self.0 {
            copy.await??;
        }
        Ok(())
    }
}

/// Splits a run into phases.
struct Clock {
    start: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            phases: Vec::new(),
        }
    }

    fn phase(&mut self, name: &'static str) {
        let now = Instant::now();
        self.phases.push((name, now - self.last));
        self.last = now;
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
