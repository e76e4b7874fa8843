//! Cancelling, reasons and log lines on the fake engine.

use std::collections::BTreeMap;
use std::time::Duration;

use portlayer::element::ElementId;
use tokio_util::sync::CancellationToken;

use crate::plan::{
    Action, EgressRule, EmitProgress, Limits, Logs, Network, Plan, Protocol, Root, Run,
};
use crate::rehearsal::{IMAGE, Rehearsal};
use crate::run::{Feature, Outcome, RunNames};

struct Rig(Rehearsal);

impl Rig {
    async fn new(grace: Duration) -> Rig {
        Rig(Rehearsal::new(grace).await)
    }

    async fn perform(&self, action: Action, cancel: &CancellationToken) -> Outcome {
        let names = RunNames {
            executor: "x".to_owned(),
            messages: None,
        };
        let outcome = self.0.runner.run(&plan(action), &names, cancel).await;
        // Whatever happened, nothing of the run stays.
        assert!(self.0.left().await.is_empty());
        self.0.layer.settle().await;
        outcome
    }

    async fn reason(&self, action: Action) -> String {
        let outcome = self.perform(action, &CancellationToken::new()).await;
        outcome
            .result
            .map_or_else(|error| error.to_string(), |()| "OK".to_owned())
    }

    fn lines(&self) -> Vec<String> {
        self.0.lines()
    }
}

fn plan(action: Action) -> Plan {
    Plan {
        root: Root::Image(IMAGE.parse::<ElementId>().unwrap()),
        mounts: Vec::new(),
        env: Vec::new(),
        forced_env: Vec::new(),
        limits: Limits::default(),
        privileged: true,
        more_capabilities: Vec::new(),
        set_id_programs: false,
        compat_programs: false,
        network: Network::default(),
        action,
        outputs: Vec::new(),
        logs: Logs {
            stream: Some("guid".to_owned()),
            source: "VIZ".to_owned(),
            bytes_per_second: None,
            tags: BTreeMap::new(),
        },
        placement_tags: Vec::new(),
        identity: None,
        hostname: None,
    }
}

fn run(script: &str) -> Action {
    run_as(script, "VIZ")
}

fn run_as(script: &str, source: &str) -> Action {
    Action::Run(Run {
        argv: script.split(' ').map(str::to_owned).collect(),
        dir: None,
        env: Vec::new(),
        user: "me".to_owned(),
        open_files: None,
        source: source.to_owned(),
        silent: false,
    })
}

fn timeout(ms: u64, action: Action) -> Action {
    Action::Timeout {
        limit: Duration::from_millis(ms),
        action: Box::new(action),
    }
}

fn progress(action: Action) -> Action {
    Action::EmitProgress(EmitProgress {
        start: "begin".to_owned(),
        success: "well done".to_owned(),
        failure_prefix: "went wrong".to_owned(),
        source: "P".to_owned(),
        action: Box::new(action),
    })
}

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_run_and_its_lines() {
    let rig = Rig::new(GRACE).await;
    assert_eq!(rig.reason(run("echo hello err oops")).await, "OK");
    let mut lines = rig.lines();
    lines[..2].sort();
    assert_eq!(lines, ["VIZ!: oops", "VIZ: hello", "VIZ: Exit status 0"]);
    assert_eq!(
        rig.reason(run_as("exit 7", "A")).await,
        "A: Exited with status 7"
    );
    assert_eq!(rig.lines().last().unwrap(), "A: Exit status 7");
}

#[tokio::test]
async fn a_missing_program_is_told() {
    let rig = Rig::new(GRACE).await;
    let reason = rig.reason(run("no-such-program")).await;
    assert!(
        reason.contains("execut") || reason.contains("not found"),
        "{reason}"
    );
    assert!(
        rig.lines()[0].starts_with("VIZ: failed-creating-process: "),
        "{:?}",
        rig.lines()
    );
    let mut unknown = run("exit 0");
    if let Action::Run(run) = &mut unknown {
        run.user = "nobody".to_owned();
    }
    assert_eq!(
        rig.reason(unknown).await,
        "unable to find user nobody: no matching entries in passwd file"
    );
}

#[tokio::test]
async fn out_of_memory_is_a_suffix() {
    let rig = Rig::new(GRACE).await;
    assert_eq!(
        rig.reason(run("oom")).await,
        "VIZ: Exited with status 137 (out of memory)"
    );
    assert_eq!(rig.lines(), ["VIZ: Exit status 137 (out of memory)"]);
}

#[tokio::test]
async fn a_timeout_terminates_and_names_its_limit() {
    let rig = Rig::new(GRACE).await;
    assert_eq!(
        rig.reason(timeout(50, run("hang"))).await,
        "exceeded 50ms timeout"
    );
    assert_eq!(rig.lines(), ["VIZ: Exit status 143"]);
    assert_eq!(
        rig.reason(timeout(60_000, run("exit 3"))).await,
        "VIZ: Exited with status 3"
    );
    // The inner one is displayable: its text is kept.
    let nested = timeout(100, Action::Serial(vec![timeout(10_000, run("hang"))]));
    assert_eq!(rig.reason(nested).await, "exceeded 100ms timeout");
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed_after_the_grace() {
    let rig = Rig::new(Duration::from_millis(300)).await;
    assert_eq!(
        rig.reason(timeout(50, run("trap 15 hang"))).await,
        "exceeded 50ms timeout"
    );
    assert_eq!(
        rig.lines(),
        ["VIZ: Exit status 137 (exceeded 300ms graceful shutdown interval)"]
    );
}

#[tokio::test]
async fn serial_stops_at_the_first_failure() {
    let rig = Rig::new(GRACE).await;
    let actions = Action::Serial(vec![run("echo one"), run("exit 2"), run("echo three")]);
    assert_eq!(rig.reason(actions).await, "VIZ: Exited with status 2");
    assert_eq!(
        rig.lines(),
        ["VIZ: one", "VIZ: Exit status 0", "VIZ: Exit status 2"]
    );
}

#[tokio::test]
async fn parallel_reasons_are_in_the_order_of_declaration() {
    let rig = Rig::new(GRACE).await;
    let actions = Action::Parallel(vec![
        run("sleep 150 exit 1"),
        run_as("exit 2", "TWO"),
        run("exit 0"),
    ]);
    assert_eq!(
        rig.reason(actions).await,
        "VIZ: Exited with status 1; TWO: Exited with status 2"
    );
}

#[tokio::test]
async fn a_cancelled_parallel_is_no_success() {
    let rig = Rig::new(GRACE).await;
    let cancel = CancellationToken::new();
    let action = Action::Parallel(vec![run("hang"), run("hang")]);
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        later.cancel();
    });
    let outcome = rig.perform(action, &cancel).await;
    assert_eq!(outcome.result.unwrap_err().to_string(), "cancelled");
}

#[tokio::test]
async fn codependent_ends_with_its_first() {
    let rig = Rig::new(GRACE).await;
    let actions = Action::Codependent(vec![run("hang"), run("sleep 50 exit 0")]);
    assert_eq!(rig.reason(actions).await, "Codependent step exited");
    let actions = Action::Codependent(vec![run("hang"), run_as("sleep 50 exit 4", "B")]);
    assert_eq!(rig.reason(actions).await, "B: Exited with status 4");
}

#[tokio::test]
async fn try_swallows_failures_but_not_cancels() {
    let rig = Rig::new(GRACE).await;
    let actions = Action::Serial(vec![Action::Try(Box::new(run("exit 1"))), run("echo on")]);
    assert_eq!(rig.reason(actions).await, "OK");
    let actions = timeout(
        50,
        Action::Serial(vec![Action::Try(Box::new(run("hang"))), run("echo never")]),
    );
    assert_eq!(rig.reason(actions).await, "exceeded 50ms timeout");
    assert!(!rig.lines().contains(&"VIZ: never".to_owned()));
}

#[tokio::test]
async fn progress_says_how_it_went() {
    let rig = Rig::new(GRACE).await;
    assert_eq!(rig.reason(progress(run("exit 0"))).await, "OK");
    assert_eq!(
        rig.reason(progress(run("exit 5"))).await,
        "VIZ: Exited with status 5"
    );
    assert_eq!(
        rig.lines(),
        [
            "P: begin",
            "VIZ: Exit status 0",
            "P: well done",
            "P: begin",
            "VIZ: Exit status 5",
            "P!: went wrong: VIZ: Exited with status 5"
        ]
    );
}

#[tokio::test]
async fn what_the_node_cannot_do_is_refused_and_not_left_out() {
    let rig = Rig::new(GRACE).await;
    let names = RunNames {
        executor: "x".to_owned(),
        messages: None,
    };
    let mut connected = plan(run("exit 0"));
    connected.network.egress.push(EgressRule {
        protocol: Protocol::All,
        destinations: Vec::new(),
        log: false,
    });
    let outcome = rig
        .0
        .runner
        .run(&connected, &names, &CancellationToken::new())
        .await;
    let error = outcome.result.unwrap_err();
    assert_eq!(
        error,
        crate::run::RunError::Unsupported {
            feature: Feature::Egress
        }
    );
    assert!(
        rig.0
            .engine
            .journal()
            .iter()
            .all(|call| !call.starts_with("create_container"))
    );
}
