//! A node with Diego's tasks on it, and archives that come from memory.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portlayer::archive::TarBuilder;
use portlayer::element::{ImageSpec, Kind, ListQuery, NewElement, Spec};
use portlayer_node::Node;
use portlayer_node::config::Config;
use portlayer_runtime::layout;
use portlayer_taskdef::diego::{Settings, State, Task, TaskEvent, Tasks, read_json};
use portlayer_taskdef::fetch::{Answer, Fetch, FetchError, Fetcher, SendFile, Validators};
use portlayer_taskdef::log::NoLog;
use portlayer_taskdef::run::{RunSettings, Runner};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\n";

/// Serves one archive.
struct Memory;

#[async_trait::async_trait]
impl Fetch for Memory {
    async fn get(&self, url: &str, _: Option<&Validators>) -> Result<Answer, FetchError> {
        assert_eq!(url, "memory:announce");
        let tar = TarBuilder::new()
            .owner(7, 7)
            .file("announce", 0o755, b"echo announced\n")
            .finish();
        Ok(Answer::Body {
            validators: Validators::default(),
            bytes: Box::pin(Cursor::new(tar)),
        })
    }

    async fn post_file(&self, _: &str, _: &SendFile<'_>) -> Result<(), FetchError> {
        Err(FetchError::Url)
    }

    async fn post_json(&self, _: &str, _: Vec<u8>, _: Duration) -> Result<u16, FetchError> {
        Err(FetchError::Url)
    }
}

/// A node with tasks.
pub(super) struct Stage {
    node: Node,
    tasks: Tasks,
    count: AtomicU32,
    _directory: tempfile::TempDir,
}

impl Stage {
    pub(super) async fn open() -> Self {
        Self::with(RunSettings::default()).await
    }

    pub(super) async fn with(run: RunSettings) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let node = portlayer_node::open(&Config::new(directory.path().join("node")))
            .await
            .unwrap();
        let image = "image://images/fs"
            .parse::<portlayer::element::ElementId>()
            .unwrap();
        let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default()));
        node.port_layer
            .create(new.data(Cursor::new(root())))
            .await
            .unwrap();
        let fetcher = Fetcher::new(Arc::new(Memory), directory.path().join("spool")).unwrap();
        let runner = Runner::new(
            node.port_layer.clone(),
            Arc::new(fetcher),
            Arc::new(NoLog),
            run,
        );
        let settings = Settings {
            preloaded: BTreeMap::from([("fs".to_owned(), image)]),
            ..Settings::default()
        };
        Self {
            tasks: Tasks::open(runner, settings, "tasks").await.unwrap(),
            node,
            count: AtomicU32::new(0),
            _directory: directory,
        }
    }

    /// Runs a task of these fields to its end and removes it.
    pub(super) async fn run(&self, fields: &str) -> Task {
        let guid = format!("g{}", self.count.fetch_add(1, Ordering::Relaxed));
        let json =
            format!(r#"{{"task_guid":"{guid}","domain":"d","rootfs":"preloaded:fs",{fields}}}"#);
        let mut events = self.tasks.events();
        self.tasks
            .desire(read_json(json.as_bytes(), &Default::default()).unwrap())
            .await
            .unwrap();
        let completed = async {
            loop {
                if let TaskEvent::Changed { after, .. } = events.recv().await.unwrap()
                    && after.state == State::Completed
                {
                    return *after;
                }
            }
        };
        let task = tokio::time::timeout(Duration::from_secs(120), completed)
            .await
            .expect("the task ends");
        self.tasks.resolve(&guid).await.unwrap();
        self.tasks.delete(&guid).await.unwrap();
        task
    }

    /// Ends everything; nothing of a task may be left.
    pub(super) async fn close(self) {
        self.tasks.close().await;
        for kind in [Kind::Executor, Kind::Task] {
            let query = ListQuery {
                kind: Some(kind),
                hidden: true,
                ..ListQuery::default()
            };
            let left = self.node.port_layer.list(query).await.unwrap().items;
            assert!(left.is_empty(), "{left:?}");
        }
        let Self { node, tasks, .. } = self;
        drop(tasks);
        node.remove().await.unwrap();
    }
}

/// A busybox with users.
fn root() -> Vec<u8> {
    let path = Path::new("/bin/busybox");
    let binary = std::fs::read(path).expect("busybox-static is installed");
    let mut tar = TarBuilder::new();
    for directory in ["bin", "dev", "etc", "home", "proc", "sys"] {
        tar = tar.dir(directory, 0o755);
    }
    tar = tar
        .dir("tmp", 0o1777)
        .dir("root", 0o700)
        .file("bin/busybox", 0o755, &binary);
    tar = tar.file("etc/passwd", 0o644, PASSWD.as_bytes()).file(
        "etc/group",
        0o644,
        b"root:x:0:\nvcap:x:2000:\n",
    );
    for applet in layout::applets(path).unwrap() {
        if applet != "busybox" {
            tar = tar.symlink(&format!("bin/{applet}"), "busybox");
        }
    }
    tar.owner(2000, 2000).dir("home/vcap", 0o755).finish()
}
