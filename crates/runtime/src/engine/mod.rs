//! A containerd of our own: started as our child, with its own root, state, socket, namespace and cgroup parent.
//!
//! Everything it makes is below one directory and one cgroup parent, so that [`Engine::clean`] can remove all of it with nothing but the
//! directory's name, whatever state a crash left it in. Tasks survive us: containerd goes on without its parent, and a later
//! [`Engine::start`] on the same directory takes it over.

mod clean;
mod config;
mod keeper;
mod watcher;

pub(crate) use clean::{end_shim_of, is_shim};

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use containerd_client::services::v1::{CreateNamespaceRequest, Namespace};
use containerd_client::tonic::{Code, Status};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{client::Client, host, io::LogBounds};

/// How long a new containerd may take until it serves. It takes a tenth of a second; a slow disk may need more.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long containerd may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where shims listen.
pub(crate) const SHIM_SOCKETS: &str = "/run/containerd/s";

/// The longest path a unix socket can have on Linux, without the closing zero.
const SOCKET_PATH_BYTES: usize = 107;

/// Which programs to start and how much they may leave.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Private directory; made when missing. Must be on a file system that can be the upper layer of an overlay.
    pub directory: PathBuf,
    /// The containerd program, a name in PATH or a path.
    pub containerd: String,
    /// The OCI runtime, a name in PATH or a path.
    pub runc: String,
    /// How much output of a task is stored.
    pub logs: LogBounds,
    /// File of the network namespace in which bridges and the firewall's rules are made; `None` = that of this process.
    pub network_namespace: Option<PathBuf>,
    /// Places outside of the directory that logs may reach: `unix:<socket>`, `tcp:<host:port>`, `path:<file>`; with a slash at
    /// the end everything below.
    pub log_destinations: Vec<String>,
    /// Most bytes of all bounded writable layers, which are then subvolumes of a pool; 0 = each is a file system of its own.
    pub disk_pool_bytes: u64,
}

impl EngineConfig {
    /// The usual programs and bounds, in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> EngineConfig {
        EngineConfig {
            directory: directory.into(),
            containerd: "containerd".into(),
            runc: "runc".into(),
            logs: LogBounds::default(),
            network_namespace: None,
            log_destinations: Vec::new(),
            disk_pool_bytes: 0,
        }
    }
}

/// What can go wrong with the engine itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process uses the directory.
    #[error("engine directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The directory's name is too long for the sockets in it.
    #[error("engine directory {0} is too long: its sockets need a path of at most 107 bytes")]
    PathTooLong(PathBuf),
    /// A program cannot be started.
    #[error("cannot start {program}")]
    Program {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is left of the networks cannot be removed.
    #[error("cannot remove the networks of {directory}: {text}")]
    Networks {
        /// The engine's directory.
        directory: PathBuf,
        /// What failed.
        text: String,
    },
    /// containerd ended while starting.
    #[error("containerd ended while starting: {log}")]
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// containerd does not serve.
    #[error("containerd does not answer on {socket}")]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// The last answer.
        #[source]
        source: Box<Status>,
    },
    /// A call of the kernel failed.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { verb, path, source }
}

/// Names of everything that belongs to the engine of one directory. All follow from the directory, so that a cleaner needs nothing else.
#[derive(Debug, Clone)]
pub struct Places {
    /// The private directory, canonical.
    pub directory: PathBuf,
    /// containerd's socket.
    pub socket: PathBuf,
    /// containerd namespace, unique on the host: runc and shims share directories between all containerds.
    pub namespace: String,
    /// Parent of all cgroups of executors, from the root of each hierarchy.
    pub cgroup_parent: String,
}

impl Places {
    /// The places of an existing directory.
    fn of(directory: &Path) -> Result<Places, EngineError> {
        Places::at(fs::canonicalize(directory).map_err(io_error("open", directory))?)
    }

    /// The places of a canonical path.
    fn at(directory: PathBuf) -> Result<Places, EngineError> {
        let socket = directory.join("containerd.sock");
        if socket.as_os_str().len() + ".ttrpc".len() > SOCKET_PATH_BYTES {
            return Err(EngineError::PathTooLong(directory));
        }
        let digest = hex::encode(Sha256::digest(directory.as_os_str().as_encoded_bytes()));
        let name = format!("portlayer-{}", &digest[..12]);
        Ok(Places {
            socket,
            // Right below the root: a parent that engines shared could go with one while another makes its own in it.
            cgroup_parent: format!("/{name}"),
            namespace: name,
            directory,
        })
    }

    /// Private directories of containers.
    pub(crate) fn containers(&self) -> PathBuf {
        self.directory.join("containers")
    }

    /// Where the pool of writable layers is mounted: a subvolume for each container that has a bounded one.
    pub(crate) fn disks(&self) -> PathBuf {
        self.directory.join("disks")
    }

    /// The pool's file.
    pub(crate) fn disks_file(&self) -> PathBuf {
        self.directory.join("disks.btrfs")
    }

    /// Where root file systems are mounted, a directory for each container.
    pub(crate) fn roots(&self) -> PathBuf {
        Path::new("/run/portlayer").join(&self.namespace)
    }

    pub(crate) fn runc_root(&self) -> PathBuf {
        self.directory.join("runc")
    }

    /// Where the shim of a container listens: outside of the directory, below one of all containerds of the host
    /// (crates/init/src/shim.rs).
    pub(crate) fn shim_socket(&self, container: &str) -> PathBuf {
        Path::new(SHIM_SOCKETS).join(format!("{}-{container}", self.namespace))
    }

    /// Removes what a killed shim leaves: nobody else does. Idempotent.
    pub(crate) fn remove_shim_socket(&self, container: &str) -> io::Result<()> {
        match fs::remove_file(self.shim_socket(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn config(&self) -> PathBuf {
        self.directory.join("containerd.toml")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("containerd.log")
    }

    /// The containerd that was started for this directory, if it lives. Found by its arguments: those name the directory, so a
    /// stored process id, which could be somebody else's by now, is not needed.
    fn running(&self) -> io::Result<Vec<host::Process>> {
        let config = self.config();
        host::processes(|process| {
            process
                .flag("--config")
                .is_some_and(|path| Path::new(path) == config)
        })
    }
}

/// A running containerd. Dropping it leaves containerd and the tasks running; [`Engine::stop`] ends and removes everything.
#[derive(Debug)]
pub struct Engine {
    places: Places,
    config: EngineConfig,
    child: watcher::OurChild,
    keeper: Option<Child>,
    /// Starts containerd again when it ends; none while we end it ourselves.
    watcher: Option<watcher::Watcher>,
    /// How often containerd ended since we watch it.
    losses: Arc<watch::Sender<u64>>,
    _lock: Flock<fs::File>,
}

impl Engine {
    /// Starts containerd in the directory, or takes over the one that a process that is gone left running there. Returns when it
    /// serves and the namespace exists.
    ///
    /// Fails at once with [`EngineError::InUse`] when another process has the directory.
    pub async fn start(config: EngineConfig) -> Result<Engine, EngineError> {
        let blocking = config.clone();
        let (places, lock, child, keeper) = blocking_task(move || prepare(&blocking)).await?;
        let mut engine = Engine {
            places,
            config,
            child: Arc::new(Mutex::new(child)),
            keeper,
            watcher: None,
            losses: Arc::default(),
            _lock: lock,
        };
        engine.wait_until_served().await?;
        engine.watch()?;
        Ok(engine)
    }

    /// Where things are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What was asked for.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// How often containerd ended since the start, whoever ended it, and every further time.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// A client for this engine and its namespace.
    pub fn client(&self) -> Client {
        // Its name is made of letters, digits and a hyphen.
        Client::new(&self.places.socket, &self.places.namespace)
            .expect("our namespace is a valid header")
    }

    async fn wait_until_served(&mut self) -> Result<(), EngineError> {
        let started = Instant::now();
        loop {
            // A new client each time: a failed connection backs off for longer than we want to wait.
            let client = self.client().with_deadline(Some(Duration::from_secs(5)));
            let namespace = Namespace {
                name: self.places.namespace.clone(),
                labels: [("portlayer.owner".to_owned(), "portlayer".to_owned())].into(),
            };
            let answer = client
                .namespaces()
                .create(CreateNamespaceRequest {
                    namespace: Some(namespace),
                })
                .await;
            let status = match answer {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                Err(status) => status,
            };
            if self.has_ended()? {
                return Err(EngineError::Ended {
                    log: self.log_tail(),
                });
            }
            if started.elapsed() > START_LIMIT {
                return Err(EngineError::Silent {
                    socket: self.places.socket.clone(),
                    source: Box::new(status),
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the containerd we started has ended.
    fn has_ended(&self) -> Result<bool, EngineError> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.as_mut().map(Child::try_wait).transpose();
        let status = status.map_err(io_error("wait for", Path::new("containerd")))?;
        Ok(status.flatten().is_some())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.places.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    /// Kills every task, ends containerd and removes the directory with everything in it, the mounts below and the cgroups.
    pub async fn stop(self) -> Result<(), EngineError> {
        self.end(clean::clean).await
    }

    /// Kills every task, ends containerd, unmounts and removes the cgroups, but keeps the directory: images, volumes and logs are
    /// there at the next start.
    pub async fn halt(self) -> Result<(), EngineError> {
        self.end(clean::end).await
    }

    /// Ends containerd if this start started it, as [`Engine::halt`] does; but not while tasks of an earlier containerd run,
    /// which the next start takes over.
    pub async fn give_up(self) -> Result<(), EngineError> {
        let mut given = self;
        let Some(child) = given.take_child() else {
            return Ok(());
        };
        blocking_task(move || {
            drop(given.watcher.take());
            clean::end_containerd(&given.places)?;
            if clean::tasks_run(&given.places)? {
                // Their shims and the keeper of their output stay.
                given.keeper = None;
            } else {
                clean::end(&given.places)?;
            }
            for mut child in [child].into_iter().chain(given.keeper.take()) {
                let _ = child.wait();
            }
            Ok(())
        })
        .await
    }

    /// From now on containerd is started again when it ends.
    fn watch(&mut self) -> Result<(), EngineError> {
        let watcher = watcher::Watcher::start(
            self.places.clone(),
            self.config.clone(),
            Arc::clone(&self.child),
            Arc::clone(&self.losses),
        );
        self.watcher = Some(watcher.map_err(io_error("watch", &self.places.socket))?);
        Ok(())
    }

    fn take_child(&self) -> Option<Child> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn end(mut self, how: fn(&Places) -> Result<(), EngineError>) -> Result<(), EngineError> {
        blocking_task(move || {
            self.watcher = None;
            let result = how(&self.places);
            for mut child in self.take_child().into_iter().chain(self.keeper.take()) {
                // It was killed; this only takes the zombie away.
                let _ = child.wait();
            }
            result
        })
        .await
    }

    /// Ends containerd and starts it again; tasks go on. For tests of what happens then, and for upgrades.
    pub async fn restart(&mut self) -> Result<(), EngineError> {
        let (places, config) = (self.places.clone(), self.config.clone());
        let (watcher, child) = (self.watcher.take(), self.take_child());
        let new = blocking_task(move || {
            drop(watcher);
            clean::end_containerd(&places)?;
            if let Some(mut child) = child {
                let _ = child.wait();
            }
            spawn(&places, &config)
        });
        self.child = Arc::new(Mutex::new(Some(new.await?)));
        self.losses.send_modify(|losses| *losses += 1);
        self.wait_until_served().await?;
        self.watch()
    }

    /// Removes whatever an engine that is gone left of this directory: containerd, shims, tasks, mounts, cgroups, runc state, files.
    /// Idempotent; a directory that is not there is fine. Fails with [`EngineError::InUse`] while a live process has it. Blocks.
    pub fn clean(directory: &Path) -> Result<(), EngineError> {
        if !directory
            .try_exists()
            .map_err(io_error("look at", directory))?
        {
            return Self::clean_removed(directory);
        }
        let places = Places::of(directory)?;
        let _lock = lock(&places.directory)?;
        clean::clean(&places)
    }
}

impl Engine {
    /// The same when somebody has removed the directory: what is outside of it has names that follow from its path.
    fn clean_removed(directory: &Path) -> Result<(), EngineError> {
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Ok(());
        };
        match fs::canonicalize(parent) {
            Ok(parent) => clean::clean(&Places::at(parent.join(name))?),
            Err(_) => Ok(()),
        }
    }
}

async fn blocking_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn lock(directory: &Path) -> Result<Flock<fs::File>, EngineError> {
    let path = directory.join("lock");
    let file = fs::File::create(&path).map_err(io_error("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => EngineError::InUse(directory.to_owned()),
        other => EngineError::Io {
            verb: "lock",
            path,
            source: other.into(),
        },
    })
}

/// The places, the lock on them, and containerd and the keeper as far as they had to be started.
type Prepared = (Places, Flock<fs::File>, Option<Child>, Option<Child>);

/// Makes the directory, locks it and starts containerd and the keeper unless they run.
fn prepare(config: &EngineConfig) -> Result<Prepared, EngineError> {
    fs::create_dir_all(&config.directory).map_err(io_error("make", &config.directory))?;
    let places = Places::of(&config.directory)?;
    // Root file systems and output of tasks are nobody else's business. What executors have to reach is below /run/portlayer.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&places.directory, private)
        .map_err(io_error("change", &places.directory))?;
    let lock = lock(&places.directory)?;
    let running = places
        .running()
        .map_err(io_error("look for", Path::new("containerd")))?;
    let child = if running.is_empty() {
        Some(spawn(&places, config)?)
    } else {
        None
    };
    let keeper = keeper::start(&places)?;
    Ok((places, lock, child, keeper))
}

fn spawn(places: &Places, config: &EngineConfig) -> Result<Child, EngineError> {
    let path = places.config();
    fs::write(&path, config::text(places)).map_err(io_error("write", &path))?;
    let log_path = places.log();
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(io_error("open", &log_path))?;
    let errors = log.try_clone().map_err(io_error("open", &log_path))?;
    Command::new(&config.containerd)
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // An interrupt from the terminal is for us; tasks end in stages and not because somebody pressed Ctrl-C.
        .process_group(0)
        .spawn()
        .map_err(|source| EngineError::Program {
            program: config.containerd.clone(),
            source,
        })
}
