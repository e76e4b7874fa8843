//! journald and syslog: what receivers get, and that nothing is lost while they or we are away.

use portlayer::compose::{CommitError, StepError};
use portlayer::element::{NewElement, Spec};
use portlayer::error::CreateError;
use portlayer::runtime::{LogStreams, RuntimeErrorKind};
use portlayer::task::LogChoice;

use super::world::{Datagrams, Syslog, World, close, id, ids, log, run, shell, start, stored};

/// The value of a parameter of a syslog message.
fn parameter<'a>(message: &'a str, name: &str) -> &'a str {
    let (_, rest) = message.split_once(&format!(" {name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

fn text(message: &str) -> &str {
    message.split_once("] ").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn every_joined_log_gets_all_and_a_named_one_gets_its_stream() {
    let world = World::new();
    let (journal, syslog) = (
        Datagrams::listen(&world.at("journal")),
        Datagrams::listen(&world.at("syslog")),
    );
    let node = world.node(None).await;
    let journald = log(
        &node,
        "journal",
        &[
            ("kind", "journald"),
            ("socket", &world.at("journal")),
            ("identifier", "app"),
        ],
    )
    .await;
    let address = format!("unix:{}", world.at("syslog"));
    let unix = log(
        &node,
        "syslog",
        &[
            ("kind", "syslog"),
            ("address", &address),
            ("facility", "local0"),
        ],
    )
    .await;

    run(
        &node,
        "both",
        &[&journald, &unix],
        shell("echo one; echo two >&2"),
    )
    .await;
    // The streams are followed each by itself: which of the two comes first is not said.
    journal.received.wait_for("one").await;
    let messages = journal.received.wait_for("two").await;
    assert_eq!(messages.len(), 2, "{messages:?}");
    let one = messages
        .iter()
        .find(|message| message.contains("one"))
        .unwrap();
    for field in [
        "PRIORITY=6\n",
        "SYSLOG_IDENTIFIER=app\n",
        "PORTLAYER_EXECUTOR=executor://executors/both\n",
        "PORTLAYER_TASK=task://tasks/both\n",
        "PORTLAYER_STREAM=stdout\n",
        "PORTLAYER_TIME_NS=",
    ] {
        assert!(one.contains(field), "{one:?}");
    }
    assert!(one.ends_with("one\n"));
    let messages = syslog.received.wait_for("two").await;
    let two = messages
        .iter()
        .find(|message| text(message) == "two")
        .unwrap();
    // local0 and error.
    assert!(
        two.starts_with("<131>1 20") && two.contains(" portlayer - stderr [portlayer@32473 "),
        "{two}"
    );
    assert_eq!(parameter(two, "task"), "task://tasks/both");

    let to = |log: &portlayer::element::ElementId| LogChoice {
        sink: Some(log.clone()),
        ..LogChoice::default()
    };
    let mut spec = shell("echo out; echo err >&2");
    (spec.stdout, spec.stderr) = (to(&journald), to(&unix));
    run(&node, "each", &[&journald, &unix], spec).await;
    let out = journal.received.wait_for("out").await;
    let err = syslog.received.wait_for("err").await;
    assert!(
        !out.iter().any(|message| message.ends_with("err\n"))
            && !err.iter().any(|message| text(message) == "out")
    );
    // The node's own files have everything all the same.
    assert_eq!(stored(&node, "each", LogStreams::Stdout).await.0, "out\n");
    close(node, &["both", "each"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_server_breaks_off_and_what_comes_again_is_marked() {
    let world = World::new();
    let server = Syslog::listen("127.0.0.1:0", 3);
    let node = world.node(Some(&server.address)).await;
    let address = format!("tcp:{}", server.address);
    let tcp = log(&node, "tcp", &[("kind", "syslog"), ("address", &address)]).await;
    run(
        &node,
        "a",
        &[&tcp],
        shell("for n in $(seq 500); do echo line-$n.; done; printf 'no newline.'"),
    )
    .await;
    let messages = server.received.wait_for("no newline.").await;
    // A line that is sent again has the sequence it had; without those, each is there once and in order.
    let mut seen = std::collections::BTreeSet::new();
    let once = messages
        .iter()
        .filter(|message| seen.insert(parameter(message, "sequence").to_owned()));
    let texts: Vec<_> = once.map(|message| text(message).to_owned()).collect();
    let mut expected: Vec<_> = (1..=500).map(|n| format!("line-{n}.")).collect();
    expected.push("no newline.".to_owned());
    assert_eq!(texts, expected);
    close(node, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_is_waited_for_also_by_the_next_process_of_ours() {
    let world = World::new();
    let node = world.node(None).await;
    let path = world.at("later");
    let away = log(&node, "away", &[("kind", "journald"), ("socket", &path)]).await;
    // It runs on while nobody of ours reads, and writes then.
    start(
        &node,
        "a",
        &[&away],
        shell("echo before; sleep 1; echo after"),
    )
    .await
    .unwrap();
    node.close().await.unwrap();
    let node = world.open(None).await;
    let (executor, task) = ids("a");
    let exit = node.port_layer.wait(&executor, &task, None).await.unwrap();
    assert_eq!(exit.code, Some(0));
    // Closed once more, with nothing sent yet.
    node.close().await.unwrap();
    let receiver = Datagrams::listen(&path);
    let node = world.open(None).await;
    let messages = receiver.received.wait_for("after").await;
    let texts: Vec<_> = messages
        .iter()
        .map(|message| message.trim_end().rsplit('\0').next().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["before", "after"]);
    close(node, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_log_that_is_away_fails_the_start_and_one_that_is_not_allowed_is_not_made() {
    let world = World::new();
    let node = world.node(None).await;
    let away = log(
        &node,
        "away",
        &[("kind", "journald"), ("socket", &world.at("nobody"))],
    )
    .await;
    let mut spec = shell("echo x");
    spec.stdout.required = true;
    let refused = start(&node, "a", &[&away], spec).await;
    match refused {
        Err(CommitError::Step {
            source: StepError::Runtime(error),
            ..
        }) => {
            assert_eq!(
                (error.kind, error.object.as_str()),
                (RuntimeErrorKind::LogUnavailable, "log://node/away")
            );
        }
        other => panic!("{other:?}"),
    }
    // Without that it runs.
    run(&node, "b", &[&away], shell("echo y")).await;
    assert_eq!(stored(&node, "b", LogStreams::Both).await.0, "y\n");

    for (settings, field) in [
        (
            vec![("kind", "syslog"), ("address", "tcp:192.0.2.1:601")],
            "kind",
        ),
        (vec![("kind", "path"), ("path", "/etc/passwd")], "kind"),
        (vec![("kind", "syslog"), ("address", "nowhere")], "address"),
    ] {
        let settings = settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let new = NewElement::new(id("log://node/x"), Spec::Log(settings.collect()));
        let refused = node.port_layer.create(new).await.unwrap_err();
        assert!(
            matches!(&refused, CreateError::InvalidField { field: at, .. } if at == field),
            "{refused:?}"
        );
    }
    // A log in use stays.
    node.port_layer.delete(&away).await.unwrap_err();
    close(node, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_beyond_the_limits_are_dropped_and_the_files_have_them() {
    let world = World::new();
    let receiver = Datagrams::listen(&world.at("journal"));
    let node = world.node(None).await;
    let socket = world.at("journal");
    let few = log(
        &node,
        "few",
        &[
            ("kind", "journald"),
            ("socket", &socket),
            ("rate", "5"),
            ("line", "16"),
        ],
    )
    .await;
    let script =
        "echo 0123456789abcdefXYZ; for n in $(seq 200); do echo $n; done; sleep 2; echo last";
    run(&node, "a", &[&few], shell(script)).await;
    let messages = receiver.received.wait_for("last").await;
    assert!(messages.len() < 60, "{} lines came", messages.len());
    assert!(
        messages[0].contains("PORTLAYER_CUT=true\n") && messages[0].ends_with("0123456789abcdef\n"),
        "{}",
        messages[0]
    );
    let (all, lost) = stored(&node, "a", LogStreams::Both).await;
    assert_eq!((all.lines().count(), lost), (202, 0));
    // Its place is stored after the lines of it were sent.
    let begun = std::time::Instant::now();
    let progress = loop {
        let (executor, task) = ids("a");
        let progress = node
            .port_layer
            .log_progress(&executor, &task)
            .await
            .unwrap();
        if progress[0].done {
            break progress;
        }
        assert!(begun.elapsed().as_secs() < 30, "{progress:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(progress.len(), 1);
    let of_few = &progress[0];
    assert_eq!((&of_few.log, of_few.lost_bytes), (&few, 0));
    assert_eq!(of_few.sent_lines, messages.len() as u64);
    assert_eq!(of_few.sent_lines + of_few.dropped_lines, 202);
    // XYZ of the first line, which is no longer than the limit otherwise.
    assert_eq!(of_few.cut_bytes, 3);
    close(node, &["a"]).await;
}
