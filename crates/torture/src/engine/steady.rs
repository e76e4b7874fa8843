//! Executors that run while everything else is killed: a task that writes numbers, and after each says in a file of a volume
//! how far it got.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use portlayer::compose::JoinHow;
use portlayer::element::{ElementId, Kind, NewElement, Spec, VolumeSpec};
use portlayer::task::{ExitReason, StopSpec, TaskSpec};

use super::work::{Judged, World, commit, output, remove};
use crate::place::{Place, data};

/// A number is in the file only after it was written.
const COUNT: &str = "i=0; while :; do echo $i; echo $i > /data/new; mv /data/new /data/last; i=$((i+1)); sleep 0.02; done";

/// One of them.
pub(super) struct Steady {
    pub(super) number: usize,
    /// How often it was started again.
    pub(super) life: u32,
    pub(super) executor: ElementId,
    task: ElementId,
    volume: ElementId,
    /// How far it got, on the host.
    last: PathBuf,
}

impl Steady {
    pub(super) async fn start(
        world: &World,
        place: &Place,
        number: usize,
        life: u32,
    ) -> Result<Self> {
        let name = format!("steady-{number}-{life}");
        let id = |kind, location| ElementId::new(kind, location, &name);
        let (executor, task) = (id(Kind::Executor, "executors")?, id(Kind::Task, "tasks")?);
        let volume = id(Kind::Volume, "volumes")?;
        let layer = &world.layer;
        let spec = TaskSpec {
            argv: ["/bin/sh", "-c", COUNT].map(str::to_owned).to_vec(),
            stop: StopSpec {
                signal: Some(9),
                grace_ms: 1000,
            },
            ..TaskSpec::default()
        };
        let specs = [
            (&executor, Spec::Executor(Box::default())),
            (&task, Spec::Task(Box::new(spec))),
            (&volume, Spec::Volume(VolumeSpec::default())),
        ];
        for (id, spec) in specs {
            layer.create(NewElement::new(id.clone(), spec)).await?;
        }
        let image = crate::worker::image()?;
        loop {
            let joins = [
                (&image, JoinHow::root()),
                (&volume, JoinHow::volume("/data")),
                (&task, JoinHow::Task),
            ];
            let handle = layer.composed(&executor, joins).await?;
            if commit(world, handle).await?.is_some() {
                break;
            }
        }
        let live = data(place.directory()).join("volumes/volumes/live");
        Ok(Self {
            number,
            life,
            last: live.join(volume.digest_hex()).join("last"),
            executor,
            task,
            volume,
        })
    }

    /// Stops it unless its shim was killed, judges what it wrote and how it ended, and removes it.
    pub(super) async fn end(&mut self, world: &World, killed: bool) -> Result<Judged> {
        let layer = &world.layer;
        let mut judged = Judged::default();
        if !killed {
            let handle = layer.compose(&self.executor).await?;
            let handle = layer.unbind(handle, None).await?;
            layer.commit(handle).await?;
        }
        let wait = layer.wait(&self.executor, &self.task, None);
        let exit = tokio::time::timeout(Duration::from_secs(60), wait).await;
        let exit = exit.with_context(|| format!("no exit record of {}", self.executor))??;
        let honest = match exit.reason {
            ExitReason::Cancelled => !killed,
            ExitReason::Lost => killed,
            ExitReason::Signaled => killed && matches!(exit.signal, Some(9 | 13)),
            _ => false,
        };
        if !honest {
            judged.wrong(
                "wrong_exits",
                format!("killed with its shim: {killed}, recorded: {exit:?}"),
            );
        }
        judged.ended(&exit);
        let text = output(layer, &self.executor, &self.task).await?;
        judged.bytes += text.len() as u64;
        self.judge(&text, killed, &mut judged);
        remove(world, &self.executor).await?;
        for id in [&self.task, &self.volume] {
            layer.delete(id).await?;
        }
        Ok(judged)
    }

    fn judge(&self, text: &str, killed: bool, judged: &mut Judged) {
        let lines = text.lines().count();
        let wanted: String = (0..lines).map(|number| format!("{number}\n")).collect();
        // A shim that dies may have written half a line.
        let right = *text == wanted || killed && wanted.starts_with(text);
        if !right {
            let at = text
                .bytes()
                .zip(wanted.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let executor = &self.executor;
            judged.wrong(
                "wrong_logs",
                format!(
                    "{executor}: not the numbers from byte {at} of {}",
                    text.len()
                ),
            );
        }
        let got = read(&self.last);
        // What the shim had read and not yet passed on goes with it.
        if let (Some(got), false) = (got, killed)
            && lines < got + 1
        {
            judged.wrong(
                "wrong_logs",
                format!("{}: {lines} lines, it wrote {}", self.executor, got + 1),
            );
        }
    }
}

/// The number in the file; `None` = it got to none.
fn read(path: &Path) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
