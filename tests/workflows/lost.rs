//! containerd and shims are killed under a node that goes on: what runs is found again, what ended is told right, what
//! nobody can know is lost, and nothing is left.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portlayer::EngineStatus;
use portlayer::compose::{BindHow, CommitError, JoinHow};
use portlayer::element::{ElementId, State};
use portlayer::task::ExitReason;
use portlayer_node::Node;
use portlayer_node::config::Config;

use super::composed::{run, stop};
use super::example::stage;
use super::story::{Place, close};

/// Writes one number after the other; the last file tells that it got so far.
const COUNT: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
/// Ends with its code as soon as somebody makes a file.
fn ends(code: i32) -> String {
    format!("until test -e /data/go; do sleep 0.05; done; echo going; exit {code}")
}

/// A node whose containerd starts only while there is no file `hold`.
struct Gated {
    place: Place,
    node: Node,
    hold: PathBuf,
}

impl Gated {
    async fn open() -> Self {
        let place = Place::new();
        let parent = place.data().parent().unwrap().to_owned();
        let (gate, hold) = (parent.join("gate"), parent.join("hold"));
        let script = format!(
            "#!/bin/sh\nwhile test -e {}; do sleep 0.02; done\nexec containerd \"$@\"\n",
            hold.display()
        );
        std::fs::write(&gate, script).unwrap();
        std::fs::set_permissions(&gate, PermissionsExt::from_mode(0o755)).unwrap();
        let mut config = Config::new(place.data());
        config.engine.containerd = gate.display().to_string();
        let node = portlayer_node::open(&config).await.unwrap();
        Self { place, node, hold }
    }

    /// Kills containerd and lets none start until [`Gated::release`].
    async fn kill_and_hold(&self) {
        std::fs::write(&self.hold, "").unwrap();
        self.kill_containerd().await;
    }

    async fn kill_containerd(&self) {
        let before = self.status().losses;
        let config = self.place.data().join("containerd.toml");
        kill_all("--config", &config);
        let mut status = self.node.port_layer.engine_status();
        status
            .wait_for(|status| status.losses > before)
            .await
            .unwrap();
    }

    fn release(&self) {
        std::fs::remove_file(&self.hold).unwrap();
    }

    fn kill_shims(&self) -> usize {
        kill_all("-address", &self.node.places().socket)
    }

    fn status(&self) -> EngineStatus {
        self.node.port_layer.engine_status().borrow().clone()
    }

    /// Waits until everything is found again and swept.
    async fn reconciled(&self) -> EngineStatus {
        let mut status = self.node.port_layer.engine_status();
        let done = status.wait_for(|status| status.reconciled == status.losses);
        done.await.unwrap().clone()
    }

    /// The directory of `volume://volumes/data` on the host.
    fn go(&self, data: &ElementId) {
        let live = self.place.data().join("volumes/volumes/live");
        std::fs::write(live.join(data.digest_hex()).join("go"), "").unwrap();
    }
}

/// SIGKILL to every process with this argument.
fn kill_all(flag: &str, value: &Path) -> usize {
    let mut killed = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        let wanted = words.windows(2).any(|pair| {
            pair[0] == flag.as_bytes() && pair[1] == value.as_os_str().as_encoded_bytes()
        });
        let pid = process.file_name().to_string_lossy().parse::<i32>();
        if let (true, Ok(pid)) = (wanted, pid) {
            killed += usize::from(kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok());
        }
    }
    killed
}

/// The numbers from 0, each once, in order, up to some.
fn assert_gapless(text: &str) {
    let wanted: String = (0..)
        .take(text.lines().count())
        .map(|n| format!("{n}\n"))
        .collect();
    assert_eq!(text, wanted);
}

/// Composes an image, a volume at `/data` and tasks, and commits.
async fn run_with(
    node: &Node,
    executor: &ElementId,
    image: &ElementId,
    data: &ElementId,
    tasks: &[&ElementId],
) {
    let layer = &node.port_layer;
    let mut handle = layer.compose(executor).await.unwrap();
    handle = layer.join(handle, image, JoinHow::root()).await.unwrap();
    handle = layer
        .join(handle, data, JoinHow::volume("/data"))
        .await
        .unwrap();
    for task in tasks {
        handle = layer.join(handle, task, JoinHow::Task).await.unwrap();
    }
    let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
    layer.commit(handle).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_outlives_containerd_and_what_ends_meanwhile_is_told_right() {
    let gated = Gated::open().await;
    let node = &gated.node;
    let layer = &node.port_layer;
    let image = stage::busybox(node).await.unwrap();
    let data = super::live::volume(node, "volume://volumes/data").await;
    let on = stage::executor(node, "on").await.unwrap();
    let count = stage::shell(node, "count", COUNT).await.unwrap();
    run(node, &on, &image, &[&count]).await;
    // A first process, whose end init tells, and a further one, whose end only the shim knows.
    let two = stage::executor(node, "two").await.unwrap();
    let first = stage::shell(node, "first", &ends(7)).await.unwrap();
    let further = stage::shell(node, "further", &ends(5)).await.unwrap();
    run_with(node, &two, &image, &data, &[&first, &further]).await;
    let refused = stage::executor(node, "refused").await.unwrap();
    stage::until_it_says(node, &on, &count, "3").await.unwrap();

    gated.kill_and_hold().await;
    assert!(!gated.status().is_attached());
    gated.go(&data);
    // A commit that cannot be: it fails when its undo is done, and leaves nothing.
    let commit = {
        let (layer, refused, image, count) =
            (layer.clone(), refused.clone(), image.clone(), count.clone());
        tokio::spawn(async move {
            let handle = layer.compose(&refused).await.unwrap();
            let handle = layer.join(handle, &image, JoinHow::root()).await.unwrap();
            let handle = layer.join(handle, &count, JoinHow::Task).await.unwrap();
            let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
            layer.commit(handle).await
        })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    gated.release();
    let commit = commit.await.unwrap();
    assert!(
        matches!(commit, Err(CommitError::Step { .. })),
        "{commit:?}"
    );
    let status = gated.reconciled().await;
    assert!(status.is_attached());
    let last = status.last.unwrap();
    assert_eq!((last.unknown, last.unanswered), (0, 0), "{last:?}");
    for (task, code) in [(&first, 7), (&further, 5)] {
        let exit = layer.wait(&two, task, None).await.unwrap();
        assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(code)));
        assert_eq!(stage::output(node, &two, task).await.unwrap(), "going\n");
    }
    assert_eq!(layer.read(&refused).await.unwrap().state, State::Created);
    // Output goes on where it was, and everything works as before.
    let so_far = stage::output(node, &on, &count)
        .await
        .unwrap()
        .lines()
        .count();
    stage::until_it_says(node, &on, &count, &format!("\n{}\n", so_far + 3))
        .await
        .unwrap();
    run(node, &refused, &image, &[&count]).await;
    for executor in [&on, &refused] {
        stop(node, executor).await;
        let exit = layer.wait(executor, &count, None).await.unwrap();
        assert_eq!(exit.reason, ExitReason::Cancelled);
        assert_gapless(&stage::output(node, executor, &count).await.unwrap());
    }
    close(gated.node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_killed_with_its_shim_does_not_look_as_if_it_ended() {
    let gated = Gated::open().await;
    let node = &gated.node;
    let layer = &node.port_layer;
    let image = stage::busybox(node).await.unwrap();
    let count = stage::shell(node, "count", COUNT).await.unwrap();
    let other = stage::shell(node, "other", COUNT).await.unwrap();
    let executor = stage::executor(node, "x").await.unwrap();
    for held in [false, true] {
        match layer.read(&executor).await.unwrap().state {
            State::Created => drop(run(node, &executor, &image, &[&count, &other]).await),
            _ => {
                let handle = layer.compose(&executor).await.unwrap();
                let handle = layer.bind(handle, None, BindHow::Plain).await.unwrap();
                layer.commit(handle).await.unwrap();
            }
        }
        if held {
            gated.kill_and_hold().await;
        }
        assert_eq!(gated.kill_shims(), 1);
        if held {
            // Without containerd nobody takes the container along: it goes when that is back.
            gated.release();
            gated.reconciled().await;
        }
        for task in [&count, &other] {
            let exit = layer.wait(&executor, task, None).await.unwrap();
            let honest = match exit.reason {
                ExitReason::Lost => exit.code.is_none() && exit.signal.is_none(),
                // Its output has no reader any more.
                ExitReason::Signaled => matches!(exit.signal, Some(9 | 13)),
                _ => false,
            };
            assert!(honest, "{exit:?}");
        }
        layer.settle().await;
        assert_eq!(layer.read(&executor).await.unwrap().state, State::Stopped);
        super::story::assert_clean(node).await;
    }
    close(gated.node).await;
}
