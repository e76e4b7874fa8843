//! What every command is given: the configuration, how to write, and the way to the port layer.

use portlayer::PortLayer;
use portlayer::element::{Kind, ListQuery};
use portlayer::error::ErrorKind;
use portlayer::runtime::RuntimeInfo;
use portlayer_node::config::{Config, Loaded};

use super::failure::{Exit, Failure, Outcome, fail};
use super::filter;
use super::output::{Out, OutputArgs, ProgressMode};
use super::parse::Names;

/// Everything a command may need that is not its own flags.
pub(crate) struct Context {
    loaded: Loaded,
    color: bool,
    /// How progress is shown.
    pub(crate) progress: ProgressMode,
}

impl Context {
    pub(crate) fn new(loaded: Loaded, color: bool, progress: ProgressMode) -> Self {
        Self {
            loaded,
            color,
            progress,
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

    /// Names of elements in the configured locations.
    pub(crate) fn names(&self) -> Names<'_> {
        Names::new(self.config())
    }

    /// Opens the node, runs a command on it and closes it, however the command ends.
    pub(crate) async fn with_node<F>(&self, command: F) -> Outcome
    where
        F: AsyncFnOnce(&OpenNode) -> Outcome,
    {
        let node = self.open().await?;
        let outcome = command(&node).await;
        let closed = node.close().await;
        // What the command says goes first.
        let exit = outcome?;
        closed?;
        Ok(exit)
    }

    /// Opens the node. The audit log names the user who called.
    async fn open(&self) -> Result<OpenNode, Failure> {
        let node = portlayer_node::open(self.config()).await?;
        let actor = format!("uid {}", nix::unistd::Uid::current());
        Ok(OpenNode {
            layer: node.port_layer.with_actor(&actor),
            node,
        })
    }

    /// Ends a private engine; with `force` although something runs in it.
    pub(crate) async fn stop_engine(&self, force: bool) -> Outcome {
        let node = self.open().await?;
        if !force && !node.is_idle().await? {
            node.close().await?;
            return Err(Failure::new(
                ErrorKind::FailedPrecondition,
                anyhow::anyhow!("executors run in the engine"),
            )
            .hint("stop them first (`portlayer ps`) or use --force"));
        }
        drop(node.layer);
        node.node.halt().await?;
        Ok(Exit::OK)
    }

    /// Output as these flags say.
    pub(crate) fn out(&self, args: OutputArgs) -> Out {
        Out::new(args, self.color)
    }
}

/// The node, opened by this process.
pub(crate) struct OpenNode {
    layer: PortLayer,
    node: portlayer_node::Node,
}

impl OpenNode {
    /// Its port layer.
    pub(crate) fn layer(&self) -> &PortLayer {
        &self.layer
    }

    /// Versions and abilities of its engine.
    pub(crate) async fn runtime_info(&self) -> Result<RuntimeInfo, Failure> {
        self.node.info().await.map_err(fail)
    }

    /// Ends a private engine nothing runs in; one in which something runs is left for the next command.
    async fn close(self) -> Result<(), Failure> {
        let idle = self.is_idle().await?;
        let Self { layer, node } = self;
        drop(layer);
        if idle {
            node.halt().await?;
        } else {
            node.close().await?;
        }
        Ok(())
    }

    async fn is_idle(&self) -> Result<bool, Failure> {
        let query = ListQuery {
            filters: ["running", "paused"]
                .map(|state| filter::equals("state", state))
                .to_vec(),
            kind: Some(Kind::Executor),
            limit: 1,
            hidden: true,
            ..ListQuery::default()
        };
        let page = self.layer().list(query).await.map_err(fail)?;
        Ok(page.items.is_empty())
    }
}

/// Wraps a rule of the command line about ids.
pub(crate) fn usage<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(Failure::usage)
}
