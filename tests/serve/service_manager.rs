//! What a service manager relies on: READY, a socket it keeps, a drain that ends.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use portlayer::task::ExitReason;
use portlayer_client::Client;

use super::daemon::{Daemon, busybox, ids, one_call, shell};

/// Waits until no process has this word in its command line.
async fn none_runs(word: &str) {
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines =
            processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| String::from_utf8_lossy(&line).contains(word))
    };
    while runs() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_told_when_the_node_is_reconciled() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    let image = busybox(&client).await;
    let (_, executor) = ids("short");
    // Nobody else's command line has it.
    let word = format!("word-{}", daemon.directory.display()).replace('/', "-");
    let script = format!("sleep 1; : {word}; exit 7");
    client
        .run(one_call("short", &image, shell(&script)))
        .await
        .unwrap();
    drop(client);
    daemon.crash();
    none_runs(&word).await;

    let told = daemon.directory.join("notify");
    let socket = UnixDatagram::bind(&told).unwrap();
    let mut command = daemon.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &told);
    daemon.spawn_as(command);
    let socket = tokio::task::spawn_blocking(move || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        assert!(text.lines().any(|line| line == "READY=1"), "{text}");
        socket
    });
    let socket = socket.await.unwrap();
    // It takes calls, and knows what happened while nobody looked.
    let client = Client::connect(daemon.socket()).await.unwrap();
    let exits = client.exits(&executor, None).await.unwrap();
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(
        (exits[0].reason, exits[0].code),
        (ExitReason::Exited, Some(7))
    );
    drop(client);
    daemon.end().await;
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).unwrap();
    let text = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(text.lines().any(|line| line == "STOPPING=1"), "{text}");
}

/// The daemon with this socket, as systemd passes it: descriptor 3, and whom it is for.
fn activated(daemon: &Daemon, listener: &UnixListener) -> Command {
    let serve = daemon.command(&["serve"]);
    let mut command = Command::new("/bin/sh");
    let passes = "exec 3<&0 </dev/null; LISTEN_FDS=1; LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";
    command
        .args(["-c", passes, "sh"])
        .arg(serve.get_program())
        .args(serve.get_args())
        .env_clear()
        .envs(
            serve
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_is_served_and_left() {
    let mut daemon = Daemon::prepare("");
    let path = daemon.directory.join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    daemon.spawn_as(activated(&daemon, &listener));
    // Nobody is refused while nobody serves yet: the call waits in the socket.
    let client = Client::connect(&path).await.unwrap();
    client.info(false).await.unwrap();
    drop(client);
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(path.exists(), "it is not the daemon's");
    assert!(!daemon.socket().exists(), "it served its own too");

    // A call between two daemons waits for the second.
    let call = tokio::spawn({
        let path = path.clone();
        async move { Client::connect(&path).await?.info(false).await }
    });
    daemon.spawn_as(activated(&daemon, &listener));
    call.await.unwrap().unwrap();
    assert!(daemon.terminate().success(), "{}", daemon.log());
}
