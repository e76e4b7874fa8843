//! What every command is given: the configuration, how to write, and the way to the port layer: a client of the daemon,
//! or of a node this process opens itself. Commands do not see which.

use std::path::Path;

use portlayer::error::ErrorKind;
use portlayer_client::Client;
use portlayer_node::config::{Config, Loaded, Way};
use tokio::sync::OnceCell;

use super::embedded::{self, Embedded};
use super::failure::{Exit, Failure, Outcome};
use super::output::{Out, OutputArgs, ProgressMode};
use super::parse::Names;

/// Everything a command may need that is not its own flags.
pub(crate) struct Context {
    loaded: Loaded,
    color: bool,
    /// How progress is shown.
    pub(crate) progress: ProgressMode,
    /// The daemon, once it was looked for; `None` in it = the node is opened here.
    daemon: OnceCell<Option<Client>>,
}

impl Context {
    pub(crate) fn new(loaded: Loaded, color: bool, progress: ProgressMode) -> Self {
        Self {
            loaded,
            color,
            progress,
            daemon: OnceCell::new(),
        }
    }

    /// The configuration with the origins of its values.
    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Names of elements in the locations of the node: the daemon's own, which need not be those of our configuration.
    pub(crate) async fn names(&self) -> Result<Names, Failure> {
        Ok(match self.daemon().await? {
            Some(client) => Names::of_daemon(&client.info(false).await?.locations),
            None => Names::of_config(self.config()),
        })
    }

    /// The daemon, connected to once; `None` when the node is to be opened in this process.
    pub(crate) async fn daemon(&self) -> Result<Option<&Client>, Failure> {
        let socket = &self.config().socket;
        let found = self.daemon.get_or_try_init(|| async {
            match self.loaded.way {
                Way::Embedded => Ok(None),
                Way::Daemon => connect(socket).await.map(Some),
                Way::DaemonIfThere => Ok(self.same_node(socket).await),
            }
        });
        Ok(found.await?.as_ref())
    }

    /// The daemon behind the socket, if it has our data directory.
    async fn same_node(&self, socket: &Path) -> Option<Client> {
        if !socket.exists() {
            return None;
        }
        let client = connect(socket).await.ok()?;
        let info = client.info(false).await.ok()?;
        (info.data_dir == self.config().data_dir).then_some(client)
    }

    /// Runs a command on the port layer. A node opened for it is closed again, however the command ends.
    pub(crate) async fn with_client<F>(&self, command: F) -> Outcome
    where
        F: AsyncFnOnce(&Client) -> Outcome,
    {
        if let Some(client) = self.daemon().await? {
            return command(client).await;
        }
        let here = Embedded::open(self.config()).await;
        let here = here.map_err(|failure| self.not_ours(failure))?;
        let outcome = command(here.client()).await;
        let closed = here.close().await;
        // What the command says goes first.
        let exit = outcome?;
        closed?;
        Ok(exit)
    }

    /// Ends a private engine; with `force` although something runs in it.
    pub(crate) async fn stop_engine(&self, force: bool) -> Outcome {
        let node = embedded::open_node(self.config()).await;
        let node = node.map_err(|failure| self.not_ours(failure))?;
        if !force && !embedded::is_idle(&node.port_layer).await? {
            node.close().await?;
            let running = anyhow::anyhow!("executors run in the engine");
            return Err(Failure::new(ErrorKind::FailedPrecondition, running)
                .hint("stop them first (`portlayer ps`) or use --force"));
        }
        node.halt().await?;
        Ok(Exit::OK)
    }

    /// Why a data directory cannot be opened here: when a daemon has it, that is what to say.
    pub(crate) fn not_ours(&self, failure: Failure) -> Failure {
        let socket = &self.config().socket;
        if !failure.is_in_use() || std::os::unix::net::UnixStream::connect(socket).is_err() {
            return failure;
        }
        failure.hint(format!(
            "the daemon at {} has it: leave out --embedded and --data-dir to speak to it, or end it first",
            socket.display()
        ))
    }

    /// Output as these flags say.
    pub(crate) fn out(&self, args: OutputArgs) -> Out {
        Out::new(args, self.color)
    }
}

/// Connects to the daemon. The failure says which socket was tried, why it cannot be used, and what else there is.
async fn connect(socket: &Path) -> Result<Client, Failure> {
    let error = match Client::connect(socket).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    let cause = anyhow::Error::new(error);
    let io = cause
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let why = io.map_or_else(|| cause.root_cause().to_string(), ToString::to_string);
    let denied = io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
    let (kind, hint) = if denied {
        let hint = "the socket's mode and group say who may speak to the daemon";
        (ErrorKind::PermissionDenied, hint)
    } else {
        let hint =
            "start one with `portlayer serve`, or open the node in this process with --embedded";
        (ErrorKind::Unavailable, hint)
    };
    let text = anyhow::anyhow!("no daemon answers at {}: {why}", socket.display());
    Err(Failure::new(kind, text).hint(hint))
}

/// Wraps a rule of the command line about ids.
pub(crate) fn usage<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(Failure::usage)
}
