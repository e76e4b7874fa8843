//! A composition in one TOML file.
//!
//! ```toml
//! executor = "web"                       # id, or name in the first location that holds executors
//! create = { limits = { pids = 64 } }    # make the executor first when it is not there
//! leave = ["task://tasks/old"]           # unbound and taken out first
//!
//! [[join]]
//! id = "image://images/busybox"          # an image is the root file system
//!
//! [[join]]
//! id = "volume://volumes/data"
//! target = "/data"
//! access = "read-only"
//!
//! [[join]]
//! id = "network://node/lan"
//! egress = ["tcp:10.0.0.0/8:80,443", "udp:[fd00::/8]:53:log"]   # [] = nothing; left out = the network's default
//! publish = ["8080:80/tcp"]
//! dns = ["192.0.2.53"]
//!
//! [[join]]
//! id = "log://node/audit"                # output goes to every log that is joined, unless the task names one
//!
//! [[join]]
//! id = "task://tasks/hello"
//! task = { deadline_ms = 60000 }         # settings of its bind
//! ```

use portlayer::compose::{BindHow, JoinHow, TaskBind};
use portlayer::element::{ElementId, Kind};
use portlayer::store::Access;
use portlayer::task::{ExecutorSpec, Limits};
use serde::Deserialize;

use std::net::IpAddr;

use crate::cli::parse::{self, Names, NetworkFlags};
use portlayer_node::config::parse_size;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    executor: String,
    create: Option<ExecutorSpec>,
    #[serde(default)]
    leave: Vec<String>,
    #[serde(default)]
    join: Vec<Join>,
    limits: Option<Limits>,
    /// Bind everything that is joined.
    #[serde(default = "yes")]
    bind: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    id: String,
    target: Option<String>,
    #[serde(default = "read_write")]
    access: Access,
    sub_path: Option<String>,
    #[serde(default)]
    copy_up: bool,
    tmpfs: Option<String>,
    /// Of a network: what may be reached, as on the command line; `[]` = nothing.
    egress: Option<Vec<String>>,
    /// Of a network: published ports, as on the command line.
    #[serde(default)]
    publish: Vec<String>,
    /// Of a network: resolvers instead of its own.
    #[serde(default)]
    dns: Vec<IpAddr>,
    task: Option<TaskBind>,
    #[serde(default = "yes")]
    bind: bool,
}

const fn yes() -> bool {
    true
}

const fn read_write() -> Access {
    Access::ReadWrite
}

/// What the file asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The executor.
    pub(crate) executor: ElementId,
    /// Make it with this spec when it is not there.
    pub(crate) create: Option<ExecutorSpec>,
    /// Edits, in order.
    pub(crate) edits: Vec<Edit>,
}

/// One edit of a handle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    Join(ElementId, JoinHow),
    Bind(Option<ElementId>, BindHow),
    Unbind(Option<ElementId>),
    Leave(ElementId),
}

/// Reads a file. Errors name the place in it.
pub(crate) fn read(text: &str, names: &Names) -> Result<Wanted, String> {
    let file: File =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let mut edits = Vec::new();
    for (at, text) in file.leave.iter().enumerate() {
        let id = parse::any(text).map_err(|rule| format!("leave[{at}]: {rule}"))?;
        edits.push(Edit::Unbind(Some(id.clone())));
        edits.push(Edit::Leave(id));
    }
    let mut binds = Vec::new();
    for (at, join) in file.join.into_iter().enumerate() {
        let place = |rule: String| format!("join[{at}]: {rule}");
        let id = parse::any(&join.id).map_err(place)?;
        if join.task.is_some() && id.kind() != Kind::Task {
            return Err(place(format!("{id} has no task settings")));
        }
        let network = NetworkFlags {
            no_egress: join.egress.as_ref().is_some_and(Vec::is_empty),
            egress: each("egress", join.egress.unwrap_or_default(), parse::egress)
                .map_err(place)?,
            publish: each("publish", join.publish, parse::publish).map_err(place)?,
            dns: join.dns,
        };
        let how = RoleFlags {
            network,
            target: join.target,
            read_only: join.access == Access::ReadOnly,
            sub_path: join.sub_path,
            copy_up: join.copy_up,
            tmpfs: join
                .tmpfs
                .as_deref()
                .map(parse_size)
                .transpose()
                .map_err(|e| place(e.to_string()))?,
        }
        .role(&id)
        .map_err(place)?;
        if file.bind && join.bind {
            let how = join.task.map_or(BindHow::Plain, BindHow::Task);
            binds.push(Edit::Bind(Some(id.clone()), how));
        }
        edits.push(Edit::Join(id, how));
    }
    let executor = names
        .of_kind(Kind::Executor, &file.executor)
        .map_err(|rule| format!("executor: {rule}"))?;
    edits.extend(binds);
    if let Some(limits) = file.limits {
        edits.push(Edit::Bind(
            Some(executor.clone()),
            BindHow::Executor(limits),
        ));
    }
    Ok(Wanted {
        executor,
        create: file.create,
        edits,
    })
}

/// Reads each text of a list. Error: which one, and what it breaks.
fn each<T>(
    field: &str,
    texts: Vec<String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let texts = texts.iter().enumerate();
    texts
        .map(|(at, text)| read(text).map_err(|rule| format!("{field}[{at}]: {rule}")))
        .collect()
}

/// The role an element is joined in, as flags or fields say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RoleFlags {
    pub(crate) network: NetworkFlags,
    pub(crate) target: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) sub_path: Option<String>,
    pub(crate) copy_up: bool,
    pub(crate) tmpfs: Option<u64>,
}

impl RoleFlags {
    /// The role for an element of this kind. Error: what does not fit it.
    pub(crate) fn role(self, id: &ElementId) -> Result<JoinHow, String> {
        let access = if self.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let volume_only = self.sub_path.is_some() || self.copy_up || self.tmpfs.is_some();
        let kind = id.kind();
        if kind != Kind::Network && !self.network.is_empty() {
            return Err(format!("{id}: egress, publish and dns are for networks"));
        }
        match kind {
            Kind::Image if volume_only => {
                Err(format!("{id}: sub path, copy-up and tmpfs are for volumes"))
            }
            Kind::Image => Ok(JoinHow::Image {
                target: self.target.unwrap_or_else(|| "/".to_owned()),
                access,
            }),
            Kind::Volume => Ok(JoinHow::Volume {
                target: self
                    .target
                    .ok_or_else(|| format!("{id}: a target is needed"))?,
                access,
                sub_path: self.sub_path,
                copy_up: self.copy_up,
                tmpfs_bytes: self.tmpfs,
            }),
            Kind::Executor => Err(format!("{id}: an executor is opened, not joined")),
            Kind::Task | Kind::Network | Kind::Log => {
                if self.target.is_some() || self.read_only || volume_only {
                    return Err(format!("{id}: a {kind} has no place in the file system"));
                }
                Ok(match kind {
                    Kind::Task => JoinHow::Task,
                    Kind::Network => JoinHow::Network(self.network.wanted()?),
                    _ => JoinHow::Log,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer_node::config::Config;

    fn wanted(text: &str) -> Result<Wanted, String> {
        read(text, &Names::of_config(&Config::new("/x")))
    }

    #[test]
    fn a_file_becomes_edits_in_order() {
        let wanted = wanted(
            r#"
            executor = "web"
            create = { limits = { pids = 64 } }
            leave = ["task://tasks/old"]
            [[join]]
            id = "image://images/busybox"
            access = "read-only"
            [[join]]
            id = "volume://volumes/data"
            target = "/data"
            bind = false
            [[join]]
            id = "task://tasks/hello"
            task = { deadline_ms = 60000 }
            "#,
        )
        .unwrap();
        let id = |text: &str| text.parse::<ElementId>().unwrap();
        assert_eq!(wanted.executor, id("executor://executors/web"));
        assert_eq!(wanted.create.unwrap().limits.pids, Some(64));
        let task = BindHow::Task(TaskBind {
            deadline_ms: Some(60_000),
            ..TaskBind::default()
        });
        assert_eq!(
            wanted.edits,
            [
                Edit::Unbind(Some(id("task://tasks/old"))),
                Edit::Leave(id("task://tasks/old")),
                Edit::Join(id("image://images/busybox"), JoinHow::read_only_root()),
                Edit::Join(id("volume://volumes/data"), JoinHow::volume("/data")),
                Edit::Join(id("task://tasks/hello"), JoinHow::Task),
                Edit::Bind(Some(id("image://images/busybox")), BindHow::Plain),
                Edit::Bind(Some(id("task://tasks/hello")), task),
            ]
        );
    }

    #[test]
    fn faults_name_their_place() {
        for (text, place) in [
            ("", "executor"),
            ("executor = 'image://images/x'", "executor:"),
            ("executor = 'x'\ncolour = 1", "colour"),
            ("executor = 'x'\n[[join]]\nid = 'busybox'", "join[0]"),
            (
                "executor = 'x'\n[[join]]\nid = 'volume://volumes/v'",
                "join[0]: volume://volumes/v: a target",
            ),
            (
                "executor = 'x'\n[[join]]\nid = 'task://tasks/t'\ntarget = '/x'",
                "join[0]",
            ),
            (
                "executor = 'x'\n[[join]]\nid = 'image://images/i'\ntask = {}",
                "join[0]",
            ),
            (
                "executor = 'x'\n[[join]]\nid = 'image://images/i'\ncopy_up = true",
                "join[0]",
            ),
            (
                "executor = 'x'\n[[join]]\nid = 'volume://scratch/v'\ntarget = '/x'\ntmpfs = 'big'",
                "join[0]",
            ),
            (
                "executor = 'x'\n[[join]]\nid = 'executor://executors/y'",
                "join[0]",
            ),
            ("executor = 'x'\nleave = ['y']", "leave[0]"),
        ] {
            let error = wanted(text).unwrap_err();
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
