//! `cp`: files into and out of running executors and volumes.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use portlayer::archive::{
    Attributes, Compression, ExtractOptions, Limits, Packing, Root, WriteOptions, place, write_at,
};
use portlayer::copy::CopyOptions;
use portlayer::element::{DataStream, ElementId, Kind, stream};
use portlayer_client::Client;
use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;

use super::context::{Context, usage};
use super::failure::{Exit, Failure, Outcome};
use super::parse::Names;

/// Copy files into and out of running executors and volumes
///
/// A side is a path here, - for an archive on standard input or output, NAME:/PATH or executor:NAME:/PATH in a running
/// executor, or volume:NAME:/PATH; NAME may be a whole id. A directory that is there takes what comes; otherwise PATH is the
/// new name. A directory that ends in /. stands for what is in it.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// From where
    source: String,
    /// To where
    destination: String,
    /// Write an archive of this form (tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip) instead of files; archives that come in are
    /// recognised
    #[arg(long, value_name = "FORM")]
    archive: Option<Packing>,
    /// Keep owners; otherwise root's inside, and yours here
    #[arg(long)]
    owners: bool,
    /// Which extended attributes go along
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    attributes: Which,
    /// Keep set-id bits
    #[arg(long)]
    set_id: bool,
    /// FIFOs and devices too
    #[arg(long)]
    special: bool,
    /// At most so many bytes [default: 16 GiB]
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Which {
    #[default]
    None,
    User,
    All,
}

/// One side of a copy.
enum Side {
    Here(PathBuf),
    Stream,
    There(ElementId, String),
}

impl CopyArgs {
    fn options(&self) -> CopyOptions {
        CopyOptions {
            special_nodes: self.special,
            keep_setid: self.set_id,
            attributes: match self.attributes {
                Which::None => Attributes::None,
                Which::User => Attributes::User,
                Which::All => Attributes::All,
            },
            bytes: self.max_bytes,
        }
    }

    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            bytes: self.max_bytes.unwrap_or(default.bytes),
            special_nodes: self.special,
            ..default
        }
    }
}

pub(crate) async fn run(args: CopyArgs, context: &Context) -> Outcome {
    let names = context.names().await?;
    let source = side(&names, &args.source)?;
    let destination = side(&names, &args.destination)?;
    if args.archive.is_some() && matches!(destination, Side::There(..)) {
        return Err(Failure::usage(
            "--archive is for what is written here: archives that go in are recognised",
        ));
    }
    context
        .with_client(async |client| match (&source, &destination) {
            (Side::There(id, path), Side::There(to, to_path)) => {
                let tar = Packing::Tar(Compression::None);
                let data = client.copy_out(id, path, tar, &args.options()).await?;
                into(client, to, to_path, data, &args).await
            }
            (Side::There(id, path), to) => out(client, id, path, to, &args).await,
            (Side::Stream, Side::There(to, path)) => {
                into(client, to, path, Box::pin(tokio::io::stdin()), &args).await
            }
            (Side::Here(from), Side::There(to, path)) => {
                into(client, to, path, read_here(from, &args)?, &args).await
            }
            _ => Err(Failure::usage(
                "one side must be in an executor or a volume: NAME:/PATH or volume:NAME:/PATH",
            )),
        })
        .await
}

/// What a text on the command line means.
fn side(names: &Names, text: &str) -> Result<Side, Failure> {
    if text == "-" {
        return Ok(Side::Stream);
    }
    for kind in [Kind::Executor, Kind::Volume] {
        let Some(rest) = text
            .strip_prefix(kind.as_str())
            .and_then(|rest| rest.strip_prefix(':'))
        else {
            continue;
        };
        let whole = rest.starts_with("//");
        let skipped = if whole { 2 } else { 0 };
        let Some(at) = rest[skipped..].find(":/") else {
            return Err(Failure::usage(format!(
                "{text:?}: the path is missing, as in NAME:/PATH"
            )));
        };
        let (name, path) = rest.split_at(at + skipped);
        let name = match whole {
            true => format!("{kind}:{name}"),
            false => name.to_owned(),
        };
        let id = usage(names.of_kind(kind, &name))?;
        return Ok(Side::There(id, path[1..].to_owned()));
    }
    // A name before the first colon; a path here that looks so is written with ./ before it.
    if let Some((name, path)) = text.split_once(':')
        && path.starts_with('/')
        && !name.contains('/')
    {
        let id = usage(names.of_kind(Kind::Executor, name))?;
        return Ok(Side::There(id, path.to_owned()));
    }
    Ok(Side::Here(PathBuf::from(text)))
}

async fn into(
    client: &Client,
    to: &ElementId,
    path: &str,
    data: DataStream,
    args: &CopyArgs,
) -> Outcome {
    client.copy_in(to, path, data, &args.options()).await?;
    Ok(Exit::OK)
}

/// A file or directory here as a tar.
fn read_here(from: &Path, args: &CopyArgs) -> Result<DataStream, Failure> {
    let failed = |error: io::Error| {
        Failure::from(error).context(format!("opening {} failed", from.display()))
    };
    let contents = from.as_os_str().as_encoded_bytes().ends_with(b"/.") || from == Path::new(".");
    let (directory, leaf) = match from.file_name() {
        Some(leaf) if !contents => {
            let parent = from.parent().filter(|parent| *parent != Path::new(""));
            (parent.unwrap_or(Path::new(".")), PathBuf::from(leaf))
        }
        _ => (from, PathBuf::from(".")),
    };
    let root = Root::open(directory).map_err(|errno| failed(errno.into()))?;
    std::fs::symlink_metadata(directory.join(&leaf)).map_err(failed)?;
    let name = match leaf == Path::new(".") {
        true => Vec::new(),
        false => leaf.as_os_str().as_encoded_bytes().to_vec(),
    };
    let options = WriteOptions {
        limits: args.limits(),
        keep_setid: args.set_id,
        hard_links: true,
        attributes: args.options().attributes,
    };
    let owners = args.owners;
    Ok(stream::produce_blocking(move |out| {
        let owner = |uid, gid| if owners { (uid, gid) } else { (0, 0) };
        write_at(&root, &leaf, &name, out, &options, &owner)
            .map(drop)
            .map_err(io::Error::other)
    }))
}

async fn out(client: &Client, id: &ElementId, path: &str, to: &Side, args: &CopyArgs) -> Outcome {
    let packing = args.archive.unwrap_or(Packing::Tar(Compression::None));
    let failed =
        |error: io::Error| Failure::from(error).context(format!("copying from {id} failed"));
    let mut data = client.copy_out(id, path, packing, &args.options()).await?;
    match to {
        Side::Stream => {
            let mut stdout = tokio::io::stdout();
            tokio::io::copy(&mut data, &mut stdout)
                .await
                .map_err(failed)?;
            stdout.flush().await.map_err(failed)?;
        }
        Side::Here(file) if args.archive.is_some() => {
            let mut new = tokio::fs::File::create_new(file).await.map_err(|error| {
                Failure::from(error).context(format!("creating {} failed", file.display()))
            })?;
            let copied = tokio::io::copy(&mut data, &mut new).await;
            let copied = match copied {
                Ok(_) => new.flush().await,
                Err(error) => Err(error),
            };
            if copied.is_err() {
                // Only tidying up: the error is what counts.
                let _ = tokio::fs::remove_file(file).await;
            }
            copied.map_err(failed)?;
        }
        Side::Here(path) => write_here(data, path.clone(), args).await?,
        Side::There(..) => return Err(Failure::usage("both sides are there")),
    }
    Ok(Exit::OK)
}

/// Extracts a tar here: what a task wrote goes nowhere else.
async fn write_here(data: DataStream, to: PathBuf, args: &CopyArgs) -> Result<(), Failure> {
    let options = ExtractOptions {
        limits: args.limits(),
        keep_setid: args.set_id,
        attributes: args.options().attributes,
    };
    let (shown, owners) = (to.display().to_string(), args.owners);
    let me = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let bridge = SyncIoBridge::new(data);
    let placed = tokio::task::spawn_blocking(move || {
        // The directory is ours to name; what comes is resolved inside it.
        let is_directory = to.is_dir();
        let parent = to.parent().filter(|parent| *parent != Path::new(""));
        let (directory, path) = match to.file_name() {
            Some(name) if !is_directory => (
                parent.unwrap_or(Path::new(".")).to_owned(),
                PathBuf::from(name),
            ),
            _ => (to, PathBuf::from(".")),
        };
        let root = Root::open(&directory).map_err(|errno| {
            Failure::from(io::Error::from(errno))
                .context(format!("opening {} failed", directory.display()))
        })?;
        let owner = |uid, gid| if owners { (uid, gid) } else { me };
        place(bridge, &root, &path, &options, &owner).map_err(|error| {
            let io = io::Error::other(error);
            Failure::from(io).context(format!("copying to {shown} failed"))
        })
    });
    placed.await.map_err(io::Error::other)?.map(drop)
}

#[cfg(test)]
mod tests {
    use portlayer_node::config::Config;

    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let names = Names::of_config(&Config::new("/nonexistent"));
        let of = |text: &str| match side(&names, text) {
            Ok(Side::Here(path)) => format!("here {}", path.display()),
            Ok(Side::Stream) => "stream".to_owned(),
            Ok(Side::There(id, path)) => format!("{id} {path}"),
            Err(failure) => format!("failure {}", failure.code()),
        };
        assert_eq!(of("-"), "stream");
        assert_eq!(of("./x:/y"), "here ./x:/y");
        assert_eq!(of("C:x"), "here C:x");
        assert_eq!(of("web:/etc"), "executor://executors/web /etc");
        assert_eq!(of("executor:web:/etc"), "executor://executors/web /etc");
        assert_eq!(
            of("executor://executors/a/b:/x:/y"),
            "executor://executors/a/b /x:/y"
        );
        assert_eq!(of("volume:data:/"), "volume://volumes/data /");
        assert_eq!(of("volume://volumes/data:/a"), "volume://volumes/data /a");
        assert_eq!(of("volume:data"), "failure 2");
    }
}
