//! The OCI documents of two specs alone, for fuzzing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::Host;
use super::oci;
use super::output::Outputs;
use super::validate::{EffectiveTask, Resolved};
use crate::element::{ElementId, Kind, Spec, fields};
use crate::runtime::HostIsolation;
use crate::task::{ExecutorSpec, TaskSpec};

/// The container's and the process's document of specs that the checks of fields let through; `None` when they do not, or when
/// no program is named.
///
/// # Panics
/// When checked specs have no documents: that is what is looked for.
pub fn documents(
    executor: &ExecutorSpec,
    task: &TaskSpec,
    cgroup2: bool,
) -> Option<(Value, Value)> {
    let id = ElementId::new(Kind::Executor, "executors", "fuzz").ok()?;
    fields::check(&id, &Spec::Executor(Box::new(executor.clone()))).ok()?;
    fields::check(&id, &Spec::Task(Box::new(task.clone()))).ok()?;
    task.argv.first().filter(|program| !program.is_empty())?;
    let host = Host {
        cgroup2,
        isolation: HostIsolation {
            capabilities: u64::MAX,
            ..HostIsolation::default()
        },
    };
    let resolved = Resolved {
        spec: executor.clone(),
        root: None,
        volumes: Vec::new(),
        host_network: false,
        bridge: None,
        tasks: BTreeMap::new(),
    };
    let effective = EffectiveTask {
        argv: task.argv.clone(),
        env: task.env.clone(),
        secrets: task.secrets.clone(),
        cwd: task.cwd.clone().unwrap_or_else(|| "/".to_owned()),
        user: task.user.clone().unwrap_or_default(),
        extra_gids: task.extra_gids.clone(),
        terminal: task.terminal,
        interaction: task.interaction,
        stdout: task.stdout.clone(),
        stderr: task.stderr.clone(),
        outputs: Outputs::default(),
        rlimits: task.rlimits.clone(),
        deadline_ms: task.deadline_ms,
        stop_signal: 15,
        grace_ms: task.stop.grace_ms,
        restart: task.restart.clone(),
    };
    let container = oci::spec(&id, &resolved, &host, None);
    let process = oci::process(&effective, &executor.isolation, &host);
    let value = |document| serde_json::to_value(document).ok();
    Some((value(container)?, serde_json::to_value(process).ok()?))
}
