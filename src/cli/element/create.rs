//! `create`, for every kind.

use clap::Args;
use portlayer::element::{Checksum, ElementId, ImageSpec, Kind, NewElement, Spec, VolumeSpec};
use portlayer::task::{ExecutorSpec, TaskSpec};

use super::pull::{self, PullFlags};
use crate::cli::context::{Context, usage};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{OutputArgs, Reporter};
use crate::cli::parse::{self, MetadataArgs, Names};
use crate::cli::task_flags::{ExecutorFlags, TaskFlags};
use crate::cli::{rows, source};

/// Create an element
#[derive(Debug, Args)]
pub(crate) struct CreateArgs<C: Args> {
    /// Its id, or its name in the first location of the kind
    id: String,
    /// The element it is made from
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Its data: a file, a directory, or - for standard input
    #[arg(long, value_name = "FILE|DIR|-")]
    from: Option<String>,
    /// What the data must add up to: sha256:<64 hex digits>
    #[arg(long, value_name = "SUM")]
    checksum: Option<Checksum>,
    /// Leave it out of lists unless asked for
    #[arg(long)]
    hidden: bool,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    flags: C,
    #[command(flatten)]
    output: OutputArgs,
}

/// Flags of one kind's create.
pub(crate) trait KindFlags: Args {
    /// The spec they describe.
    fn spec(&self, kind: Kind) -> Result<Spec, Failure>;

    /// The element the new one is stored with (tasks).
    fn owner(&self) -> Option<&str> {
        None
    }

    /// What the data come from instead of a file (images).
    fn pull(&self) -> Option<&PullFlags> {
        None
    }
}

/// An image: data are an OCI layout or archive, a docker archive, or a layer
#[derive(Debug, Args)]
pub(crate) struct ImageFlags {
    /// Bytes that must be left after unpacking
    #[arg(long, value_name = "SIZE", value_parser = parse::size, default_value = "0")]
    free: u64,
    #[command(flatten)]
    pull: PullFlags,
}

impl KindFlags for ImageFlags {
    fn spec(&self, _: Kind) -> Result<Spec, Failure> {
        Ok(Spec::Image(ImageSpec {
            freespace_bytes: self.free,
        }))
    }

    fn pull(&self) -> Option<&PullFlags> {
        Some(&self.pull)
    }
}

/// A volume: data are a tar
#[derive(Debug, Args)]
pub(crate) struct VolumeFlags {
    /// Bytes that must be free after filling it
    #[arg(long, value_name = "SIZE", value_parser = parse::size, default_value = "0")]
    free: u64,
    /// Upper bound, where the location can hold to it
    #[arg(long, value_name = "SIZE", value_parser = parse::size, default_value = "0")]
    size: u64,
    /// Owner of its root directory
    #[arg(long, default_value_t = 0)]
    uid: u32,
    /// Group of its root directory
    #[arg(long, default_value_t = 0)]
    gid: u32,
    /// Permissions of its root directory, octal
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<u32>,
}

impl KindFlags for VolumeFlags {
    fn spec(&self, _: Kind) -> Result<Spec, Failure> {
        Ok(Spec::Volume(VolumeSpec {
            freespace_bytes: self.free,
            size_bytes: self.size,
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
        }))
    }
}

/// A task: from a file, from flags, or both
#[derive(Debug, Args)]
pub(crate) struct TaskFlagsOfCreate {
    /// Definition in TOML (or JSON, when the name ends with .json); flags win over it
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// The image or volume it is stored with; its paths are then below where that is mounted
    #[arg(long, value_name = "ID")]
    owner: Option<String>,
    #[command(flatten)]
    task: TaskFlags,
    /// Program and arguments
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
}

impl KindFlags for TaskFlagsOfCreate {
    fn spec(&self, _: Kind) -> Result<Spec, Failure> {
        let mut spec = match &self.file {
            Some(path) => document(path)?,
            None => TaskSpec::default(),
        };
        self.task.apply(&mut spec)?;
        if !self.argv.is_empty() {
            spec.argv.clone_from(&self.argv);
        }
        Ok(Spec::Task(Box::new(spec)))
    }

    fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }
}

/// An executor: from a file, or from flags
#[derive(Debug, Args)]
pub(crate) struct ExecutorFlagsOfCreate {
    /// Definition in TOML (or JSON, when the name ends with .json)
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    #[command(flatten)]
    executor: ExecutorFlags,
}

impl KindFlags for ExecutorFlagsOfCreate {
    fn spec(&self, _: Kind) -> Result<Spec, Failure> {
        let flags = self.executor.spec();
        let Some(path) = &self.file else {
            return Ok(Spec::Executor(Box::new(flags)));
        };
        if flags != ExecutorSpec::default() {
            return Err(Failure::usage(
                "give an executor by --file or by flags, not both",
            ));
        }
        Ok(Spec::Executor(Box::new(document(path)?)))
    }
}

/// A network or log: settings of its location's driver
#[derive(Debug, Args)]
pub(crate) struct SettingFlags {
    /// A setting (repeat)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

impl KindFlags for SettingFlags {
    fn spec(&self, kind: Kind) -> Result<Spec, Failure> {
        let settings = self.settings.iter().cloned().collect();
        Ok(match kind {
            Kind::Network => Spec::Network(settings),
            _ => Spec::Log(settings),
        })
    }
}

pub(crate) async fn run<C: KindFlags>(
    kind: Kind,
    args: CreateArgs<C>,
    context: &Context,
) -> Outcome {
    let names = context.names().await?;
    let id = usage(names.of_kind(kind, &args.id))?;
    let mut new = NewElement::new(id, args.flags.spec(kind)?);
    new.parent = args
        .parent
        .as_deref()
        .map(|text| parent(kind, text, &names))
        .transpose()?;
    new.owner = args
        .flags
        .owner()
        .map(|text| usage(parse::any(text)))
        .transpose()?;
    new.checksum = args.checksum;
    new.hidden = args.hidden;
    (new.ro, new.rw) = args.metadata.patches();
    if let Some(from) = args
        .flags
        .pull()
        .map(PullFlags::from)
        .transpose()?
        .flatten()
    {
        return pull::store(new, from, args.output, context).await;
    }
    store(new, args.from.as_deref(), args.output, context).await
}

/// Creates an element, with a progress bar over its data when there are some, and shows it.
pub(super) async fn store(
    mut new: NewElement,
    from: Option<&str>,
    output: OutputArgs,
    context: &Context,
) -> Outcome {
    let id = new.id.clone();
    let mut total = None;
    if let Some(from) = from {
        let source = source::open(from).await?;
        new.data = Some(source.data);
        total = source.bytes;
    }
    context
        .with_client(async move |client| {
            let reporter = Reporter::new(context.progress, id.as_str(), total);
            let created = client.create_with_progress(new, reporter.sink()).await;
            drop(reporter);
            let created = created?;
            context
                .out(output)
                .one(&created, id.as_str(), &rows::details(&created))?;
            Ok(Exit::OK)
        })
        .await
}

/// A parent: for a volume an image or a volume, so a bare name is not enough there.
fn parent(kind: Kind, text: &str, names: &Names) -> Result<ElementId, Failure> {
    if kind == Kind::Volume {
        usage(parse::any(text))
    } else {
        usage(names.of_kind(kind, text))
    }
}

/// Reads a definition; an unknown field is an error that names it.
fn document<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::from(error)
            .context(format!("reading {} failed", path.display()))
            .exit(2)
    })?;
    let refuse =
        |error: String| Failure::usage(format!("{}: {}", path.display(), error.trim_end()));
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))
    } else {
        toml::from_str(&text).map_err(|error| refuse(error.to_string()))
    }
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("expected octal permissions as in 0755, not {text:?}"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    parse::entry(text).map(|(key, _)| {
        let value = text[key.len() + 1..].to_owned();
        (key, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line<C: Args> {
        #[command(flatten)]
        create: CreateArgs<C>,
    }

    fn spec<C: KindFlags>(kind: Kind, args: &[&str]) -> Result<Spec, Failure> {
        let line = Line::<C>::try_parse_from(["x"].iter().chain(args)).unwrap();
        line.create.flags.spec(kind)
    }

    #[test]
    fn a_task_comes_from_a_file_and_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.toml");
        std::fs::write(
            &path,
            "argv = ['a', 'b']\ncwd = '/file'\n[stop]\nsignal = 2\n",
        )
        .unwrap();
        let file = path.to_str().unwrap();
        let line = ["t", "--file", file, "-w", "/flag", "--", "c", "-d"];
        let Ok(Spec::Task(task)) = spec::<TaskFlagsOfCreate>(Kind::Task, &line) else {
            panic!("no task");
        };
        assert_eq!(task.argv, ["c", "-d"]);
        assert_eq!(
            (task.cwd.as_deref(), task.stop.signal),
            (Some("/flag"), Some(2))
        );

        std::fs::write(&path, "agrv = ['a']\n").unwrap();
        let failure = spec::<TaskFlagsOfCreate>(Kind::Task, &["t", "--file", file]).unwrap_err();
        assert!(
            failure.text(false).contains("agrv"),
            "{}",
            failure.text(false)
        );
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn volumes_and_settings() {
        let line = ["v", "--size", "1m", "--mode", "1777", "--uid", "5"];
        let Ok(Spec::Volume(volume)) = spec::<VolumeFlags>(Kind::Volume, &line) else {
            panic!("no volume");
        };
        assert_eq!(
            (volume.size_bytes, volume.mode, volume.uid),
            (1 << 20, Some(0o1777), 5)
        );
        let Ok(Spec::Log(settings)) = spec::<SettingFlags>(Kind::Log, &["l", "--set", "a=b=c"])
        else {
            panic!("no log");
        };
        assert_eq!(settings["a"], "b=c");
        for bad in [
            &["v", "--mode", "9"][..],
            &["v", "--mode", "77777"],
            &["v", "--checksum", "md5:00"],
        ] {
            assert!(Line::<VolumeFlags>::try_parse_from(["x"].iter().chain(bad)).is_err());
        }
    }
}
