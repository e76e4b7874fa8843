//! Every domain type goes through its message and back unchanged.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use portlayer::compose::{
    BindHow, Change as PlanChange, CommitError, ComposeError, Composition, Interrupt, Interrupted,
    JoinHow, Joined, Plan, Role, Run, RunId, RunState, Step, StepError, TaskBind,
};
use portlayer::element::{
    Body, Checksum, Descriptor, ElementId, ExecutorBody, ImageBody, ImageSpec, Keys, Kind,
    ListQuery, LogBody, NetworkBody, NewElement, Page, Patch, Projection, Spec, State, TaskBody,
    VolumeBody, VolumeSpec,
};
use portlayer::error::{CreateError, DeleteError, ErrorKind, LocationError, UpdateError};
use portlayer::event::{Change, Event};
use portlayer::ledger::{AuditRow, BrokenChain, Dangling, Outcome, Report, Verb};
use portlayer::network::{
    EgressRule, Icmp, NetworkLease, NetworkUse, PortMapping, Protocol, Published, Transport,
};
use portlayer::runtime::{
    ContainerStats, Finding, FindingClass, HostIsolation, LogChunk, LogProgress, LogQuery,
    LogStreams, RuntimeError, RuntimeErrorKind, RuntimeInfo, SignalScope,
};
use portlayer::store::{Access, Policy, Progress};
use portlayer::task::{
    ExecutorSpec, ExitReason, ExitRecord, ImageDefaults, Interaction, Isolation, Limits, LogChoice,
    RestartPolicy, Rlimit, Secret, StopSpec, TaskSpec,
};
use portlayer::time::Timestamp;
use portlayer::{AuditReport, Audited};

use super::*;
use crate::compose::{Committed, Edit, ElementOutcome};
use crate::node::{Diagnostics, LocationInfo, NodeInfo, Swept};

fn id(text: &str) -> ElementId {
    text.parse().unwrap()
}

fn same<T: Wire + Clone + PartialEq + Debug>(value: T) {
    assert_eq!(T::from_wire(value.clone().into_wire()).unwrap(), value);
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        argv: vec!["/bin/x".into(), "".into()],
        env: vec![("A".into(), "1".into()), ("A".into(), "2".into())],
        secrets: vec![Secret {
            name: "S".into(),
            value: "hidden".into(),
        }],
        cwd: Some("/w".into()),
        user: Some("web:logs".into()),
        extra_gids: vec![7, 9],
        terminal: true,
        interaction: Interaction { stdin: true },
        stdout: LogChoice {
            sink: Some(id("log://node/file")),
            required: true,
            discard: false,
        },
        stderr: LogChoice {
            sink: None,
            required: false,
            discard: true,
        },
        rlimits: vec![Rlimit {
            name: "nofile".into(),
            soft: 1,
            hard: u64::MAX,
        }],
        deadline_ms: Some(5),
        stop: StopSpec {
            signal: Some(2),
            grace_ms: 0,
        },
        restart: RestartPolicy::OnFailure {
            max: 3,
            backoff_ms: 4,
        },
    }
}

fn limits() -> Limits {
    Limits {
        memory_bytes: Some(1),
        memory_swap_bytes: Some(2),
        cpu_shares: Some(3),
        cpu_quota_us: Some(-4),
        pids: Some(5),
        disk_bytes: Some(6),
        disk_inodes: Some(7),
    }
}

fn bind() -> TaskBind {
    TaskBind {
        cwd: Some("/c".into()),
        user: Some("u".into()),
        deadline_ms: Some(1),
        restart: Some(RestartPolicy::Always { backoff_ms: 9 }),
        stop: Some(StopSpec::default()),
        stdout: Some(LogChoice::default()),
        stderr: None,
    }
}

fn exit() -> ExitRecord {
    ExitRecord {
        executor: id("executor://e/x"),
        task: id("task://t/x"),
        run: 2,
        reason: ExitReason::Oom,
        code: None,
        signal: Some(9),
        cpu_ns: Some(1),
        memory_peak_bytes: Some(2),
        started: Timestamp::from_nanos(-1),
        exited: Timestamp::from_nanos(1_700_000_000_123_456_789),
        reconciled: true,
        message: Some("m".into()),
    }
}

fn volume_role() -> JoinHow {
    JoinHow::Volume {
        target: "/v".into(),
        access: Access::ReadOnly,
        sub_path: Some("s".into()),
        copy_up: true,
        tmpfs_bytes: Some(0),
    }
}

fn network_use() -> NetworkUse {
    let rule = EgressRule {
        protocol: Protocol::Icmp,
        destinations: vec!["192.0.2.0/24".into()],
        ports: vec!["80-90".into()],
        icmp: Some(Icmp {
            kind: Some(8),
            code: Some(0),
        }),
        log: true,
    };
    let mapping = PortMapping {
        port: 80,
        protocol: Transport::Udp,
        host_port: Some(8080),
        host_address: Some("192.0.2.1".parse().unwrap()),
    };
    NetworkUse {
        egress: Some(vec![rule, EgressRule::default()]),
        ports: vec![mapping],
        dns: vec!["192.0.2.53".parse().unwrap()],
    }
}

fn lease() -> NetworkLease {
    NetworkLease {
        network: id("network://node/lan"),
        number: 2,
        v4: Some([10, 0, 0, 2].into()),
        v6: Some("fd00::2".parse().unwrap()),
        ports: vec![Published {
            protocol: Transport::Tcp,
            port: 80,
            host_port: 40_000,
            host_address: Some("2001:db8::1".parse().unwrap()),
        }],
    }
}

fn composition() -> Composition {
    let joined = |role| Joined {
        role,
        bound: true,
        revision: 3,
        changed: 4,
    };
    let task = Role::Task {
        spec: Box::new(task_spec()),
        checksum: Some(Checksum::of(b"x")),
        owner: Some(id("image://i/x")),
        bind: bind(),
    };
    Composition {
        joined: BTreeMap::from([
            (
                id("image://i/x"),
                joined(Role::Part(JoinHow::read_only_root())),
            ),
            (id("volume://v/x"), joined(Role::Part(volume_role()))),
            (
                id("network://node/host"),
                joined(Role::Part(JoinHow::Network(network_use()))),
            ),
            (id("log://node/file"), joined(Role::Part(JoinHow::Log))),
            (id("task://t/x"), joined(task)),
        ]),
        limits: Some(limits()),
        limits_changed: 8,
        lease: Some(lease()),
        runs: BTreeMap::from([(
            id("task://t/x"),
            Run {
                run: 1,
                state: RunState::Ended,
                started: Timestamp::from_nanos(5),
                restarts: 2,
                primary: true,
                generation: 3,
                deadline_ms: Some(4),
                clock: None,
            },
        )]),
        generation: 6,
    }
}

fn descriptor(kind: &str, body: Body) -> Descriptor {
    Descriptor {
        id: id(&format!("{kind}://l/x")),
        parent: Some(id("image://l/p")),
        owner: Some(id("volume://l/o")),
        checksum: Some(Checksum::of(b"data")),
        size: 4,
        ro: BTreeMap::from([("k".to_owned(), vec![0, 255])]),
        rw: BTreeMap::from([("l".to_owned(), Vec::new())]),
        revision: 9,
        created: Timestamp::from_nanos(1),
        modified: Timestamp::from_nanos(2),
        state: State::Stopped,
        hidden: true,
        body,
    }
}

fn bodies() -> Vec<Descriptor> {
    let keys = BTreeMap::from([("snapshot".to_owned(), "s".to_owned())]);
    let defaults = ImageDefaults {
        entrypoint: vec!["a".into()],
        cmd: vec!["b".into()],
        env: vec![("c".into(), "d".into())],
        user: Some("e".into()),
        cwd: Some("f".into()),
        stop_signal: Some(3),
        labels: BTreeMap::from([("g".to_owned(), "h".to_owned())]),
        volumes: vec!["/i".into()],
    };
    let image = ImageBody {
        spec: ImageSpec { freespace_bytes: 1 },
        keys: keys.clone(),
        metadata_only: true,
        defaults,
    };
    let volume = VolumeBody {
        spec: VolumeSpec {
            freespace_bytes: 1,
            size_bytes: 2,
            uid: 3,
            gid: 4,
            mode: Some(0o700),
        },
        keys,
    };
    let executor = ExecutorBody {
        spec: ExecutorSpec {
            hostname: Some("h".into()),
            limits: limits(),
            isolation: Isolation {
                host_users: true,
                compat_programs: true,
                privileged: true,
                add_capabilities: vec!["CAP_NET_RAW".into()],
                drop_capabilities: vec!["CAP_KILL".into()],
                allow_new_privileges: true,
            },
        },
        composition: composition(),
    };
    let settings = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    vec![
        descriptor("image", Body::Image(Box::new(image))),
        descriptor("volume", Body::Volume(Box::new(volume))),
        descriptor("task", Body::Task(Box::new(TaskBody { spec: task_spec() }))),
        descriptor("executor", Body::Executor(Box::new(executor))),
        descriptor(
            "network",
            Body::Network(NetworkBody {
                settings: settings.clone(),
            }),
        ),
        descriptor("log", Body::Log(LogBody { settings })),
    ]
}

#[test]
fn elements_pages_and_audit_rows() {
    bodies().into_iter().for_each(same);
    same(Page {
        items: bodies(),
        damaged: vec!["image://l/d".into()],
        next: Some("token".into()),
    });
    for (outcome, verb) in [
        (Outcome::Ok, Verb::Create),
        (Outcome::Failed("in_use".into()), Verb::Reconcile),
    ] {
        same(AuditRow {
            sequence: 1,
            time: Timestamp::from_nanos(3),
            operation: "o".into(),
            actor: "uid 0".into(),
            verb,
            revision_before: 1,
            revision_after: 2,
            outcome,
            checksum: Some(Checksum::of(b"c")),
            keys: vec!["k".into()],
            previous: Checksum::of(b"p"),
            first: Checksum::of(b"f"),
        });
    }
    same(Progress::Read { bytes: 1 });
    same(Progress::Unpacked { layers: 1, of: 2 });
    same(Progress::Pulled { bytes: 1, of: 2 });
}

#[test]
fn elements_leave_without_the_values_of_secrets() {
    for mut element in bodies() {
        hide_secrets(&mut element);
        let spec = match &element.body {
            Body::Task(task) => &task.spec,
            Body::Executor(executor) => {
                match &executor.composition.joined[&id("task://t/x")].role {
                    Role::Task { spec, .. } => spec,
                    Role::Part(_) => panic!("a task"),
                }
            }
            _ => continue,
        };
        assert_eq!(spec.secrets[0].name, "S");
        assert_eq!(spec.secrets[0].value, "");
    }
}

#[test]
fn new_elements_queries_and_patches() {
    let specs = [
        ("image://l/x", Spec::Image(ImageSpec { freespace_bytes: 4 })),
        ("volume://l/x", Spec::Volume(VolumeSpec::default())),
        ("task://l/x", Spec::Task(Box::new(task_spec()))),
        ("executor://l/x", Spec::Executor(Box::default())),
        ("network://l/x", Spec::Network(BTreeMap::new())),
        ("log://l/x", Spec::Log(BTreeMap::new())),
    ];
    for (text, spec) in specs {
        same(spec.clone());
        let mut new = NewElement::new(id(text), spec.clone())
            .parent(id("image://l/p"))
            .owner(id("volume://l/o"))
            .checksum(Checksum::of(b"x"))
            .ro("a", "1")
            .rw("b", vec![255]);
        new.hidden = true;
        let (message, data) = new_element(new).unwrap();
        assert!(data.is_none());
        let read = read_new_element(message).unwrap();
        assert_eq!((read.id, read.spec), (id(text), spec));
        assert_eq!(read.parent, Some(id("image://l/p")));
        assert_eq!(read.owner, Some(id("volume://l/o")));
        assert_eq!(read.checksum, Some(Checksum::of(b"x")));
        assert_eq!(read.ro, Patch::from([("a".into(), Some(b"1".to_vec()))]));
        assert_eq!(read.rw, Patch::from([("b".into(), Some(vec![255]))]));
        assert!(read.hidden);
    }
    let mut nil = NewElement::new(id("task://l/x"), Spec::Task(Box::default()));
    nil.ro.insert("k".into(), None);
    assert!(matches!(
        new_element(nil),
        Err(CreateError::InvalidEntry { .. })
    ));

    let patched = Patch::from([("a".into(), Some(b"1".to_vec())), ("b".into(), None)]);
    let mut request = update_request(&id("task://l/x"), patched.clone(), Some(3));
    assert_eq!(request.expected_revision, Some(3));
    assert_eq!(patch(&mut request).unwrap(), patched);
    let mut both = update_request(&id("task://l/x"), patched, None);
    both.remove.push("a".into());
    assert_eq!(patch(&mut both).unwrap_err().field(), "remove[1]");

    let query = ListQuery {
        filters: vec!["kind==task".into()],
        kind: Some(Kind::Task),
        prefix: Some("task://l".into()),
        page: Some("p".into()),
        limit: 7,
        hidden: true,
        projection: Projection {
            ro: Keys::None,
            rw: Keys::Only(BTreeSet::from(["k".to_owned()])),
        },
    };
    let read = list_query(list_request(query.clone())).unwrap();
    assert_eq!(format!("{read:?}"), format!("{query:?}"));
    let read = list_query(list_request(ListQuery::default())).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", ListQuery::default()));
}

#[test]
fn composition_plans_and_results() {
    same(composition());
    same(JoinHow::root());
    same(volume_role());
    same(BindHow::Plain);
    same(BindHow::Task(bind()));
    same(BindHow::Executor(limits()));
    let v = || id("volume://v/x");
    same(Plan {
        executor: id("executor://e/x"),
        revision: 4,
        steps: vec![
            Step::Claim(vec![v(), id("image://i/x")]),
            Step::Begin,
            Step::Attach(v()),
            Step::PrepareRoot(id("image://i/x")),
            Step::CheckMounts,
            Step::CreateContainer("c".into()),
            Step::Connect(v()),
            Step::Disconnect(v()),
            Step::CreateProcess(id("task://t/x")),
            Step::StartProcess(id("task://t/x")),
            Step::AttachLive(v(), "/v".into()),
            Step::Record,
            Step::End,
            Step::Stop(id("task://t/x")),
            Step::DetachLive(v(), "/v".into()),
            Step::TearDown,
        ],
        elements: BTreeMap::from([(
            v(),
            vec![
                PlanChange::Joins,
                PlanChange::Binds,
                PlanChange::Settings,
                PlanChange::Unbinds,
                PlanChange::Leaves,
            ],
        )]),
    });
    let fault = Fault::of_step(StepError::StillRunning {
        task: id("task://t/x"),
        after_ms: 5,
    });
    same(Committed {
        executor: id("executor://e/x"),
        revision: 4,
        elements: BTreeMap::from([
            (v(), ElementOutcome::Success),
            (id("image://i/x"), ElementOutcome::NoOp),
            (id("task://t/x"), ElementOutcome::Error(fault)),
        ]),
        runs: vec![RunId {
            task: id("task://t/x"),
            run: 3,
        }],
    });
    for edit in [
        Edit::Join {
            id: v(),
            how: volume_role(),
        },
        Edit::Bind {
            id: None,
            how: BindHow::Plain,
        },
        Edit::Unbind { id: Some(v()) },
        Edit::Leave { id: v() },
    ] {
        same(edit);
    }
}

#[test]
fn runs_output_and_interrupts() {
    same(exit());
    for streams in [LogStreams::Stdout, LogStreams::Stderr, LogStreams::Both] {
        let query = LogQuery {
            executor: id("executor://e/x"),
            task: id("task://t/x"),
            streams,
            since: Some(Timestamp::from_nanos(7)),
            tail: Some(0),
            follow: true,
        };
        assert_eq!(log_query(logs_request(query.clone())).unwrap(), query);
    }
    same(LogChunk {
        stderr: true,
        time: Timestamp::from_nanos(1),
        sequence: 2,
        bytes: vec![0, 255],
        lost_bytes: 3,
    });
    for how in [
        Interrupt::Signal {
            signal: 15,
            scope: SignalScope::All,
        },
        Interrupt::Signal {
            signal: 9,
            scope: SignalScope::Process,
        },
        Interrupt::Stop { how: None },
        Interrupt::Stop {
            how: Some(StopSpec::default()),
        },
        Interrupt::Pause,
        Interrupt::Resume,
    ] {
        same(how);
    }
    same(Interrupted::Delivered);
    same(Interrupted::NotRunning);
    same(Interrupted::AlreadyExited(None));
    same(Interrupted::AlreadyExited(Some(Box::new(exit()))));
    same(ContainerStats {
        cpu_ns: Some(1),
        memory_bytes: None,
        memory_peak_bytes: Some(3),
        pids: Some(4),
        oom_kills: Some(0),
    });
    same(LogProgress {
        log: id("log://node/audit"),
        sent_lines: 1,
        dropped_lines: 2,
        cut_bytes: 3,
        lost_bytes: 4,
        done: true,
    });
    same((80_u16, 24_u16));
    let large = portlayer_proto::v1::TerminalSize {
        columns: 70_000,
        rows: 1,
    };
    let refused = <(u16, u16)>::from_wire(large).unwrap_err();
    assert_eq!(refused.field(), "columns");
}

#[test]
fn events_and_gaps() {
    let executor = || id("executor://e/x");
    let changes = [
        Change::Created,
        Change::Modified {
            keys: vec!["k".into()],
        },
        Change::Deleted,
        Change::Inherited {
            child: id("image://i/c"),
        },
        Change::Joined {
            executor: executor(),
        },
        Change::Left {
            executor: executor(),
        },
        Change::Bound {
            executor: executor(),
        },
        Change::Unbound {
            executor: executor(),
            exit: Some(Box::new(exit())),
        },
        Change::LocationHealth {
            location: "l".into(),
            available: false,
            reason: "gone".into(),
        },
        Change::Gap { from: 10, to: 12 },
        Change::Deleted,
    ];
    let mut events: Vec<Event> = changes
        .into_iter()
        .zip(1..)
        .map(|(change, sequence)| Event {
            sequence,
            time: Timestamp::from_nanos(4),
            id: id("image://i/x"),
            revision: 5,
            reconciled: true,
            change,
        })
        .collect();
    events[9] = Event {
        time: Timestamp::from_nanos(4),
        ..Event::gap(10, 12)
    };
    events[10].sequence = 13;
    for event in &events {
        if !matches!(event.change, Change::Gap { .. }) {
            same(event.clone());
        }
    }
    let read = read_fetched(fetched(events.clone(), 13)).unwrap();
    assert_eq!(read, events);
    use portlayer_proto::v1::subscribe_response::Part;
    let parts = parts(events);
    assert!(matches!(
        parts.iter().map(|part| part.part.as_ref().unwrap()).collect::<Vec<_>>()[..],
        [Part::Events(first), Part::Gap(_), Part::Events(last)]
            if first.events.len() == 9 && last.events.len() == 1
    ));
}

#[test]
fn the_node() {
    let engine = RuntimeInfo {
        engine: "a".into(),
        oci_runtime: "b".into(),
        kernel: "c".into(),
        cgroups: "v2".into(),
        favordynmods: true,
        snapshotter: "d".into(),
        namespace: "e".into(),
        live_attach: true,
        isolation: HostIsolation {
            ids: portlayer::runtime::IdMapping::Mapped,
            disk: portlayer::runtime::DiskBound::BlockFile,
            capabilities: u64::MAX,
            apparmor: Some("p".into()),
        },
        warnings: vec!["f".into()],
    };
    same(NodeInfo {
        version: "1".into(),
        data_dir: "/d".into(),
        engine,
        locations: vec![LocationInfo {
            name: "l".into(),
            kinds: vec![Kind::Image, Kind::Volume],
            policy: Policy::CreateOnly,
            backing: "dir".into(),
        }],
        counts: BTreeMap::from([(Kind::Task, 3)]),
        last_sequence: 4,
    });
    same(Diagnostics {
        started: Timestamp::from_nanos(1),
        pid: 2,
        descriptors: 3,
        threads: 4,
        memory_bytes: 5,
        calls: 6,
        subscriptions: 7,
        engine_available: true,
        draining: true,
        places: BTreeMap::from([("a".to_owned(), "/b".to_owned())]),
    });
    same(Report {
        records: 1,
        audit_rows: 2,
        chains: 3,
        events: 4,
        damaged: vec!["d".into()],
        broken_chains: vec![BrokenChain {
            id: "x".into(),
            row: 5,
        }],
        dangling: vec![Dangling {
            index: "reference",
            first: id("image://i/x"),
            second: id("executor://e/x"),
            missing: id("image://i/x"),
        }],
        heads_match: Some(false),
    });
    same(AuditReport {
        found: vec![Audited {
            finding: Finding {
                class: FindingClass::NetworkNamespace,
                name: "n".into(),
                owner: Some("o".into()),
            },
            owner: Some(id("executor://e/x")),
        }],
        away: BTreeMap::from([("l".to_owned(), "gone".to_owned())]),
    });
    same(Swept {
        location: "l".into(),
        removed: vec!["d".into()],
        fault: Some(Fault::new(ErrorKind::Unavailable, "r", "m")),
    });
}

#[test]
fn errors_arrive_with_all_they_know() {
    let x = || id("image://i/x");
    let through = |fault: Fault| Fault::from_status(&fault.into_status()).unwrap();
    let used = through(Fault::of(DeleteError::InUse {
        id: x(),
        by: vec![id("executor://e/1"), id("executor://e/2")],
    }));
    assert_eq!(used.kind, ErrorKind::FailedPrecondition);
    assert_eq!(used.reason, "in_use");
    assert_eq!(used.element, Some(x()));
    assert_eq!(used.details["by"], "executor://e/1 executor://e/2");
    let field = through(Fault::of(CreateError::InvalidField {
        id: x(),
        field: "argv[0]".into(),
        rule: "no NUL".into(),
    }));
    assert_eq!(field.field.as_deref(), Some("spec.argv[0]"));
    assert_eq!(field.reason, "invalid_field");
    assert!(!field.retryable());
    let revision = through(Fault::of(UpdateError::Revision {
        id: x(),
        expected: 3,
        actual: 5,
    }));
    assert!(revision.retryable());
    assert_eq!(revision.details["actual"], "5");
    let step = through(Fault::of(CommitError::Step {
        executor: id("executor://e/1"),
        element: id("task://t/x"),
        step: "start".into(),
        source: StepError::Runtime(RuntimeError::new(
            RuntimeErrorKind::ExecutableNotFound,
            "start",
            "x",
            "runc said so",
        )),
        undo_failures: Vec::new(),
    }));
    assert_eq!(step.reason, "executable_not_found");
    assert_eq!(step.element, Some(id("task://t/x")));
    assert_eq!(step.details["engine"], "runc said so");
    assert_eq!(
        step.message,
        "executor://e/1: task://t/x: start failed: start x: executable not found"
    );
    let location = through(Fault::of(ComposeError::Location(LocationError::Unknown {
        id: x(),
        location: "i".into(),
    })));
    assert_eq!(location.kind, ErrorKind::NotFound);
    for kind in ErrorKind::ALL {
        assert_eq!(through(Fault::new(kind, "r", "m")).kind, kind);
    }
    let long = Fault {
        details: (0..6).map(|n| (n.to_string(), "x".repeat(5000))).collect(),
        ..Fault::new(ErrorKind::Internal, "r", "m".repeat(100_000))
    };
    let bytes = long.into_status().details().len();
    assert!(bytes < 10_000, "{bytes} bytes do not fit into headers");
    assert!(Fault::from_status(&tonic::Status::internal("not ours")).is_none());
}

#[test]
fn what_means_nothing_names_its_field() {
    let message = |text: &str| portlayer_proto::v1::NewElement {
        id: text.into(),
        spec: Some(Spec::Task(Box::default()).into_wire()),
        ..Default::default()
    };
    let refused = |message| read_new_element(message).map(|_| ()).unwrap_err();
    assert_eq!(refused(message("nonsense")).field(), "id");
    let mut bad = message("task://t/x");
    bad.checksum = Some("md5:1".into());
    assert_eq!(refused(bad).reason(), "invalid_checksum");
    let mut bad = message("task://t/x");
    bad.spec = None;
    assert_eq!(refused(bad).field(), "spec");
    let mut bad = message("task://t/x");
    let mut spec = TaskSpec::default().into_wire();
    spec.stdout = Some(portlayer_proto::v1::LogChoice {
        sink: Some("x".into()),
        ..Default::default()
    });
    bad.spec = Some(portlayer_proto::v1::Spec {
        kind: Some(portlayer_proto::v1::spec::Kind::Task(spec)),
    });
    assert_eq!(refused(bad).field(), "spec.task.stdout.sink");
    let unknown = ListQuery::default();
    let mut unknown = list_request(unknown);
    unknown.kind = 77;
    assert_eq!(list_query(unknown).unwrap_err().reason(), "unknown_value");
}
