//! A Diego task of one run action beside the same steps through the port layer: the difference is what the front end adds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use portlayer::PortLayer;
use portlayer::compose::{Interrupt, JoinHow, TaskBind};
use portlayer::element::{ElementId, ListQuery, NewElement, Spec};
use portlayer::task::{ExecutorSpec, Isolation, LogChoice, StopSpec, TaskSpec};
use portlayer_taskdef::diego::{Settings, State, TaskEvent, Tasks, read_json};
use portlayer_taskdef::fetch::{Fetcher, Http};
use portlayer_taskdef::log::NoLog;
use portlayer_taskdef::run::{RunSettings, Runner};

use super::layer::{executor_id, task_id};
use super::{Node, Timing, Variant, names};
use crate::busybox::TRUE;

/// Longer than this no run takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Both, over one image.
pub(crate) async fn diego_variants(node: &Arc<Node>) -> Result<Vec<Box<dyn Variant>>> {
    let image = super::layer::image(node).await?;
    Ok(vec![
        Box::new(Steps {
            layer: node.layer().clone(),
            image: image.clone(),
        }),
        Box::new(Diego::open(node, image).await?),
    ])
}

/// An executor with a task that only waits, and in it a further task: what a definition of one run action comes to.
struct Steps {
    layer: PortLayer,
    image: ElementId,
}

fn name(run: u64) -> String {
    format!("steps-{run}")
}

fn task(argv: &[&str]) -> TaskSpec {
    TaskSpec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        user: Some("0:0".to_owned()),
        cwd: Some("/".to_owned()),
        ..TaskSpec::default()
    }
}

#[async_trait]
impl Variant for Steps {
    fn name(&self) -> &'static str {
        names::STEPS
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let (layer, name) = (&self.layer, name(run));
        let start = Instant::now();
        let executor = executor_id(&name)?;
        let spec = ExecutorSpec {
            hostname: Some(name.clone()),
            isolation: Isolation {
                add_capabilities: ["CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE", "CAP_SETFCAP"]
                    .map(str::to_owned)
                    .to_vec(),
                allow_new_privileges: true,
                compat_programs: true,
                ..Isolation::default()
            },
            ..ExecutorSpec::default()
        };
        let waiting_in = NewElement::new(executor.clone(), Spec::Executor(Box::new(spec)));
        let hold = task_id(&format!("{name}/hold"))?;
        let quiet = LogChoice {
            discard: true,
            ..LogChoice::default()
        };
        let waits = TaskSpec {
            stdout: quiet.clone(),
            stderr: quiet,
            ..task(&["/dev/.portlayer/init"])
        };
        let waiting = NewElement::new(hold.clone(), Spec::Task(Box::new(waits)));
        tokio::try_join!(layer.create(waiting_in), layer.create(waiting))?;
        let parts = [(&self.image, JoinHow::root()), (&hold, JoinHow::Task)];
        let handle = layer.composed(&executor, parts).await?;
        layer.commit(handle).await?;
        let further = task_id(&format!("{name}/0"))?;
        let new = NewElement::new(further.clone(), Spec::Task(Box::new(task(&[TRUE]))));
        layer.create(new).await?;
        layer.exec(&executor, &further, TaskBind::default()).await?;
        let record = layer.wait(&executor, &further, None).await?;
        let exit = start.elapsed();
        ensure!(record.code == Some(0), "{further} ended with {record:?}");
        let now = StopSpec {
            signal: Some(15),
            grace_ms: 1000,
        };
        let stop = Interrupt::Stop { how: Some(now) };
        layer.interrupt(&executor, None, stop).await?;
        layer.wait(&executor, &hold, None).await?;
        for id in [&executor, &hold, &further] {
            layer.delete(id).await?;
        }
        Ok(Timing {
            exit: Some(exit),
            gone: start.elapsed(),
            phases: Vec::new(),
        })
    }
}

/// The same task as Diego's front end takes it.
struct Diego {
    layer: PortLayer,
    tasks: Tasks,
}

impl Diego {
    async fn open(node: &Arc<Node>, image: ElementId) -> Result<Self> {
        let client = Http::new()?;
        let fetcher = Fetcher::new(Arc::new(client), node.directory().join("diego"))?;
        let runner = Runner::new(
            node.layer().clone(),
            Arc::new(fetcher),
            Arc::new(NoLog),
            RunSettings::default(),
        );
        let settings = Settings {
            preloaded: BTreeMap::from([("busybox".to_owned(), image)]),
            ..Settings::default()
        };
        Ok(Self {
            layer: node.layer().clone(),
            tasks: Tasks::open(runner, settings, "tasks").await?,
        })
    }

    async fn is_removing(&self) -> Result<bool> {
        let query = ListQuery {
            prefix: Some("executor://executors/diego/".to_owned()),
            hidden: true,
            ..ListQuery::default()
        };
        Ok(!self.layer.list(query).await?.items.is_empty())
    }

    async fn completed(&self, guid: &str) -> Result<()> {
        let mut events = self.tasks.events();
        let definition = format!(
            r#"{{"task_guid":"{guid}","domain":"bench","rootfs":"preloaded:busybox",
                "action":{{"run":{{"path":"{TRUE}","user":"root"}}}}}}"#
        );
        let desired = read_json(definition.as_bytes(), &Default::default())?;
        self.tasks.desire(desired).await?;
        loop {
            if let TaskEvent::Changed { after, .. } = events.recv().await?
                && after.task_guid == guid
                && after.state == State::Completed
            {
                ensure!(!after.failed, "{guid}: {}", after.failure_reason);
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Variant for Diego {
    fn name(&self) -> &'static str {
        names::DIEGO
    }

    async fn end(&self) {
        self.tasks.close().await;
    }

    async fn run(&self, run: u64) -> Result<Timing> {
        let guid = format!("diego-{run}");
        let start = Instant::now();
        tokio::time::timeout(LIMIT, self.completed(&guid)).await??;
        let exit = start.elapsed();
        self.tasks.resolve(&guid).await?;
        self.tasks.delete(&guid).await?;
        // Its container is removed meanwhile.
        while self.is_removing().await? {
            ensure!(start.elapsed() < LIMIT, "the container of {guid} stays");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Timing {
            exit: Some(exit),
            gone: start.elapsed(),
            phases: Vec::new(),
        })
    }
}
