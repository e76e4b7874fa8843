//! A port layer on the fake engine, for tests of what runs on it. A process is a script of words: `echo X`, `sleep MS`,
//! `hang`, `trap N`, `exit N`; the container's file system is a directory with one user, `me`.

use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use portlayer::element::{ImageSpec, Kind, ListQuery, NewElement, Spec};
use portlayer::ledger::LedgerConfig;
use portlayer::runtime::fake::FakeRuntime;
use portlayer::store::memory::MemoryStore;
use portlayer::store::{Location, Policy, Store};
use portlayer::{Config, PortLayer};

use crate::fetch::{Answer, Fetch, FetchError, Fetcher, SendFile, Validators};
use crate::log::{LogLine, LogSink};
use crate::run::{RunSettings, Runner};

/// The image there is.
pub(crate) const IMAGE: &str = "image://images/fs";

/// A network where nobody answers but the callbacks that are scripted.
#[derive(Default)]
pub(crate) struct Wire {
    /// Answers to posted documents, in order; `None` = nobody is there.
    pub(crate) answers: Mutex<Vec<Option<u16>>>,
    /// Documents that were posted.
    pub(crate) posted: Mutex<Vec<serde_json::Value>>,
}

#[async_trait]
impl Fetch for Wire {
    async fn get(&self, _: &str, _: Option<&Validators>) -> Result<Answer, FetchError> {
        Err(FetchError::Url)
    }

    async fn post_file(&self, _: &str, _: &SendFile<'_>) -> Result<(), FetchError> {
        Err(FetchError::Url)
    }

    async fn post_json(&self, _: &str, json: Vec<u8>, _: Duration) -> Result<u16, FetchError> {
        self.posted
            .lock()
            .unwrap()
            .push(serde_json::from_slice(&json).unwrap());
        match self.answers.lock().unwrap().pop() {
            Some(Some(status)) => Ok(status),
            _ => Err(FetchError::Connection {
                host: "h".to_owned(),
                text: "refused".to_owned(),
            }),
        }
    }
}

#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<LogLine>>);

impl LogSink for Lines {
    fn emit(&self, line: LogLine) {
        self.0.lock().unwrap().push(line);
    }
}

pub(crate) struct Rehearsal {
    pub(crate) runner: Runner,
    pub(crate) layer: PortLayer,
    pub(crate) engine: FakeRuntime,
    pub(crate) wire: Arc<Wire>,
    lines: Arc<Lines>,
    _directory: tempfile::TempDir,
}

impl Rehearsal {
    pub(crate) async fn new(grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        // Whoever runs the test, so that it need not be root.
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        std::fs::write(
            root.join("etc/passwd"),
            format!("me:x:{uid}:{gid}::/home:/bin/sh\n"),
        )
        .unwrap();
        std::fs::create_dir(root.join("home")).unwrap();
        let engine = FakeRuntime::new();
        engine.set_inside(root);
        let location = |name: &str, kind, store| Location {
            name: name.to_owned(),
            kinds: vec![kind],
            policy: Policy::ReadWrite,
            store,
        };
        let bytes = || Some(Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        let layer = PortLayer::open(Config {
            ledger: LedgerConfig::new(directory.path().join("ledger")),
            networks: Vec::new(),
            locations: vec![
                location("images", Kind::Image, bytes()),
                location("volumes", Kind::Volume, bytes()),
                location("tasks", Kind::Task, None),
                location("executors", Kind::Executor, None),
            ],
            runtime: Arc::new(engine.clone()),
        })
        .await
        .unwrap();
        let image = NewElement::new(IMAGE.parse().unwrap(), Spec::Image(ImageSpec::default()));
        layer
            .create(image.data(Cursor::new(b"bytes".to_vec())))
            .await
            .unwrap();
        let (lines, wire) = (Arc::new(Lines::default()), Arc::new(Wire::default()));
        let fetcher = Fetcher::new(wire.clone(), directory.path().join("spool")).unwrap();
        let settings = RunSettings {
            hold: vec!["hang".to_owned()],
            grace,
            ..RunSettings::default()
        };
        Self {
            runner: Runner::new(layer.clone(), Arc::new(fetcher), lines.clone(), settings),
            layer,
            engine,
            wire,
            lines,
            _directory: directory,
        }
    }

    /// Elements of runs and tasks that are there.
    pub(crate) async fn left(&self) -> Vec<String> {
        let query = ListQuery {
            hidden: true,
            limit: 100,
            ..ListQuery::default()
        };
        let listed = self.layer.list(query).await.unwrap();
        let ids = listed.items.iter().map(|element| element.id.to_string());
        ids.filter(|id| id != IMAGE && !id.contains("builtin") && !id.contains("//node/"))
            .collect()
    }

    /// Every line so far: source, `!` for standard error, text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.0.lock().unwrap();
        let shown = |line: &LogLine| {
            format!(
                "{}{}: {}",
                line.source,
                if line.stderr { "!" } else { "" },
                line.text
            )
        };
        lines.iter().map(shown).collect()
    }
}
