//! By the command: a registry in the configuration, a password from the environment or standard input.

use std::io::Write;
use std::process::Stdio;

use super::image::Image;
use super::server::{Access, Server};
use crate::cli::{Node, Way, code, shown};

/// A daemon whose owner allows this registry and nothing else without TLS.
fn node(registry: &Server) -> Node {
    let config = format!(
        "[pull]\ninsecure = [{:?}]\nstall_seconds = 5\n",
        registry.host
    );
    Node::with(Way::Daemon, &config)
}

#[test]
fn an_image_is_pulled_and_run() {
    let (image, registry) = (Image::new(), Server::start(Access::Token));
    image.on(&registry);
    let node = node(&registry);
    let reference = format!("docker://{}/a:v1", registry.host);
    let create = [
        "image",
        "create",
        "pulled",
        "--pull",
        &reference,
        "--pull-user",
        "user",
    ];

    let mut child = node.command(
        &[
            &create[..],
            &["--pull-password-stdin", "--progress", "json"],
        ]
        .concat(),
    );
    child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"password\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let told = String::from_utf8(output.stderr).unwrap();
    let last = told
        .lines()
        .rfind(|line| line.contains("pulled_bytes"))
        .unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["pulled_bytes"], last["total_bytes"]);

    assert_eq!(
        node.ok(&["run", "pulled", "echo", "from the registry"]),
        "from the registry\n"
    );
    // A run of its own image, which goes with it.
    let mut run = node.command(&[
        "run",
        "--pull-user",
        "user",
        "--pull-password-env",
        "SECRET",
        &reference,
        "echo",
        "hello",
    ]);
    let output = run.env("SECRET", "password").output().unwrap();
    assert_eq!(output.stdout, b"hello\n", "{}", shown(&output));
    assert_eq!(
        node.ok(&["image", "ls", "-q"]),
        "image://images/busybox\nimage://images/pulled\n"
    );

    // The daemon remembers nobody: the next call without a password is refused.
    let refused = node.run(&["run", &reference, "true"]);
    assert_eq!(code(&refused), Some(125), "{}", shown(&refused));
    assert!(
        shown(&refused).contains("credentials"),
        "{}",
        shown(&refused)
    );
    node.ok(&["image", "rm", "pulled"]);
}

#[test]
fn a_registry_without_tls_that_is_not_configured_is_not_spoken_to() {
    let (image, registry) = (Image::new(), Server::start(Access::Open));
    image.on(&registry);
    let node = Node::with(Way::Daemon, "[pull]\nstall_seconds = 2\nretries = 0\n");
    let reference = format!("docker://{}/a:v1", registry.host);
    let refused = node.run(&["image", "create", "x", "--pull", &reference]);
    assert!(!refused.status.success());
    assert!(
        registry
            .requests()
            .iter()
            .all(|(path, _)| !path.starts_with("/v2"))
    );
    for (config, key) in [
        ("[pull]\ninsecure = ['a b']\n", "pull.insecure"),
        ("[pull]\nstall_seconds = 0\n", "pull.stall_seconds"),
        (
            "[pull.mirrors]\n'r.example' = ['http://x']\n",
            "pull.mirrors",
        ),
        ("[pull]\npassword = 'x'\n", "password"),
    ] {
        let file = node.directory.join("bad.toml");
        std::fs::write(&file, config).unwrap();
        let output = node.run(&["--config", file.to_str().unwrap(), "config", "dump"]);
        assert_eq!(code(&output), Some(2), "{config}");
        assert!(shown(&output).contains(key), "{config}: {}", shown(&output));
    }
}
