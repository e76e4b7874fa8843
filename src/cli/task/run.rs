//! `portlayer run`: one command in one container, from nothing to its exit code.

use std::path::{Path, PathBuf};

use clap::Args;
use portlayer::compose::{BindHow, JoinHow};
use portlayer::element::{ElementId, ImageSpec, Kind, NewElement, Spec, VolumeSpec};
use portlayer::network::NetworkUse;
use portlayer::task::ExitRecord;
use portlayer_client::Client;

use super::session::{Ended, Session};
use super::signals::Signals;
use super::start_failure;
use super::temporary::Temporary;
use crate::cli::context::{Context, usage};
use crate::cli::element::pull::{self, CredentialFlags};
use crate::cli::exit_code;
use crate::cli::failure::{Exit, Failure, OWN_FAILURE, Outcome};
use crate::cli::output::{self, Reporter};
use crate::cli::parse::{self, MountArg, Names, NetworkFlags};
use crate::cli::source;
use crate::cli::task_flags::{ExecutorFlags, TaskFlags};
use crate::cli::terminal::DetachKeys;

/// Run one command in a fresh container. The exit code is the command's: 124 when its deadline passed, 128+n when
/// signal n ended it, 127 and 126 when the program is missing or cannot be executed, 125 for failures of our own
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// An image's id or name, the path (with a /) of an OCI layout or archive, docker archive or layer, or
    /// docker://HOST[:PORT]/NAME[:TAG][@DIGEST] in a registry
    image: String,
    /// Program and arguments [default: the image's]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGV"
    )]
    argv: Vec<String>,
    /// Name of the executor and the task [default: run-<time>]
    #[arg(long)]
    name: Option<String>,
    /// Keep the executor and the task when the command has ended
    #[arg(long, conflicts_with = "rm")]
    keep: bool,
    /// Remove them (the default)
    #[arg(long)]
    rm: bool,
    /// Mount a volume (repeat)
    #[arg(short, long = "volume", value_name = "VOLUME:TARGET[:ro]", value_parser = parse::volume, help_heading = "Executor")]
    volumes: Vec<MountArg>,
    /// Mount a volume, long form: source=,target=[,readonly][,subpath=][,copy-up] or type=tmpfs,target= (repeat)
    #[arg(long = "mount", value_name = "FIELDS", value_parser = parse::mount, help_heading = "Executor")]
    mounts: Vec<MountArg>,
    /// Mount a fresh tmpfs (repeat)
    #[arg(long = "tmpfs", value_name = "TARGET[:size=SIZE]", value_parser = parse::tmpfs, help_heading = "Executor")]
    tmpfs: Vec<MountArg>,
    /// Read-only root
    #[arg(long, help_heading = "Executor")]
    read_only: bool,
    /// Network: host, none, or the name or id of another
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        help_heading = "Executor"
    )]
    network: Option<String>,
    /// Pass signals on to the command; with =false an interrupt stops it in stages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Keys that leave a terminal and let the command go on; implies --keep then
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Start the command, print the executor's id and leave it running; implies --keep
    #[arg(short, long, conflicts_with_all = ["interactive", "tty", "rm"])]
    detach: bool,
    /// Write the exit record as JSON to this file when the command has ended
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// With json: one line with the exit record on standard error at the end
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    asked: NetworkFlags,
    /// A log its output goes to, by id or name; without it the node's files (repeat)
    #[arg(long = "log", value_name = "LOG", help_heading = "Executor")]
    logs: Vec<String>,
    #[command(flatten)]
    pull: CredentialFlags,
    #[command(flatten)]
    task: TaskFlags,
    #[command(flatten)]
    executor: ExecutorFlags,
}

pub(crate) async fn run(args: RunArgs, context: &Context) -> Outcome {
    // Before anything is made: from here on a signal ends the command, not us half-way.
    let mut signals = Signals::listen()?;
    context
        .with_client(async |client| {
            let mut made = Temporary::default();
            let ended = start_and_stay(&args, client, context, &mut made, &mut signals).await;
            match &ended {
                Ok(Ran::Left) => made.keep(),
                Ok(Ran::Ended(_)) if args.keep => made.keep(),
                _ => {}
            }
            let removed = made.remove(client).await;
            let outcome = match ended? {
                Ran::Left => Ok(Exit::OK),
                Ran::Ended(exit) => report(&args, &exit),
            };
            if let Err(failure) = removed {
                output::failure(&failure.text(false));
                return outcome.and(Err(failure));
            }
            outcome
        })
        .await
}

/// What became of the command.
enum Ran {
    Ended(Box<ExitRecord>),
    /// It goes on without us.
    Left,
}

async fn start_and_stay(
    args: &RunArgs,
    client: &Client,
    context: &Context,
    made: &mut Temporary,
    signals: &mut Signals,
) -> Result<Ran, Failure> {
    let names = context.names().await?;
    let spec = args.task.spec(&args.argv)?;
    let (terminal, stdin) = (spec.terminal, spec.interaction.stdin);
    let executor = match &args.name {
        Some(name) => usage(names.of_kind(Kind::Executor, name))?,
        None => usage(names.fresh(Kind::Executor, "run"))?,
    };
    let task = usage(names.of_kind(Kind::Task, executor.name()))?;
    let network = network(args, &names)?;
    let logs = args
        .logs
        .iter()
        .map(|text| usage(names.of_kind(Kind::Log, text)));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    let image = image(args, client, context, &names, made).await?;

    let new = NewElement::new(task.clone(), Spec::Task(Box::new(spec)));
    made.create(client, new, None).await?;
    let new = NewElement::new(
        executor.clone(),
        Spec::Executor(Box::new(args.executor.spec())),
    );
    let mounts = mounts(args, client, &names, made, &executor).await?;
    // Last, so that it is removed first: it uses the others.
    made.create(client, new, None).await?;

    let root = if args.read_only {
        JoinHow::read_only_root()
    } else {
        JoinHow::root()
    };
    let mut handle = client.compose(&executor).await?;
    handle = client.join(handle, &image, root).await?;
    for (id, how) in mounts {
        handle = client.join(handle, &id, how).await?;
    }
    if let Some((id, wanted)) = network {
        handle = client.join(handle, &id, JoinHow::Network(wanted)).await?;
    }
    for id in logs {
        handle = client.join(handle, &id, JoinHow::Log).await?;
    }
    handle = client.join(handle, &task, JoinHow::Task).await?;
    handle = client.bind(handle, None, BindHow::Plain).await?;
    let committed = client.commit(handle).await.map_err(start_failure::of)?;
    if args.detach {
        output::write_out(&format!("{executor}\n"))?;
        return Ok(Ran::Left);
    }
    let session = Session {
        client,
        executor: &executor,
        task: &task,
        run: committed.runs.first().map(|run| run.run),
        replay: true,
        stdin,
        tty: terminal,
        sig_proxy: args.sig_proxy,
        detach: args.detach_keys.clone(),
    };
    match session.stay(signals).await? {
        Ended::Exit(exit) => Ok(Ran::Ended(exit)),
        Ended::Detached => {
            output::note(&format!("left {executor} running"));
            Ok(Ran::Left)
        }
    }
}

/// The network and what is asked of it.
fn network(args: &RunArgs, names: &Names) -> Result<Option<(ElementId, NetworkUse)>, Failure> {
    let wanted = usage(args.asked.wanted())?;
    match &args.network {
        Some(text) => Ok(Some((usage(names.of_kind(Kind::Network, text))?, wanted))),
        None if args.asked.is_empty() => Ok(None),
        None => Err(Failure::usage(
            "--egress, --no-egress, --publish and --dns need --network",
        )),
    }
}

/// The image: one that is there, or a temporary one from a path.
async fn image(
    args: &RunArgs,
    client: &Client,
    context: &Context,
    names: &Names,
    made: &mut Temporary,
) -> Result<ElementId, Failure> {
    if args.image.starts_with(pull::SCHEME) {
        let from = args.pull.with(&usage(pull::reference(&args.image))?)?;
        let id = usage(names.fresh(Kind::Image, "run"))?;
        let new = NewElement::new(id.clone(), Spec::Image(ImageSpec::default()));
        let reporter = Reporter::new(context.progress, &args.image, None);
        made.pull(client, new, from, reporter.sink()).await?;
        return Ok(id);
    }
    args.pull.refuse("an image that is pulled (docker://...)")?;
    if !is_path(&args.image) {
        return usage(names.of_kind(Kind::Image, &args.image));
    }
    let id = usage(names.fresh(Kind::Image, "run"))?;
    let source = source::open(&args.image).await?;
    let mut new = NewElement::new(id.clone(), Spec::Image(ImageSpec::default()));
    new.data = Some(source.data);
    let reporter = Reporter::new(context.progress, &args.image, source.bytes);
    made.create(client, new, Some(reporter.sink())).await?;
    Ok(id)
}

/// A path has a slash and is no id; names of images may have slashes too, so a path begins with `/`, `./` or `../`,
/// or is there.
fn is_path(text: &str) -> bool {
    !text.contains("://")
        && (text.starts_with(['/', '.']) || (text.contains('/') && Path::new(text).exists()))
}

/// What is mounted where; a tmpfs is a temporary volume in the first location made of memory.
async fn mounts(
    args: &RunArgs,
    client: &Client,
    names: &Names,
    made: &mut Temporary,
    executor: &ElementId,
) -> Result<Vec<(ElementId, JoinHow)>, Failure> {
    let mut mounts = Vec::new();
    for mount in args.volumes.iter().chain(&args.mounts).chain(&args.tmpfs) {
        let id = match &mount.volume {
            Some(text) => usage(names.of_kind(Kind::Volume, text))?,
            None => {
                let name = format!("{}-tmpfs-{}", executor.name(), mounts.len());
                let id = usage(names.in_memory(&name))?;
                let spec = VolumeSpec {
                    size_bytes: mount.tmpfs_bytes,
                    ..VolumeSpec::default()
                };
                made.create(
                    client,
                    NewElement::new(id.clone(), Spec::Volume(spec)),
                    None,
                )
                .await?;
                id
            }
        };
        let how = JoinHow::Volume {
            target: mount.target.clone(),
            access: mount.access,
            sub_path: mount.sub_path.clone(),
            copy_up: mount.copy_up,
            tmpfs_bytes: None,
        };
        mounts.push((id, how));
    }
    Ok(mounts)
}

/// Tells how it ended and mirrors it.
fn report(args: &RunArgs, exit: &ExitRecord) -> Outcome {
    if let Some(why) = exit_code::explain(exit) {
        output::note(&why);
    }
    if args.output.is_some() {
        let line = serde_json::to_string(exit).map_err(std::io::Error::other)?;
        output::raw(
            true,
            format!("{}\n", output::escape::escape_json(&line)).as_bytes(),
        )?;
    }
    if let Some(path) = &args.status_file {
        let json = serde_json::to_vec(exit).map_err(std::io::Error::other)?;
        std::fs::write(path, json).map_err(|error| {
            Failure::from(error)
                .context(format!("writing {} failed", path.display()))
                .exit(OWN_FAILURE)
        })?;
    }
    Ok(exit_code::of(exit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(args: &[&str]) -> Result<RunArgs, clap::Error> {
        Line::try_parse_from(["run"].iter().chain(args)).map(|line| line.run)
    }

    #[test]
    fn everything_after_the_image_is_the_commands() {
        let args = parse(&["-e", "A=1", "busybox", "sh", "-c", "echo $A", "--rm", "-i"]).unwrap();
        assert_eq!(args.image, "busybox");
        assert_eq!(args.argv, ["sh", "-c", "echo $A", "--rm", "-i"]);
        assert!(!args.rm && !args.task.interactive && args.sig_proxy);
        let args = parse(&["--sig-proxy=false", "-it", "busybox"]).unwrap();
        assert!(!args.sig_proxy && args.task.interactive && args.task.tty && args.argv.is_empty());
    }

    #[test]
    fn contradictions_are_refused() {
        for args in [
            &["--rm", "--keep", "x"][..],
            &["-d", "-i", "x"],
            &[],
            &["-o", "table", "x"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn paths_are_told_from_names() {
        for path in ["/x/layout", "./x", "../x", "."] {
            assert!(is_path(path), "{path}");
        }
        for name in [
            "busybox",
            "image://images/a/b",
            "library/busybox-that-is-no-file",
        ] {
            assert!(!is_path(name), "{name}");
        }
    }
}
