//! The engine itself: start, stop, take over, clean.

use portlayer_runtime::{
    Containerd, Engine, EngineConfig, EngineError, connection::Connection, snapshot::Snapshots,
};

use crate::support::node::{Room, busybox};

/// Processes, mounts and cgroups that name this directory or its namespace.
fn traces(directory: &std::path::Path, namespace: &str) -> Vec<String> {
    let text = directory.to_str().unwrap();
    let mut found: Vec<String> = std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(text) {
            found.push(line);
        }
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let group = hierarchy.path().join("portlayer").join(namespace);
        if group.exists() {
            found.push(group.display().to_string());
        }
    }
    if directory.exists() {
        found.push(text.to_owned());
    }
    found
}

#[tokio::test]
async fn starts_and_leaves_nothing() {
    let room = Room::new();
    let engine = room.engine().await;
    let namespace = engine.places().namespace.clone();
    let version = engine
        .client()
        .version()
        .version(())
        .await
        .unwrap()
        .into_inner();
    assert!(!version.version.is_empty());
    engine.stop().await.unwrap();
    assert_eq!(traces(room.directory(), &namespace), Vec::<String>::new());
}

#[tokio::test]
async fn a_second_engine_on_the_directory_is_refused() {
    let room = Room::new();
    let engine = room.engine().await;
    let refused = Engine::start(EngineConfig::new(room.directory())).await;
    assert!(matches!(refused, Err(EngineError::InUse(_))), "{refused:?}");
    assert!(matches!(
        Engine::clean(room.directory()),
        Err(EngineError::InUse(_))
    ));
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn an_abandoned_engine_is_taken_over_or_cleaned() {
    let room = Room::new();
    let engine = room.engine().await;
    let namespace = engine.places().namespace.clone();
    drop(engine);
    let again = room.engine().await;
    assert_eq!(again.places().namespace, namespace);
    drop(again);
    Engine::clean(room.directory()).unwrap();
    assert_eq!(traces(room.directory(), &namespace), Vec::<String>::new());
    Engine::clean(room.directory()).unwrap();
}

#[tokio::test]
async fn a_halted_engine_keeps_its_data() {
    let room = Room::new();
    let engine = room.engine().await;
    let namespace = engine.places().namespace.clone();
    busybox(&engine.client()).await;
    engine.halt().await.unwrap();
    assert_eq!(
        traces(room.directory(), &namespace),
        [room.directory().to_str().unwrap()]
    );
    let engine = room.engine().await;
    let connection = Connection::new(engine.client(), "overlayfs");
    assert!(Snapshots(&connection).exists("busybox").await.unwrap());
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_with_a_long_name_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let long = parent.path().join("x".repeat(90));
    let refused = Engine::start(EngineConfig::new(&long)).await;
    assert!(
        matches!(refused, Err(EngineError::PathTooLong(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(parent.path());
    config.containerd = "no-such-containerd".into();
    let refused = Engine::start(config).await;
    assert!(
        matches!(&refused, Err(EngineError::Program { program, .. }) if program == "no-such-containerd"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_ended_again() {
    let room = Room::new();
    let mut config = EngineConfig::new(room.directory());
    config.runc = "/nonexistent/runc".into();
    let engine = Engine::start(config).await.unwrap();
    let namespace = engine.places().namespace.clone();
    assert!(Containerd::open(engine).await.is_err());
    assert_eq!(
        traces(room.directory(), &namespace),
        [room.directory().to_str().unwrap()]
    );
    // One that was there already is not ours to end.
    let engine = room.engine().await;
    drop(engine);
    let engine = room.engine().await;
    engine.give_up().await.unwrap();
    assert_ne!(
        traces(room.directory(), &namespace),
        [room.directory().to_str().unwrap()]
    );
    room.engine().await.stop().await.unwrap();
}
