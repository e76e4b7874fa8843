//! The whole of a wanted composition checked before anything is touched, and resolved into what is to be made.
//! Pure: everything it needs of the ledger and the locations is handed in.

use std::collections::BTreeMap;

use super::draft::Draft;
use super::fields as roles;
use super::output::Outputs;
use super::{CommitError, Composition, JoinHow, Joined, Role, TaskBind};
use crate::element::fields::{self, FieldError};
use crate::element::{Body, ElementId, Record, StoreKeys, builtin};
use crate::network::{self, Allow, EgressDefault, NetworkLease, NetworkSpec, NetworkUse};
use crate::store::Access;
use crate::task::{
    ExecutorSpec, ImageDefaults, Interaction, Limits, LogChoice, RestartPolicy, Rlimit, Secret,
    TaskSpec,
};

/// A checked composition in the terms of the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// The executor's own settings, with the limits that hold.
    pub(crate) spec: ExecutorSpec,
    /// The root; `None` only when no task is bound.
    pub(crate) root: Option<Root>,
    /// Bound volumes, parents before children.
    pub(crate) volumes: Vec<VolumeUse>,
    /// Use the host's network name space; otherwise a fresh one with only a loopback.
    pub(crate) host_network: bool,
    /// A bridge to be connected to.
    pub(crate) bridge: Option<Box<Bridge>>,
    /// Bound tasks with everything filled in.
    pub(crate) tasks: BTreeMap<ElementId, EffectiveTask>,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Root {
    /// The image.
    pub(crate) id: ElementId,
    /// Its store's keys; `None` = empty root.
    pub(crate) keys: Option<StoreKeys>,
    /// What it says about running it.
    pub(crate) defaults: ImageDefaults,
    /// Writable or not.
    pub(crate) access: Access,
}

/// A bound bridge network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bridge {
    /// The network.
    pub(crate) id: ElementId,
    /// As configured.
    pub(crate) spec: NetworkSpec,
    /// What the executor asks of it.
    pub(crate) wanted: NetworkUse,
    /// What it may reach, checked; `None` = all that is not closed.
    pub(crate) egress: Option<Vec<Allow>>,
    /// Its addresses and ports; `None` until a start claims them.
    pub(crate) lease: Option<NetworkLease>,
}

/// A bound volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VolumeUse {
    /// Its record, for its store.
    pub(crate) record: Record,
    /// Where.
    pub(crate) target: String,
    /// Writable or not.
    pub(crate) access: Access,
    /// Directory of it.
    pub(crate) sub_path: Option<String>,
    /// Fill it from the root first.
    pub(crate) copy_up: bool,
    /// A fresh tmpfs instead of its bytes.
    pub(crate) tmpfs_bytes: Option<u64>,
}

/// What is run: definition, bind settings and image defaults as one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EffectiveTask {
    /// Program and arguments, paths resolved; not empty.
    pub(crate) argv: Vec<String>,
    /// Image's and task's environment, in order; secrets are apart.
    pub(crate) env: Vec<(String, String)>,
    /// Secret variables.
    pub(crate) secrets: Vec<Secret>,
    /// Working directory.
    pub(crate) cwd: String,
    /// User text; empty = 0:0.
    pub(crate) user: String,
    /// Further groups.
    pub(crate) extra_gids: Vec<u32>,
    /// With a terminal.
    pub(crate) terminal: bool,
    /// Who may talk to it.
    pub(crate) interaction: Interaction,
    /// Standard output.
    pub(crate) stdout: LogChoice,
    /// Standard error.
    pub(crate) stderr: LogChoice,
    /// The logs they go to.
    pub(crate) outputs: Outputs,
    /// Limits of the process.
    pub(crate) rlimits: Vec<Rlimit>,
    /// Deadline in milliseconds.
    pub(crate) deadline_ms: Option<u64>,
    /// First signal of a staged stop.
    pub(crate) stop_signal: i32,
    /// Milliseconds until SIGKILL.
    pub(crate) grace_ms: u64,
    /// What happens when it ends.
    pub(crate) restart: RestartPolicy,
}

/// What validation reads: the executor and the records of everything joined but tasks.
pub(crate) struct Facts<'a> {
    /// The executor.
    pub(crate) executor: &'a ElementId,
    /// Its spec.
    pub(crate) spec: &'a ExecutorSpec,
    /// Records by id.
    pub(crate) records: &'a BTreeMap<ElementId, Record>,
    /// Bridge networks of the node.
    pub(crate) networks: &'a BTreeMap<ElementId, NetworkSpec>,
}

/// Checks `draft` as a whole. Errors name element, field and rule; nothing was touched.
pub(crate) fn validate(facts: &Facts<'_>, draft: &Draft) -> Result<Resolved, CommitError> {
    let wanted = &draft.wanted;
    let mut spec = facts.spec.clone();
    fields::check_executor(&spec).map_err(|error| facts.invalid(facts.executor, error))?;
    if let Some(limits) = &wanted.limits {
        fields::check_limits("limits", limits)
            .map_err(|error| facts.invalid(facts.executor, error))?;
        spec.limits = merged(limits, &spec.limits);
        // Each may be in order by itself and not with what it does not set.
        fields::check_limits("limits", &spec.limits)
            .map_err(|error| facts.invalid(facts.executor, error))?;
    }
    let root = root(facts, wanted)?;
    let volumes = volumes(facts, wanted)?;
    let (host_network, bridge) = network(facts, wanted)?;
    let mut tasks = BTreeMap::new();
    for (id, joined) in &wanted.joined {
        let Role::Task {
            spec, owner, bind, ..
        } = &joined.role
        else {
            continue;
        };
        if !joined.bound {
            continue;
        }
        let Some(root) = &root else {
            return Err(no_root(facts, wanted, id));
        };
        let defaults = &root.defaults;
        let task = Task {
            facts,
            wanted,
            id,
            spec,
            owner,
            bind,
            defaults,
        };
        tasks.insert(id.clone(), task.effective()?);
    }
    Ok(Resolved {
        spec,
        root,
        volumes,
        host_network,
        bridge,
        tasks,
    })
}

fn merged(set: &Limits, spec: &Limits) -> Limits {
    Limits {
        memory_bytes: set.memory_bytes.or(spec.memory_bytes),
        memory_swap_bytes: set.memory_swap_bytes.or(spec.memory_swap_bytes),
        cpu_shares: set.cpu_shares.or(spec.cpu_shares),
        cpu_quota_us: set.cpu_quota_us.or(spec.cpu_quota_us),
        pids: set.pids.or(spec.pids),
        disk_bytes: set.disk_bytes.or(spec.disk_bytes),
        disk_inodes: set.disk_inodes.or(spec.disk_inodes),
    }
}

fn no_root(facts: &Facts<'_>, wanted: &Composition, task: &ElementId) -> CommitError {
    let joined = wanted.joined.iter().find(|(_, joined)| is_image(joined));
    match joined {
        // Joined at / and not bound: it provides nothing yet.
        Some((image, _)) => facts.unresolved(task, format!("{image} to be bound at /")),
        None => CommitError::NoRoot {
            executor: facts.executor.clone(),
            task: task.clone(),
        },
    }
}

fn is_image(joined: &Joined) -> bool {
    matches!(joined.role, Role::Part(JoinHow::Image { .. }))
}

fn root(facts: &Facts<'_>, wanted: &Composition) -> Result<Option<Root>, CommitError> {
    for (id, joined) in &wanted.joined {
        let Role::Part(how @ JoinHow::Image { access, .. }) = &joined.role else {
            continue;
        };
        roles::check_join(how).map_err(|error| facts.invalid(id, error))?;
        if !joined.bound {
            continue;
        }
        let (keys, defaults) = match builtin::is_scratch(id) {
            true => (None, ImageDefaults::default()),
            false => match &facts.record(id)?.body {
                Body::Image(body) => (Some(body.keys.clone()), body.defaults.clone()),
                _ => return Err(facts.unresolved(id, "to be stored as an image")),
            },
        };
        return Ok(Some(Root {
            id: id.clone(),
            keys,
            defaults,
            access: *access,
        }));
    }
    Ok(None)
}

fn volumes(facts: &Facts<'_>, wanted: &Composition) -> Result<Vec<VolumeUse>, CommitError> {
    let mut volumes: Vec<VolumeUse> = Vec::new();
    let mut targets: BTreeMap<&str, &ElementId> = BTreeMap::new();
    for (id, joined) in &wanted.joined {
        let Role::Part(
            how @ JoinHow::Volume {
                target,
                access,
                sub_path,
                copy_up,
                tmpfs_bytes,
            },
        ) = &joined.role
        else {
            continue;
        };
        roles::check_join(how).map_err(|error| facts.invalid(id, error))?;
        if let Some(other) = targets.insert(target, id) {
            let rule = format!("{other} has the same target");
            let field = "target".to_owned();
            return Err(facts.invalid(id, FieldError { field, rule }));
        }
        if joined.bound {
            volumes.push(VolumeUse {
                record: facts.record(id)?.clone(),
                target: target.clone(),
                access: *access,
                sub_path: sub_path.clone(),
                copy_up: *copy_up,
                tmpfs_bytes: *tmpfs_bytes,
            });
        }
    }
    // Shorter paths first: a parent is always shorter than its child. The OCI runtime mounts in list order and
    // would otherwise hide the child.
    volumes.sort_by(|a, b| (depth(&a.target), &a.target).cmp(&(depth(&b.target), &b.target)));
    Ok(volumes)
}

fn depth(path: &str) -> usize {
    path.matches('/').count()
}

fn network(
    facts: &Facts<'_>,
    wanted: &Composition,
) -> Result<(bool, Option<Box<Bridge>>), CommitError> {
    for (id, joined) in &wanted.joined {
        let Role::Part(how @ JoinHow::Network(asked)) = &joined.role else {
            continue;
        };
        roles::check_join(how).map_err(|error| facts.invalid(id, error))?;
        let refuse = |field: &str, rule: &str| {
            let (field, rule) = (field.to_owned(), rule.to_owned());
            Err(facts.invalid(id, FieldError { field, rule }))
        };
        if let Some(spec) = facts.networks.get(id) {
            if !joined.bound {
                continue;
            }
            let egress = match (&asked.egress, spec.egress) {
                (Some(rules), _) => Some(
                    network::compile("egress", rules)
                        .map_err(|error| facts.invalid(id, error.into()))?,
                ),
                (None, EgressDefault::Deny) => Some(Vec::new()),
                (None, EgressDefault::Allow) => None,
            };
            let bridge = Bridge {
                id: id.clone(),
                spec: spec.clone(),
                wanted: asked.clone(),
                egress,
                lease: wanted.lease.clone(),
            };
            return Ok((false, Some(Box::new(bridge))));
        }
        let host = match id.as_str() {
            builtin::HOST_NETWORK => true,
            builtin::NO_NETWORK => false,
            _ if !joined.bound => continue,
            _ => return Err(facts.unresolved(id, "a network this node has")),
        };
        // Nothing would hold to them.
        if asked.egress.is_some() {
            return refuse("egress", "only a bridge network has egress rules");
        }
        if !asked.ports.is_empty() {
            return refuse("ports", "only a bridge network publishes ports");
        }
        if !asked.dns.is_empty() {
            return refuse("dns", "only a bridge network has resolvers");
        }
        if joined.bound {
            return Ok((host, None));
        }
    }
    Ok((false, None))
}

impl Facts<'_> {
    pub(super) fn record(&self, id: &ElementId) -> Result<&Record, CommitError> {
        self.records
            .get(id)
            .ok_or_else(|| self.unresolved(id, "to exist"))
    }

    fn invalid(&self, element: &ElementId, error: FieldError) -> CommitError {
        CommitError::Invalid {
            executor: self.executor.clone(),
            element: element.clone(),
            field: error.field,
            rule: error.rule,
        }
    }

    pub(super) fn unresolved(
        &self,
        element: &ElementId,
        requirement: impl Into<String>,
    ) -> CommitError {
        CommitError::UnresolvedRequirement {
            executor: self.executor.clone(),
            element: element.clone(),
            requirement: requirement.into(),
        }
    }
}

pub(super) struct Task<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) wanted: &'a Composition,
    pub(super) id: &'a ElementId,
    pub(super) spec: &'a TaskSpec,
    owner: &'a Option<ElementId>,
    bind: &'a TaskBind,
    defaults: &'a ImageDefaults,
}

impl Task<'_> {
    fn effective(&self) -> Result<EffectiveTask, CommitError> {
        let Task {
            spec,
            bind,
            defaults,
            ..
        } = self;
        fields::check_task(spec).map_err(|error| self.invalid(error))?;
        roles::check_bind(bind).map_err(|error| self.invalid(error))?;
        let base = self.base()?;
        let mut argv = match spec.argv.is_empty() {
            true => [defaults.entrypoint.as_slice(), defaults.cmd.as_slice()].concat(),
            false => spec.argv.clone(),
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(self.refuse("argv", "empty, and the image names no program"));
        }
        if let (Some(base), false) = (&base, spec.argv.is_empty()) {
            argv[0] = self.below(base, "argv[0]", &argv[0])?;
        }
        let given = bind.cwd.as_ref().or(spec.cwd.as_ref());
        let cwd = match (given, &base) {
            (Some(cwd), Some(base)) => self.below(base, "cwd", cwd)?,
            (Some(cwd), None) => cwd.clone(),
            (None, _) => match defaults.cwd.as_deref() {
                // An image's own text: what is no absolute path means the root, as other engines do it.
                Some(cwd) if cwd.starts_with('/') => cwd.to_owned(),
                _ => "/".to_owned(),
            },
        };
        let stop = bind.stop.as_ref().unwrap_or(&spec.stop);
        let mut outputs = Outputs::default();
        let stdout = bind.stdout.as_ref().unwrap_or(&spec.stdout);
        let stdout = self.stream("stdout", stdout, &mut outputs)?;
        let stderr = bind.stderr.as_ref().unwrap_or(&spec.stderr);
        let stderr = match spec.terminal {
            // Everything comes as standard output.
            true => stderr.clone(),
            false => self.stream("stderr", stderr, &mut outputs)?,
        };
        let mut env = defaults.env.clone();
        env.extend(spec.env.iter().cloned());
        Ok(EffectiveTask {
            argv,
            env,
            secrets: spec.secrets.clone(),
            cwd,
            user: bind
                .user
                .clone()
                .or(spec.user.clone())
                .or(defaults.user.clone())
                .unwrap_or_default(),
            extra_gids: spec.extra_gids.clone(),
            terminal: spec.terminal,
            interaction: spec.interaction,
            stdout,
            stderr,
            outputs,
            rlimits: spec.rlimits.clone(),
            deadline_ms: bind.deadline_ms.or(spec.deadline_ms),
            stop_signal: stop.signal.or(defaults.stop_signal).unwrap_or(15),
            grace_ms: stop.grace_ms,
            restart: bind.restart.clone().unwrap_or_else(|| spec.restart.clone()),
        })
    }

    /// Where the storage a task is stored with is mounted.
    fn base(&self) -> Result<Option<String>, CommitError> {
        let Some(owner) = self.owner else {
            return Ok(None);
        };
        let required = || {
            self.facts.unresolved(
                self.id,
                format!("{owner}, which it is stored with, to be bound"),
            )
        };
        let joined = self
            .wanted
            .joined
            .get(owner)
            .filter(|joined| joined.bound)
            .ok_or_else(required)?;
        match &joined.role {
            Role::Part(JoinHow::Image { target, .. } | JoinHow::Volume { target, .. }) => {
                Ok(Some(target.clone()))
            }
            _ => Err(required()),
        }
    }

    /// An absolute path of the task below `base`. Dot segments are refused, so text is enough here; links are the
    /// kernel's to follow inside the container.
    fn below(&self, base: &str, field: &str, path: &str) -> Result<String, CommitError> {
        roles::check_absolute(field, path).map_err(|error| self.invalid(error))?;
        Ok(match (base, path) {
            ("/", path) => path.to_owned(),
            (base, "/") => base.to_owned(),
            (base, path) => format!("{base}{path}"),
        })
    }

    fn refuse(&self, field: &str, rule: &str) -> CommitError {
        self.invalid(FieldError {
            field: field.to_owned(),
            rule: rule.to_owned(),
        })
    }

    fn invalid(&self, error: FieldError) -> CommitError {
        self.facts.invalid(self.id, error)
    }
}
