//! A scheduler: runs a task through the daemon and writes down every event about tasks. However often it is killed, it
//! goes on where it was. `PORTLAYER_SOCKET=... JOURNAL=... cargo run --example scheduler`, with `image://images/busybox`.
use std::{env, fs, io::Write};

use futures::StreamExt;
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, NewElement, Spec};
use portlayer::{error::ErrorKind, event::Change, task::TaskSpec};
use portlayer_client::{Client, RunPlan};

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let client = Client::connect(env::var("PORTLAYER_SOCKET")?).await?;
    let path = env::var("JOURNAL")?;
    let mut journal = fs::File::options().append(true).create(true).open(&path)?;
    let seen = fs::read_to_string(&path)?;
    let seen = seen.lines().last().and_then(|line| line.split(' ').next());
    let next = seen.map_or(Ok(0), str::parse::<u64>)? + 1;
    let mut events = client.subscribe(Some(next), &["kind==task"]).await?;

    let task: ElementId = "task://tasks/job".parse()?;
    let executor: ElementId = "executor://executors/job".parse()?;
    let mut spec = Box::<TaskSpec>::default();
    spec.argv = vec!["/bin/sh".into(), "-c".into(), "sleep 3; exit 7".into()];
    let plan = RunPlan::new(executor.clone())
        .create(NewElement::new(task.clone(), Spec::Task(spec)))
        .create(NewElement::new(executor, Spec::Executor(Box::default())))
        .join(&"image://images/busybox".parse()?, JoinHow::root())
        .join(&task, JoinHow::Task)
        .bind(BindHow::Plain);
    match client.run(plan).await {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {} // It runs: started now, or before we were killed.
    }
    while let Some(event) = events.next().await.transpose()? {
        let (sequence, what, id) = (event.sequence, event.change.as_str(), &event.id);
        journal.write_all(format!("{sequence} {what} {id}\n").as_bytes())?;
        if *id == task && matches!(event.change, Change::Unbound { .. }) {
            break;
        }
    }
    Ok(())
}
