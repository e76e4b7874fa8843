//! The worker: opens the real node, does what it is told, says what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, Cursor, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use portlayer::PortLayer;
use portlayer::archive::TarBuilder;
use portlayer::compose::{BindHow, JoinHow, RunState, TaskBind};
use portlayer::element::ListQuery;
use portlayer::element::State as ElementState;
use portlayer::element::{Body, ElementId, ImageSpec, Kind, NewElement, Patch, Spec, VolumeSpec};
use portlayer::error::Classify;
use portlayer::event::Change;
use portlayer::runtime::{LogQuery, LogStreams};
use portlayer::task::ExitRecord;
use portlayer_runtime::layout;

use crate::place;
use crate::protocol::{Answer, Edit, ExecutorState, Exit, LogSeen, Look, Op, State};
use crate::tasks::{FLOOD, FLOOD_TASK, GATED, GATED_TASK, TEMPLATES};

/// The hidden subcommand.
pub(crate) const COMMAND: &str = "worker";

/// The metadata key that says a volume's value.
const VALUE: &str = "value";
/// How long leftovers may take to be swept after an open.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Runs until standard input ends.
pub(crate) fn run(directory: &Path) -> Result<()> {
    trace(std::io::stderr);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(directory))
}

/// What the port layer has to say goes there.
pub(crate) fn trace<W>(writer: W)
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(writer)
        .with_ansi(false)
        .init();
}

async fn serve(directory: &Path) -> Result<()> {
    let started = Instant::now();
    let node = portlayer_node::open(&place::config(directory)).await?;
    let ms = u64::try_from(started.elapsed().as_millis())?;
    say(&Answer::Opened { ms })?;
    let (lines, mut wanted) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = wanted.recv().await {
        let op: Op = serde_json::from_str(&line)?;
        say(&act(&node.port_layer, op).await?)?;
    }
    node.close().await?;
    Ok(())
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// A refusal of the port layer is an answer; anything else ends the worker.
async fn act(layer: &PortLayer, op: Op) -> Result<Answer> {
    Ok(match op {
        Op::Setup => {
            setup(layer).await?;
            Answer::Done
        }
        Op::CreateVolume { name, value } => {
            let spec = Spec::Volume(VolumeSpec::default());
            let mut new = NewElement::new(id(Kind::Volume, "volumes", &name)?, spec);
            new.rw = patch(value);
            done(layer.create(new).await)
        }
        Op::CreateFilled { name, bytes } => {
            let spec = Spec::Volume(VolumeSpec::default());
            let tar = TarBuilder::new().file("filling", 0o644, &vec![1; bytes]);
            let id = id(Kind::Volume, "volumes", &name)?;
            let new = NewElement::new(id, spec).data(Cursor::new(tar.finish()));
            done(layer.create(new).await)
        }
        Op::CreateHeavy { name, bytes } => {
            let spec = Spec::Volume(VolumeSpec::default());
            let mut new = NewElement::new(id(Kind::Volume, "volumes", &name)?, spec);
            new.rw = Patch::from([("filling".to_owned(), Some(vec![1; bytes]))]);
            done(layer.create(new).await)
        }
        Op::UpdateVolume { name, value } => {
            let id = id(Kind::Volume, "volumes", &name)?;
            done(layer.update(&id, patch(value), None).await)
        }
        Op::DeleteVolume { name } => done(layer.delete(&id(Kind::Volume, "volumes", &name)?).await),
        Op::CreateExecutor { name } => {
            let new = NewElement::new(executor(&name)?, Spec::Executor(Box::default()));
            done(layer.create(new).await)
        }
        Op::DeleteExecutor { name } => done(layer.delete(&executor(&name)?).await),
        Op::Commit { executor, edits } => commit(layer, &executor, &edits).await?,
        Op::Stop {
            executor: of,
            task: name,
        } => {
            let how = portlayer::compose::Interrupt::Stop { how: None };
            let (executor, task) = (executor(&of)?, task(&name)?);
            done(layer.interrupt(&executor, Some(&task), how).await)
        }
        Op::Wait {
            executor: of,
            task: name,
            run,
        } => done(layer.wait(&executor(&of)?, &task(&name)?, Some(run)).await),
        Op::State(look) => Answer::State(Box::new(state(layer, &look, false).await?)),
        Op::Running(look) => Answer::State(Box::new(state(layer, &look, true).await?)),
    })
}

fn done<T, E: std::error::Error + Classify>(outcome: std::result::Result<T, E>) -> Answer {
    match outcome {
        Ok(_) => Answer::Done,
        Err(error) => refused(&error),
    }
}

fn refused<E: std::error::Error + Classify>(error: &E) -> Answer {
    let reason = error.class().reason.to_owned();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Answer::Refused { text, reason }
}

fn id(kind: Kind, location: &str, name: &str) -> Result<ElementId> {
    Ok(ElementId::new(kind, location, name)?)
}

fn executor(name: &str) -> Result<ElementId> {
    id(Kind::Executor, "executors", name)
}

pub(crate) fn task(name: &str) -> Result<ElementId> {
    id(Kind::Task, "tasks", name)
}

pub(crate) fn image() -> Result<ElementId> {
    id(Kind::Image, "images", "busybox")
}

fn patch(value: u64) -> Patch {
    Patch::from([(VALUE.to_owned(), Some(value.to_string().into_bytes()))])
}

pub(crate) async fn setup(layer: &PortLayer) -> Result<()> {
    let binary = Path::new("/bin/busybox");
    let bytes = std::fs::read(binary).context("the Debian package busybox-static is needed")?;
    let tar = layout::busybox_tar(&bytes, &layout::applets(binary)?);
    let new = NewElement::new(image()?, Spec::Image(ImageSpec::default())).data(Cursor::new(tar));
    layer.create(new).await?;
    for (name, spec) in [(FLOOD_TASK, FLOOD.spec()), (GATED_TASK, GATED.spec())] {
        let spec = Spec::Task(Box::new(spec));
        layer.create(NewElement::new(task(name)?, spec)).await?;
    }
    for template in TEMPLATES {
        let spec = Spec::Task(Box::new(template.spec()));
        layer
            .create(NewElement::new(task(template.name)?, spec))
            .await?;
    }
    Ok(())
}

async fn commit(layer: &PortLayer, name: &str, edits: &[Edit]) -> Result<Answer> {
    let executor = executor(name)?;
    let mut handle = match layer.compose(&executor).await {
        Ok(handle) => handle,
        Err(error) => return Ok(refused(&error)),
    };
    let volume = |name: &str| id(Kind::Volume, "volumes", name);
    let run =
        |name: &str| Ok::<_, anyhow::Error>((task(name)?, BindHow::Task(TaskBind::default())));
    for edit in edits {
        let edited = match edit {
            Edit::JoinImage => layer.join(handle, &image()?, JoinHow::root()).await,
            Edit::JoinVolume(name) => {
                let how = JoinHow::volume(format!("/tmp/{name}"));
                layer.join(handle, &volume(name)?, how).await
            }
            Edit::JoinTask(name) => layer.join(handle, &task(name)?, JoinHow::Task).await,
            Edit::BindAll => layer.bind(handle, None, BindHow::Plain).await,
            Edit::BindTask(name) => {
                let (task, how) = run(name)?;
                layer.bind(handle, Some(&task), how).await
            }
            Edit::BindVolume(name) => {
                layer
                    .bind(handle, Some(&volume(name)?), BindHow::Plain)
                    .await
            }
            Edit::UnbindTask(name) => layer.unbind(handle, Some(&task(name)?)).await,
            Edit::UnbindAll => layer.unbind(handle, None).await,
            Edit::LeaveTask(name) => layer.leave(handle, &task(name)?).await,
            Edit::LeaveVolume(name) => layer.leave(handle, &volume(name)?).await,
        };
        handle = match edited {
            Ok(handle) => handle,
            Err(error) => return Ok(refused(&error)),
        };
    }
    Ok(match layer.commit(handle).await {
        Ok(result) if result.is_error() => Answer::PartlyDone,
        Ok(result) => Answer::Committed {
            runs: result
                .runs
                .iter()
                .map(|run| (last(&run.task), run.run))
                .collect(),
        },
        Err(error) => refused(&error),
    })
}

/// The last segment of an id.
pub(crate) fn last(id: &ElementId) -> String {
    let text = id.as_str();
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

async fn state(layer: &PortLayer, look: &Look, few: bool) -> Result<State> {
    let mut state = State {
        last: look.from.saturating_sub(1),
        ..State::default()
    };
    if look.audit {
        // An open does not wait until the tasks that an interrupted commit stops have ended: until then they are still
        // joined, and what was found would not be what comes of it.
        layer.settle().await;
    }
    for kind in [Kind::Volume, Kind::Executor] {
        let mut page = None;
        if few && kind == Kind::Volume {
            continue;
        }
        loop {
            let query = ListQuery {
                kind: Some(kind),
                filters: if few {
                    vec!["state==running".to_owned()]
                } else {
                    Vec::new()
                },
                page,
                limit: 1000,
                ..ListQuery::default()
            };
            let listed = layer.list(query).await?;
            for element in &listed.items {
                match &element.body {
                    Body::Executor(body) => state.executors.push(ExecutorState {
                        name: last(&element.id),
                        live: matches!(element.state, ElementState::Running | ElementState::Paused),
                        joined: body.composition.joined.keys().map(last).collect(),
                        runs: body
                            .composition
                            .runs
                            .iter()
                            .map(|(task, run)| (last(task), run.run, run.state != RunState::Ended))
                            .collect(),
                    }),
                    _ => {
                        let value = element.rw.get(VALUE);
                        let value = value.and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
                        state.volumes.push((last(&element.id), value));
                    }
                }
            }
            page = listed.next;
            if page.is_none() {
                break;
            }
        }
    }
    // Before the events: what is recorded now is told then.
    if let Some(name) = &look.exits_of {
        let exits = layer.exits(&executor(name)?, None).await?;
        state.recorded = exits.iter().map(seen).collect();
        if let Some(exit) = exits.last() {
            // Answers when all of them are durable, and so told.
            layer
                .wait(&exit.executor, &exit.task, Some(exit.run))
                .await?;
        }
    }
    loop {
        let events = layer.events(state.last + 1, 1000).await?;
        if events.is_empty() {
            break;
        }
        for event in events {
            state.last = event.sequence;
            match &event.change {
                Change::Unbound {
                    exit: Some(exit), ..
                } => state.exits.push(seen(exit)),
                Change::Gap { from, to } => state.gaps += to - from + 1,
                _ => {}
            }
        }
    }
    for (of, name) in &look.logs {
        state.logs.push(log(layer, of, name).await?);
    }
    if look.audit {
        state.leaks = leaks(layer).await?;
    }
    Ok(state)
}

fn seen(exit: &ExitRecord) -> Exit {
    Exit {
        executor: last(&exit.executor),
        task: last(&exit.task),
        run: exit.run,
        reason: exit.reason.as_str().to_owned(),
        code: exit.code,
        signal: exit.signal,
        message: exit.message.clone(),
    }
}

async fn log(layer: &PortLayer, of: &str, name: &str) -> Result<LogSeen> {
    let mut seen = LogSeen {
        executor: of.to_owned(),
        task: name.to_owned(),
        out: String::new(),
        err: String::new(),
        lost: 0,
    };
    let query = LogQuery {
        executor: executor(of)?,
        task: task(name)?,
        streams: LogStreams::Both,
        since: None,
        tail: None,
        follow: false,
    };
    // A task that never ran there has no log.
    let Ok(mut chunks) = layer.logs(&query).await else {
        return Ok(seen);
    };
    let mut bytes: BTreeMap<bool, Vec<u8>> = BTreeMap::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        seen.lost += chunk.lost_bytes;
        bytes.entry(chunk.stderr).or_default().extend(chunk.bytes);
    }
    let text = |stderr| String::from_utf8_lossy(bytes.get(&stderr).map_or(&[], |b| b)).into_owned();
    (seen.out, seen.err) = (text(false), text(true));
    Ok(seen)
}

/// What nobody owns. Leftovers may be swept in the background after an open: they get their time.
pub(crate) async fn leaks(layer: &PortLayer) -> Result<Vec<String>> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let report = layer.audit().await?;
        let leaks: Vec<_> = report
            .leaks()
            .map(|leak| format!("{:?} {} of {:?}", leak.class, leak.name, leak.owner))
            .collect();
        if leaks.is_empty() || started.elapsed() > SWEEP_LIMIT {
            return Ok(leaks);
        }
        // An audit of much that is leaked is in the way of the sweep.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
