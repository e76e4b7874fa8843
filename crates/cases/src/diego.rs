//! Runs one Diego case and compares.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portlayer::element::{Kind, ListQuery};
use portlayer_taskdef::diego::{DefinitionError, Rules, State, TaskEvent, Tasks, read_json};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;

use crate::Verdict;
use crate::expect::{self, Answer, Cancel, Variant};
use crate::observed::Observed;
use crate::rig::Rig;

/// No case takes longer.
const PATIENCE: Duration = Duration::from_secs(150);

pub(crate) async fn run(
    rig: &Rig,
    name: &str,
    definition: &str,
    expectation: &str,
) -> Result<Verdict> {
    let filled = rig.fill(definition);
    let sent: Value = serde_json::from_str(&filled)?;
    let clauses = expect::clauses(expectation);
    if expectation.contains("**N3**") {
        rig.import(sent["rootfs"].as_str().unwrap_or_default())
            .await?;
    }
    let cancel = expect::cancel(&clauses);
    let observed = observe(rig, &rig.tasks, &sent, cancel.as_ref()).await?;
    let mut verdict = Verdict {
        name: name.to_owned(),
        checked: 0,
        failures: Vec::new(),
        unread: Vec::new(),
        disputed: Vec::new(),
        details: details(&observed),
    };
    for (number, clause) in clauses.iter().enumerate() {
        let mut clause = clause.clone();
        if let Some((right, told)) = expect::undisputed(&clause, &clauses) {
            verdict.disputed.push(told);
            clause = right;
        }
        let answer = match expect::variant(&clause) {
            Some(variant) => check_variant(rig, &sent, number, &variant, &mut verdict).await?,
            None => expect::check(&clause, &observed),
        };
        verdict.take(clause, answer);
    }
    Ok(verdict)
}

/// Runs the task a clause speaks of besides, and checks what it says of it.
async fn check_variant(
    rig: &Rig,
    sent: &Value,
    number: usize,
    variant: &Variant,
    verdict: &mut Verdict,
) -> Result<Answer> {
    let Some(changed) = variant.of(sent, number) else {
        return Ok(Answer::NotRead);
    };
    let tasks = match variant.wants_seed_policy() {
        true => &rig.seed_tasks,
        false => &rig.tasks,
    };
    let observed = observe(rig, tasks, &changed, None).await?;
    let mut more = details(&observed);
    verdict.details.append(&mut more);
    let mut read = false;
    for clause in &variant.expected {
        match expect::check(clause, &observed) {
            Answer::Yes => read = true,
            Answer::No(why) => return Ok(Answer::No(format!("{clause}: {why}"))),
            Answer::NotRead => {}
        }
    }
    Ok(if read { Answer::Yes } else { Answer::NotRead })
}

fn details(observed: &Observed) -> Vec<String> {
    let mut details = vec![format!("changes: {}", observed.changes.join(", "))];
    if let Some(task) = &observed.completed {
        details.push(format!(
            "failed: {}, reason: {:?}, result: {:?}",
            task.failed, task.failure_reason, task.result
        ));
    }
    details.extend(
        observed
            .refused
            .iter()
            .map(|text| format!("refused: {text}")),
    );
    let shown = |line: &portlayer_taskdef::log::LogLine| {
        format!(
            "[{}{}] {}",
            line.source,
            if line.stderr { "/err" } else { "" },
            line.text
        )
    };
    details.extend(observed.log.iter().map(shown));
    details
}

async fn observe(
    rig: &Rig,
    tasks: &Tasks,
    sent: &Value,
    cancel: Option<&Cancel>,
) -> Result<Observed> {
    rig.files.take();
    rig.hooks.take();
    let text = sent.to_string();
    let mut observed = Observed {
        refused_in_strict_mode: read_json(text.as_bytes(), &Rules { strict: true })
            .err()
            .map(|error| error.to_string()),
        sent: sent.clone(),
        ..Observed::default()
    };
    let desired = match read_json(text.as_bytes(), &Rules::default()) {
        Ok(desired) => desired,
        Err(error @ (DefinitionError::Invalid(_) | DefinitionError::Parse(_))) => {
            observed.refused = Some(error.to_string());
            return Ok(observed);
        }
    };
    let guid = desired.task_guid.clone();
    let definition = desired
        .definition
        .as_deref()
        .context("it has no definition")?;
    let (stream, called_back) = (
        definition.log_guid.clone(),
        !definition.completion_callback_url.is_empty(),
    );
    let mut events = tasks.events();
    let begun = Instant::now();
    tasks.desire(desired).await?;
    if let Some(cancel) = cancel {
        if let Cancel::After(line) = cancel {
            wait_for_line(rig, &stream, line).await?;
        }
        tasks.cancel(&guid).await?;
        let again = tasks.cancel(&guid).await.err();
        observed.cancelled_again = again.map(|error| error.to_string());
    }
    let unknown = tasks.cancel(&format!("{guid}-unknown")).await.err();
    observed.cancel_of_unknown = unknown.map(|error| error.diego_type());
    follow(&mut events, &guid, &mut observed, false).await?;
    observed.seconds = begun.elapsed().as_secs();
    if !called_back {
        tasks.resolve(&guid).await?;
        tasks.delete(&guid).await?;
    }
    follow(&mut events, &guid, &mut observed, true).await?;
    observed.gone = tasks.get(&guid).await.is_err();
    // The container may outlive a cancel by its grace.
    let mut left = rig.executors().await?;
    let patience = Instant::now() + Duration::from_secs(30);
    while !left.is_empty() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
        left = rig.executors().await?;
    }
    observed.left = left;
    observed.log = rig.log.of(&stream);
    observed.gets = rig.files.take();
    observed.posts = rig.hooks.take();
    observed.volume_files = volume_files(rig).await?;
    Ok(observed)
}

async fn wait_for_line(rig: &Rig, stream: &str, text: &str) -> Result<()> {
    let patience = Instant::now() + PATIENCE;
    while !rig
        .log
        .of(stream)
        .iter()
        .any(|line| line.text.contains(text))
    {
        if Instant::now() > patience {
            bail!("the line {text:?} did not come");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Notes events of a task until it completed, or is removed.
async fn follow(
    events: &mut Receiver<TaskEvent>,
    guid: &str,
    observed: &mut Observed,
    until_removed: bool,
) -> Result<()> {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv())
            .await
            .context("it did not end")??;
        match event {
            TaskEvent::Created(task) if task.task_guid == guid => {
                observed.changes.push(format!("created({})", task.state));
            }
            TaskEvent::Changed { before, after } if after.task_guid == guid => {
                if before.state != after.state {
                    observed
                        .changes
                        .push(format!("changed({} to {})", before.state, after.state));
                }
                if after.state == State::Completed && observed.completed.is_none() {
                    observed.completed = Some(*after);
                    if !until_removed {
                        return Ok(());
                    }
                }
            }
            TaskEvent::Removed(task) if task.task_guid == guid => {
                observed.changes.push("removed".to_owned());
                return Ok(());
            }
            _ => {}
        }
    }
}

/// Names of the files in the volumes of drivers.
async fn volume_files(rig: &Rig) -> Result<Vec<String>> {
    use portlayer::archive::{Limits, TarReader};
    use tokio::io::AsyncReadExt;
    let query = ListQuery {
        kind: Some(Kind::Volume),
        limit: 1000,
        ..ListQuery::default()
    };
    let mut found = Vec::new();
    for element in rig.node.port_layer.list(query).await?.items {
        if element.id.name().contains('/') {
            continue;
        }
        let mut tar = Vec::new();
        rig.node
            .port_layer
            .export(&element.id)
            .await?
            .read_to_end(&mut tar)
            .await?;
        let mut reader = TarReader::new(tar.as_slice(), Limits::default())?;
        while let Some(entry) = reader.next_entry()? {
            found.push(format!(
                "{}/{}",
                element.id.name(),
                String::from_utf8_lossy(&entry.path).trim_start_matches("./")
            ));
        }
    }
    Ok(found)
}
