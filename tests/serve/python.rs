//! The example client in Python, made from the protos.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Daemon, busybox};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// An environment with grpcio below `target/`, kept from run to run.
fn python(root: &Path) -> PathBuf {
    let venv = root.join("target/python-client");
    let python = venv.join("bin/python");
    let ready = venv.join("ready");
    if !ready.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "grpcio==1.85.1",
            "grpcio-tools==1.85.1",
            "googleapis-common-protos==1.76.0",
        ]));
        std::fs::write(&ready, "").unwrap();
    }
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_from_the_protos_runs_a_task() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = python(root);
    let out = tempfile::tempdir().unwrap();
    let protos = root.join("proto");
    let mut protoc = Command::new(&python);
    protoc.args(["-m", "grpc_tools.protoc", "-I"]).arg(&protos);
    for kind in ["--python_out", "--grpc_python_out"] {
        protoc.arg(format!("{kind}={}", out.path().display()));
    }
    for name in [
        "specs",
        "elements",
        "compositions",
        "tasks",
        "events",
        "node",
    ] {
        protoc.arg(protos.join(format!("portlayer/v1/{name}.proto")));
    }
    run(&mut protoc);

    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let said = run(Command::new(&python)
        .env("PYTHONPATH", out.path())
        .arg(root.join("docs/examples/python/client.py"))
        .arg(daemon.socket())
        .arg(image.as_str()));
    assert_eq!(
        said,
        "refused not_found task://tasks/python\nexited 0\nhello from python\n\
         event created\nevent joined\nevent bound\nevent unbound\n"
    );
    drop(client);
    daemon.end().await;
}
