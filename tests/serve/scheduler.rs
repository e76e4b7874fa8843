//! The scheduler of the README, as a process that is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portlayer::element::{NewElement, Spec};
use portlayer_client::Client;

use super::daemon::{Daemon, busybox, ids};

#[path = "../../docs/examples/scheduler.rs"]
mod program;

/// Set for the process that is the scheduler.
const JOURNAL: &str = "JOURNAL";

/// The program itself, in a process of its own: not a test, but what the test below starts.
#[test]
#[ignore = "started by the test of the scheduler"]
fn as_a_process() {
    if std::env::var_os(JOURNAL).is_some() {
        program::main().unwrap();
    }
}

struct Scheduler(Child);

impl Scheduler {
    fn start(daemon: &Daemon, journal: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["serve::scheduler::as_a_process", "--exact", "--ignored"])
            .env("PORTLAYER_SOCKET", daemon.socket())
            .env(JOURNAL, journal)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its task ended, and it wrote that down: it writes nothing more.
fn is_over(lines: &[String]) -> bool {
    let end = " unbound task://tasks/job";
    lines.iter().any(|line| line.ends_with(end))
}

fn lines_of(journal: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What it has written, once that is so much or all.
async fn written(journal: &Path, lines: usize) -> Vec<String> {
    for _ in 0..1200 {
        let found = lines_of(journal);
        if found.len() >= lines || is_over(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the scheduler writes nothing");
}

/// What it must have written: every event about tasks up to the end of its own.
async fn expected(client: &Client) -> Vec<String> {
    let events = client.events(1, 10_000).await.unwrap();
    let tasks = events
        .iter()
        .filter(|event| event.id.as_str().starts_with("task://"));
    let mut lines = Vec::new();
    for event in tasks {
        let (what, id) = (event.change.as_str(), event.id.as_str());
        lines.push(format!("{} {what} {id}", event.sequence));
        if (what, id) == ("unbound", "task://tasks/job") {
            return lines;
        }
    }
    panic!("the task has not ended: {lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_killed_misses_nothing() {
    let mut daemon = Daemon::start();
    let client = daemon.client().await;
    busybox(&client).await;
    let journal = daemon.directory.join("journal");
    let others = tokio::spawn({
        let client = client.clone();
        async move {
            for n in 0..150 {
                let (other, _) = ids(&format!("other{n}"));
                let new = NewElement::new(other, Spec::Task(Box::default()));
                client.create(new).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    // In mid stream, whatever it is doing there; on a slow machine its task may end before it was killed so often.
    for lines in [1, 20, 40, 60] {
        if !is_over(&lines_of(&journal)) {
            let scheduler = Scheduler::start(&daemon, &journal);
            written(&journal, lines).await;
            scheduler.kill();
        }
    }
    others.await.unwrap();
    let (task, executor) = ids("job");
    if !is_over(&lines_of(&journal)) {
        let mut last = Scheduler::start(&daemon, &journal);
        assert!(last.0.wait().unwrap().success());
    }
    let exit = client.wait(&executor, &task, None).await.unwrap();
    assert_eq!(exit.code, Some(7));
    assert_eq!(lines_of(&journal), expected(&client).await);
    daemon.end().await;
}
