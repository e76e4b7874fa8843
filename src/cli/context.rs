//! What every command is given: the configuration, how to write, and the way to the port layer.

use portlayer_node::config::{Config, Loaded};

use super::failure::Failure;
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

    /// Output as these flags say.
    pub(crate) fn out(&self, args: OutputArgs) -> Out {
        Out::new(args, self.color)
    }
}

/// Wraps a rule of the command line about ids.
pub(crate) fn usage<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(Failure::usage)
}
