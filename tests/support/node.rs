//! A private containerd per test.

use std::{
    collections::HashMap,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use portlayer_runtime::{
    Client, Containerd, Engine, EngineConfig,
    connection::Connection,
    mount,
    snapshot::{GC_ROOT, Lease, Made, Snapshots},
};

/// A directory for an engine. Removes what is left when a test fails before its end: declare it before whatever uses the engine, so
/// that it is dropped after.
pub(crate) struct Room(PathBuf);

impl Room {
    /// A new one. Needs root.
    pub(crate) fn new() -> Room {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts containerd and needs root"
        );
        // Short, because sockets are in it; below /var/tmp, because overlay needs a real file system.
        Room(
            tempfile::Builder::new()
                .prefix("pl-")
                .tempdir_in("/var/tmp")
                .unwrap()
                .keep(),
        )
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// Starts an engine in it, or takes over the one that runs.
    pub(crate) async fn engine(&self) -> Engine {
        Engine::start(EngineConfig::new(&self.0)).await.unwrap()
    }

    /// A runtime in it.
    pub(crate) async fn runtime(&self) -> Arc<Containerd> {
        Arc::new(Containerd::open(self.engine().await).await.unwrap())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        super::left::remove(self.0.clone(), self.0.clone(), ());
    }
}

/// A room with a running engine, for tests of what is below the runtime.
pub(crate) struct Node {
    // Dropped before the room, which then can clean it.
    engine: Engine,
    room: Room,
}

impl Node {
    /// Starts containerd. Needs root.
    pub(crate) async fn start() -> Node {
        let room = Room::new();
        Node {
            engine: room.engine().await,
            room,
        }
    }

    /// The engine.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The engine's directory.
    pub(crate) fn directory(&self) -> &Path {
        self.room.directory()
    }

    /// Stops the engine and removes everything.
    pub(crate) async fn end(self) {
        self.engine.stop().await.unwrap();
    }
}

/// Makes a committed snapshot named `busybox` with the static busybox of the host, its applets, and a passwd file.
pub(crate) async fn busybox(client: &Client) {
    let connection = Connection::new(client.clone(), "overlayfs");
    let snapshots = Snapshots(&connection);
    let labels = HashMap::from([(GC_ROOT.to_owned(), "test".to_owned())]);
    let lease = Lease::create(&connection, "busybox", HashMap::new())
        .await
        .unwrap();
    let Made::New(mounts) = snapshots
        .prepare(Some(lease.id()), "busybox-new", "", labels.clone())
        .await
        .unwrap()
    else {
        panic!("a new engine has no snapshots");
    };
    let root = tempfile::tempdir().unwrap();
    mount::mount_all(&mounts, root.path()).unwrap();
    for directory in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox"))
        .expect("busybox-static is installed");
    std::fs::set_permissions(
        root.path().join("bin/busybox"),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for applet in [
        "sh", "cat", "echo", "env", "false", "id", "kill", "ls", "ps", "sleep", "tail", "touch",
        "true", "yes", "head", "seq",
    ] {
        symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n",
    )
    .unwrap();
    std::fs::write(
        root.path().join("etc/group"),
        "root:x:0:\nweb:x:34:\nlogs:x:40:web\n",
    )
    .unwrap();
    mount::unmount(root.path()).unwrap();
    assert!(
        snapshots
            .commit(lease.id(), "busybox", "busybox-new", labels)
            .await
            .unwrap()
    );
    lease.delete().await.unwrap();
}
