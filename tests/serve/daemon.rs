//! A daemon of its own for one test.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, ImageSpec, NewElement, Spec};
use portlayer::task::TaskSpec;
use portlayer_client::{Client, Edit, RunPlan};
use portlayer_runtime::layout;

/// A daemon in a directory; whatever is left of it is removed in the end.
pub(super) struct Daemon {
    pub(super) directory: PathBuf,
    child: Option<Child>,
}

pub(super) fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

impl Daemon {
    /// Starts one with the default configuration.
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with this configuration file.
    pub(super) fn start_with(config: &str) -> Self {
        let mut daemon = Self::prepare(config);
        daemon.spawn();
        daemon
    }

    /// Everything but its start.
    pub(super) fn prepare(config: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pl-serve-")
            .tempdir_in("/var/tmp")
            .unwrap()
            .keep();
        std::fs::write(directory.join("config.toml"), config).unwrap();
        Self {
            directory,
            child: None,
        }
    }

    /// A command on the same node.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portlayer"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORTLAYER_CONFIG", self.directory.join("config.toml"))
            .env("PORTLAYER_DATA_DIR", self.directory.join("d"))
            .stdin(Stdio::null())
            .args(args);
        command
    }

    pub(super) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts the daemon again.
    pub(super) fn spawn(&mut self) {
        self.spawn_as(self.command(&["serve"]));
    }

    /// Starts it by a command of one's own.
    pub(super) fn spawn_as(&mut self, mut command: Command) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .unwrap();
        let child = command.stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("d/portlayer.sock")
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// A client, as soon as the daemon serves.
    pub(super) async fn client(&mut self) -> Client {
        for _ in 0..1200 {
            if let Ok(client) = Client::connect(self.socket()).await {
                return client;
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!("the daemon ended: {status}: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the daemon does not serve: {}", self.log());
    }

    /// Ends it as a crash would.
    pub(super) fn crash(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end and does not wait.
    pub(super) fn ask_to_end(&self) {
        let pid = self.child.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// Asks it to end and waits.
    pub(super) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait()
    }

    /// Sees that nothing is leaked and ends it.
    pub(super) async fn end(mut self) {
        let client = self.client().await;
        client.settle().await.unwrap();
        let report = client.audit().await.unwrap();
        assert_eq!(report.leaks().collect::<Vec<_>>(), Vec::<&_>::new());
        assert!(client.verify().await.unwrap().is_clean());
        drop(client);
        assert!(self.terminate().success(), "{}", self.log());
        assert!(!self.socket().exists());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let cleaned = self.output(&["engine", "clean", "--yes"]);
        if !cleaned.status.success() {
            eprintln!("left behind in {}", self.directory.display());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// `image://images/busybox`, imported over the socket.
pub(super) async fn busybox(client: &Client) -> ElementId {
    let binary = Path::new("/bin/busybox");
    let bytes = std::fs::read(binary).expect("busybox-static is installed");
    let tar = layout::busybox_tar(&bytes, &layout::applets(binary).unwrap());
    let image = id("image://images/busybox");
    let new = NewElement::new(image.clone(), Spec::Image(ImageSpec::default()));
    client.create(new.data(Cursor::new(tar))).await.unwrap().id
}

/// A task that runs a shell script.
pub(super) fn shell(script: &str) -> TaskSpec {
    TaskSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..TaskSpec::default()
    }
}

/// `executor://executors/NAME` that runs `task://tasks/NAME` in the image, as one call.
pub(super) fn one_call(name: &str, image: &ElementId, spec: TaskSpec) -> RunPlan {
    let (task, executor) = ids(name);
    RunPlan {
        create: vec![
            NewElement::new(task.clone(), Spec::Task(Box::new(spec))),
            NewElement::new(executor.clone(), Spec::Executor(Box::default())),
        ],
        executor,
        edits: vec![
            Edit::Join {
                id: image.clone(),
                how: JoinHow::root(),
            },
            Edit::Join {
                id: task,
                how: JoinHow::Task,
            },
            Edit::Bind {
                id: None,
                how: BindHow::Plain,
            },
        ],
    }
}

/// The task and the executor of [`one_call`].
pub(super) fn ids(name: &str) -> (ElementId, ElementId) {
    (
        id(&format!("task://tasks/{name}")),
        id(&format!("executor://executors/{name}")),
    )
}
