//! The effective security profile of an executor: read off the very documents its containers are made from, so that what is
//! shown is what runs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CommitError, Handle, oci, seccomp};
use crate::PortLayer;
use crate::element::ElementId;
use crate::runtime::IdRange;

/// What keeps an executor apart from the host. See [`PortLayer::security`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// The executor.
    pub executor: ElementId,
    /// Asked to be close to the host: no filter, no masks, every device.
    pub privileged: bool,
    /// Has user ids of its own; which ones is decided at its first start.
    pub own_users: bool,
    /// The host's ids that stand for its own, from 0.
    pub ids: Option<IdRange>,
    /// Name spaces of its own, by kind.
    pub namespaces: Vec<String>,
    /// Capabilities its processes can have at most.
    pub capabilities: Vec<String>,
    /// Set-id programs gain nothing.
    pub no_new_privileges: bool,
    /// The filter of system calls; `None` = none.
    pub seccomp: Option<Seccomp>,
    /// The AppArmor profile; `None` = none.
    pub apparmor: Option<String>,
    /// Places that show nothing.
    pub masked_paths: Vec<String>,
    /// Places that cannot be written.
    pub read_only_paths: Vec<String>,
    /// Device nodes: `default` (null, zero, full, random, urandom, tty, ptmx) or `all`.
    pub devices: Cow<'static, str>,
    /// Kernel settings of its name spaces.
    pub sysctls: BTreeMap<String, String>,
    /// Limits as the OCI runtime gets them, without devices.
    pub limits: Value,
    /// Bound tasks.
    pub tasks: BTreeMap<ElementId, TaskSecurity>,
}

/// The filter of system calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Version of our list.
    pub version: u32,
    /// How many calls are allowed whatever their arguments.
    pub allowed: usize,
    /// Instruction sets whose programs can run, as libseccomp names them; empty = the machine's own.
    pub architectures: Vec<Cow<'static, str>>,
    /// What every call gets that is not allowed.
    pub otherwise: Cow<'static, str>,
}

/// What one task has of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSecurity {
    /// Its user as it was asked for; empty = 0:0.
    pub user: String,
    /// Capabilities it starts with.
    pub capabilities: Vec<String>,
    /// Limits of the process: soft and hard by name.
    pub rlimits: BTreeMap<String, (u64, u64)>,
}

impl PortLayer {
    /// The security profile an executor has as it is committed now. Changes nothing. Errors: as a commit of nothing.
    pub async fn security(&self, executor: &ElementId) -> Result<Security, CommitError> {
        let node = &self.shared.composer.node;
        let (record, _) = node.executor(executor)?;
        let handle = Handle {
            executor: executor.clone(),
            revision: record.revision,
            ops: Vec::new(),
        };
        let resolved = node.prepare(&handle)?.resolved;
        let isolation = &resolved.spec.isolation;
        let mut limits = BTreeMap::new();
        let ids = node.ids(executor, isolation)?;
        let document = to_json(&oci::spec(executor, &resolved, &node.host, ids));
        if let Some(resources) = document
            .pointer("/linux/resources")
            .and_then(Value::as_object)
        {
            let kept = resources.iter().filter(|(name, _)| *name != "devices");
            limits.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        }
        let bounding = super::capabilities::bounding(isolation, node.host.isolation.capabilities);
        let tasks = resolved.tasks.iter().map(|(id, task)| {
            let process = to_json(&oci::process(task, isolation, &node.host));
            let security = TaskSecurity {
                user: task.user.clone(),
                capabilities: texts(&process, "/capabilities/effective"),
                rlimits: rlimits(&process),
            };
            (id.clone(), security)
        });
        let filtered = document.pointer("/linux/seccomp").is_some();
        Ok(Security {
            executor: executor.clone(),
            privileged: isolation.privileged,
            own_users: isolation.own_users(),
            ids,
            namespaces: fields(&document, "/linux/namespaces", "type"),
            no_new_privileges: !isolation.allow_new_privileges && !isolation.privileged,
            seccomp: filtered.then(|| Seccomp {
                version: seccomp::VERSION,
                allowed: seccomp::allowed(&bounding).len(),
                architectures: seccomp::architectures(isolation)
                    .iter()
                    .map(|name| Cow::Borrowed(*name))
                    .collect(),
                otherwise: "EPERM".into(),
            }),
            apparmor: node
                .host
                .isolation
                .apparmor
                .clone()
                .filter(|_| !isolation.privileged),
            masked_paths: texts(&document, "/linux/maskedPaths"),
            read_only_paths: texts(&document, "/linux/readonlyPaths"),
            devices: if isolation.privileged {
                "all"
            } else {
                "default"
            }
            .into(),
            sysctls: document
                .pointer("/linux/sysctl")
                .and_then(|value| serde_json::from_value(value.clone()).ok())
                .unwrap_or_default(),
            limits: limits.into_iter().collect(),
            tasks: tasks.collect(),
            capabilities: bounding.into_iter().map(str::to_owned).collect(),
        })
    }
}

fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("the document was made from JSON")
}

fn texts(document: &Value, pointer: &str) -> Vec<String> {
    let list = document.pointer(pointer).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn fields(document: &Value, pointer: &str, field: &str) -> Vec<String> {
    let list = document.pointer(pointer).and_then(Value::as_array);
    let values = list
        .into_iter()
        .flatten()
        .filter_map(|entry| entry[field].as_str());
    values.map(str::to_owned).collect()
}

fn rlimits(process: &Value) -> BTreeMap<String, (u64, u64)> {
    let list = process["rlimits"].as_array().into_iter().flatten();
    list.filter_map(|limit| {
        let name = limit["type"].as_str()?.strip_prefix("RLIMIT_")?;
        let bounds = (limit["soft"].as_u64()?, limit["hard"].as_u64()?);
        Some((name.to_lowercase(), bounds))
    })
    .collect()
}
