//! A node with an image, and receivers of lines.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use portlayer::compose::{BindHow, CommitError, CommitResult, JoinHow};
use portlayer::element::{ElementId, ImageSpec, NewElement, Spec};
use portlayer::runtime::{LogQuery, LogStreams};
use portlayer::task::TaskSpec;
use portlayer_node::Node;
use portlayer_node::OpenError;
use portlayer_node::config::Config;
use portlayer_runtime::EngineError;

use crate::support::left;

/// A directory for a node and the sockets around it.
pub(super) struct World {
    pub(super) directory: PathBuf,
}

impl World {
    pub(super) fn new() -> World {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let made = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp");
        World {
            directory: made.unwrap().keep(),
        }
    }

    /// A place in it, as text.
    pub(super) fn at(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("d")
    }

    /// Opens the node. Logs may reach everything in the directory, and this address.
    pub(super) async fn open(&self, tcp: Option<&str>) -> Node {
        let mut config = Config::new(self.data());
        let here = self.directory.display();
        config.logs.destinations = vec![format!("unix:{here}/"), format!("path:{here}/")];
        config
            .logs
            .destinations
            .extend(tcp.map(|address| format!("tcp:{address}")));
        // A program that another test starts at this moment has our lock until its exec.
        for _ in 0..100 {
            match portlayer_node::open(&config).await {
                Err(OpenError::Engine(EngineError::InUse(_))) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("the engine stays in use");
    }

    /// Opens it with the image.
    pub(super) async fn node(&self, tcp: Option<&str>) -> Node {
        let node = self.open(tcp).await;
        let binary = Path::new("/bin/busybox");
        let bytes = std::fs::read(binary).expect("the Debian package busybox-static is needed");
        let applets = portlayer_runtime::layout::applets(binary).unwrap();
        let tar = portlayer_runtime::layout::busybox_tar(&bytes, &applets);
        let new = NewElement::new(
            id("image://images/busybox"),
            Spec::Image(ImageSpec::default()),
        );
        node.port_layer
            .create(new.data(std::io::Cursor::new(tar)))
            .await
            .unwrap();
        node
    }

    /// No file of the node below `logs` has these bytes.
    pub(super) fn stored_nowhere(&self, secret: &str) {
        let mut left = vec![self.data().join("logs")];
        while let Some(at) = left.pop() {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    left.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).unwrap();
                let found = bytes
                    .windows(secret.len())
                    .any(|bytes| bytes == secret.as_bytes());
                assert!(!found, "{} has {secret:?}", path.display());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        left::remove(self.data(), self.directory.clone(), ());
    }
}

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

/// Makes a log.
pub(super) async fn log(node: &Node, name: &str, settings: &[(&str, &str)]) -> ElementId {
    let id = id(&format!("log://node/{name}"));
    let settings: BTreeMap<_, _> = settings
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    node.port_layer
        .create(NewElement::new(id.clone(), Spec::Log(settings)))
        .await
        .unwrap();
    id
}

pub(super) fn shell(script: &str) -> TaskSpec {
    TaskSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    }
}

pub(super) fn ids(name: &str) -> (ElementId, ElementId) {
    (
        id(&format!("executor://executors/{name}")),
        id(&format!("task://tasks/{name}")),
    )
}

/// Starts a task with these logs joined.
pub(super) async fn start(
    node: &Node,
    name: &str,
    logs: &[&ElementId],
    spec: TaskSpec,
) -> Result<CommitResult, CommitError> {
    let layer = &node.port_layer;
    let (executor, task) = ids(name);
    layer
        .create(NewElement::new(
            executor.clone(),
            Spec::Executor(Box::default()),
        ))
        .await
        .unwrap();
    layer
        .create(NewElement::new(task.clone(), Spec::Task(Box::new(spec))))
        .await
        .unwrap();
    let mut handle = layer.compose(&executor).await?;
    handle = layer
        .join(handle, &id("image://images/busybox"), JoinHow::root())
        .await?;
    for log in logs {
        handle = layer.join(handle, log, JoinHow::Log).await?;
    }
    handle = layer.join(handle, &task, JoinHow::Task).await?;
    handle = layer.bind(handle, None, BindHow::Plain).await?;
    layer.commit(handle).await
}

/// The same to its end, which must be good.
pub(super) async fn run(node: &Node, name: &str, logs: &[&ElementId], spec: TaskSpec) {
    start(node, name, logs, spec)
        .await
        .unwrap_or_else(|error| panic!("{error:#?}"));
    let (executor, task) = ids(name);
    let exit = node.port_layer.wait(&executor, &task, None).await.unwrap();
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

/// What is stored of a task's output: the bytes, and how many are missing.
pub(super) async fn stored(node: &Node, name: &str, streams: LogStreams) -> (String, u64) {
    let (executor, task) = ids(name);
    let query = LogQuery {
        streams,
        ..LogQuery::new(&executor, &task)
    };
    let chunks: Vec<_> = node
        .port_layer
        .logs(&query)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let lost = chunks.iter().map(|chunk| chunk.lost_bytes).sum();
    let bytes = chunks.into_iter().flat_map(|chunk| chunk.bytes).collect();
    (String::from_utf8(bytes).unwrap(), lost)
}

/// Ends the node: nothing is left of it.
pub(super) async fn close(node: Node, names: &[&str]) {
    for name in names {
        let (executor, task) = ids(name);
        node.port_layer.delete(&executor).await.unwrap();
        node.port_layer.delete(&task).await.unwrap();
    }
    let report = node.port_layer.audit().await.unwrap();
    let leaks: Vec<_> = report.leaks().collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    node.remove().await.unwrap();
}

/// What somebody has received so far.
#[derive(Clone, Default)]
pub(super) struct Received(Arc<Mutex<Vec<Vec<u8>>>>);

impl Received {
    fn add(&self, message: Vec<u8>) {
        self.0.lock().unwrap().push(message);
    }

    pub(super) fn now(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .map(|message| String::from_utf8_lossy(message).into_owned())
            .collect()
    }

    /// Waits until a message holds this.
    pub(super) async fn wait_for(&self, text: &str) -> Vec<String> {
        for _ in 0..2000 {
            let now = self.now();
            if now.iter().any(|message| message.contains(text)) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{text:?} did not come: {:?}", self.now());
    }
}

/// Receives datagrams at a path until it is dropped.
pub(super) struct Datagrams {
    pub(super) received: Received,
    end: Arc<AtomicBool>,
    path: PathBuf,
}

impl Datagrams {
    pub(super) fn listen(path: &str) -> Datagrams {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (received, end) = (Received::default(), Arc::new(AtomicBool::new(false)));
        let (to, ended) = (received.clone(), end.clone());
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 18];
            while !ended.load(Ordering::Relaxed) {
                if let Ok(count) = socket.recv(&mut bytes) {
                    to.add(bytes[..count].to_vec());
                }
            }
        });
        Datagrams {
            received,
            end,
            path: path.into(),
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A syslog server that reads messages with counted octets until it is dropped.
pub(super) struct Syslog {
    pub(super) received: Received,
    pub(super) address: String,
    end: Arc<AtomicBool>,
}

impl Syslog {
    /// `breaks`: how many connections end after one message.
    pub(super) fn listen(address: &str, breaks: usize) -> Syslog {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (received, end) = (Received::default(), Arc::new(AtomicBool::new(false)));
        let (to, ended) = (received.clone(), end.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (to, mut stream) = (to.clone(), std::io::BufReader::new(stream.unwrap()));
                std::thread::spawn(move || {
                    while let Some(message) = counted(&mut stream) {
                        to.add(message);
                        if number < breaks {
                            return;
                        }
                    }
                });
            }
        });
        Syslog {
            received,
            address,
            end,
        }
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(&self.address);
    }
}

/// One message; `None` at the end.
fn counted(stream: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut byte) = (0usize, [0]);
    loop {
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}
