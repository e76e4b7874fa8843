//! A private containerd per test.

use std::path::{Path, PathBuf};

use portlayer_runtime::{Engine, EngineConfig};

/// One engine in a directory of its own. [`Node::end`] removes everything; a test that fails before leaves it to `Drop`.
pub(crate) struct Node {
    engine: Option<Engine>,
    directory: PathBuf,
}

impl Node {
    /// Starts containerd. Needs root.
    pub(crate) async fn start() -> Node {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        // Short, because sockets are in it; below /var/tmp, because overlay needs a real file system.
        let directory = tempfile::Builder::new()
            .prefix("pl-")
            .tempdir_in("/var/tmp")
            .unwrap()
            .keep();
        let engine = Engine::start(EngineConfig::new(&directory)).await.unwrap();
        Node {
            engine: Some(engine),
            directory,
        }
    }

    /// The engine.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("only end takes it")
    }

    /// The engine's directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lets go of the engine as a crash would: containerd and tasks stay.
    pub(crate) fn abandon(mut self) -> PathBuf {
        self.engine = None;
        std::mem::take(&mut self.directory)
    }

    /// Stops the engine and removes everything.
    pub(crate) async fn end(mut self) {
        self.engine
            .take()
            .expect("only end takes it")
            .stop()
            .await
            .unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.engine.take().is_some() {
            let _ = Engine::clean(&self.directory);
        }
    }
}
