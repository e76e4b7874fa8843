//! `portlayer compose`: step by step over a handle in a file or pipe, or at once from a TOML file.

mod apply;
mod file;
mod show;
mod token;

use clap::{Args, Subcommand};
use portlayer::compose::{BindHow, Handle, TaskBind};
use portlayer::element::{ElementId, Kind};
use portlayer_client::Client;

use super::context::{Context, usage};
use super::failure::{Exit, Failure, Outcome};
use super::output::OutputArgs;
use super::parse::{self, NetworkFlags};
use super::task_flags::ExecutorFlags;
pub(crate) use file::{Edit, RoleFlags};

/// Put elements together into a running container
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Open a handle on an executor and write it to standard output, or to the file of -H
    Open {
        /// The executor
        executor: String,
        /// Where the handle goes
        #[arg(short = 'H', long, value_name = "FILE", default_value = "-")]
        handle: String,
    },
    /// An element takes part: an image as the root, a volume at a target, a task, a network, a log
    Join {
        #[command(flatten)]
        handle: HandleArg,
        /// The element
        id: String,
        #[command(flatten)]
        role: RoleArgs,
    },
    /// Activate what takes part: mount volumes, run tasks. Without ID everything
    Bind {
        #[command(flatten)]
        handle: HandleArg,
        /// The element; the executor's own id sets its limits
        id: Option<String>,
        #[command(flatten)]
        task: BindArgs,
        #[command(flatten)]
        limits: ExecutorFlags,
    },
    /// Deactivate what is bound; a task is stopped in stages. Without ID everything
    Unbind {
        #[command(flatten)]
        handle: HandleArg,
        /// The element
        id: Option<String>,
    },
    /// An element takes part no longer
    Leave {
        #[command(flatten)]
        handle: HandleArg,
        /// The element
        id: String,
    },
    /// Show what commit would do, step by step
    Plan {
        #[command(flatten)]
        handle: HandleArg,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make it so
    Commit {
        #[command(flatten)]
        handle: HandleArg,
        /// Only show what it would do
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the edits of a handle
    Show {
        #[command(flatten)]
        handle: HandleArg,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Open, edit and commit at once, from a TOML file
    Apply(apply::ApplyArgs),
}

#[derive(Debug, Args)]
struct HandleArg {
    /// The handle: a file that is edited in place, or - for a pipe
    #[arg(short = 'H', long, value_name = "FILE", default_value = "-")]
    handle: String,
}

#[derive(Debug, Args)]
struct RoleArgs {
    /// At / (what an image does anyway)
    #[arg(long, conflicts_with = "target")]
    root: bool,
    /// Absolute path inside
    #[arg(long, value_name = "PATH")]
    target: Option<String>,
    /// Read-only
    #[arg(long, visible_alias = "ro")]
    read_only: bool,
    /// A directory below the volume's root instead of it
    #[arg(long, value_name = "DIR")]
    sub_path: Option<String>,
    /// Fill an empty volume with what the image has at the target
    #[arg(long)]
    copy_up: bool,
    /// A fresh tmpfs of at most this size instead of the volume's bytes (0 = default size)
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    tmpfs: Option<u64>,
    #[command(flatten)]
    network: NetworkFlags,
}

#[derive(Debug, Default, PartialEq, Args)]
struct BindArgs {
    /// Working directory of the task
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User of the task
    #[arg(short, long)]
    user: Option<String>,
    /// Time the task may run
    #[arg(long, visible_alias = "timeout", value_name = "TIME", value_parser = parse::duration)]
    deadline: Option<std::time::Duration>,
}

impl BindArgs {
    fn bind(self) -> TaskBind {
        TaskBind {
            cwd: self.workdir,
            user: self.user,
            deadline_ms: self
                .deadline
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            ..TaskBind::default()
        }
    }
}

pub(crate) async fn run(args: ComposeArgs, context: &Context) -> Outcome {
    match args.verb {
        Verb::Open { executor, handle } => {
            let names = context.names().await?;
            let executor = usage(names.of_kind(Kind::Executor, &executor))?;
            let mut opened = None;
            context
                .with_client(async |client| {
                    opened = Some(client.compose(&executor).await?);
                    Ok(Exit::OK)
                })
                .await?;
            // Written when the node is closed, so that the next command of a pipe can open it.
            opened.map_or(Ok(()), |opened| token::write(&handle, &opened))?;
            Ok(Exit::OK)
        }
        Verb::Join { handle, id, role } => {
            let id = usage(parse::any(&id))?;
            let flags = RoleFlags {
                network: role.network,
                target: role.root.then(|| "/".to_owned()).or(role.target),
                read_only: role.read_only,
                sub_path: role.sub_path,
                copy_up: role.copy_up,
                tmpfs: role.tmpfs,
            };
            let how = usage(flags.role(&id))?;
            edit(&handle.handle, Edit::Join(id, how), context).await
        }
        Verb::Bind {
            handle,
            id,
            task,
            limits,
        } => {
            let id = id.map(|text| usage(parse::any(&text))).transpose()?;
            let how = bind_how(id.as_ref(), task, &limits)?;
            edit(&handle.handle, Edit::Bind(id, how), context).await
        }
        Verb::Unbind { handle, id } => {
            let id = id.map(|text| usage(parse::any(&text))).transpose()?;
            edit(&handle.handle, Edit::Unbind(id), context).await
        }
        Verb::Leave { handle, id } => {
            let id = usage(parse::any(&id))?;
            edit(&handle.handle, Edit::Leave(id), context).await
        }
        Verb::Plan { handle, output } => commit(&handle.handle, true, output, context).await,
        Verb::Commit {
            handle,
            plan,
            output,
        } => commit(&handle.handle, plan, output, context).await,
        Verb::Show { handle, output } => {
            let handle = token::read(&handle.handle)?;
            show::handle(&handle, context.out(output))?;
            Ok(Exit::OK)
        }
        Verb::Apply(args) => apply::run(args, context).await,
    }
}

/// The settings of a bind; those of a task and limits of an executor do not mix.
fn bind_how(
    id: Option<&ElementId>,
    task: BindArgs,
    limits: &ExecutorFlags,
) -> Result<BindHow, Failure> {
    let limits = limits.limits();
    let has_limits = limits != portlayer::task::Limits::default();
    let has_task = task != BindArgs::default();
    match id.map(ElementId::kind) {
        Some(Kind::Executor) if !has_task => Ok(BindHow::Executor(limits)),
        Some(Kind::Task) if has_task && !has_limits => Ok(BindHow::Task(task.bind())),
        _ if has_task || has_limits => Err(Failure::usage(
            "--workdir, --user and --deadline are for a task, limits are for the executor's own id",
        )),
        _ => Ok(BindHow::Plain),
    }
}

/// Makes one edit of a handle.
pub(crate) async fn apply_edit(
    client: &Client,
    handle: Handle,
    edit: Edit,
) -> Result<Handle, Failure> {
    Ok(match edit {
        Edit::Join(id, how) => client.join(handle, &id, how).await,
        Edit::Bind(id, how) => client.bind(handle, id.as_ref(), how).await,
        Edit::Unbind(id) => client.unbind(handle, id.as_ref()).await,
        Edit::Leave(id) => client.leave(handle, &id).await,
    }?)
}

async fn edit(place: &str, edit: Edit, context: &Context) -> Outcome {
    let before = token::read(place)?;
    let mut after = None;
    context
        .with_client(async |client| {
            after = Some(apply_edit(client, before, edit).await?);
            Ok(Exit::OK)
        })
        .await?;
    after.map_or(Ok(()), |after| token::write(place, &after))?;
    Ok(Exit::OK)
}

async fn commit(place: &str, only_plan: bool, output: OutputArgs, context: &Context) -> Outcome {
    let handle = token::read(place)?;
    let out = context.out(output);
    context
        .with_client(async |client| {
            if only_plan {
                let plan = client.plan(&handle).await?;
                show::plan(&plan, out)?;
                return Ok(Exit::OK);
            }
            let result = client.commit(handle).await?;
            show::result(&result, out)
        })
        .await
}
