//! `portlayer version`: of this program, and of the daemon if there is one.

use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::OutputArgs;

/// Show the version of this program, and of the daemon if one answers
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    target: &'static str,
    profile: &'static str,
    /// The gRPC interface both sides must have.
    protocol: &'static str,
    daemon: Option<Daemon>,
}

#[derive(Serialize)]
struct Daemon {
    version: String,
    endpoint: String,
}

pub(crate) async fn run(args: VersionArgs, context: &Context) -> Outcome {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: std::env::consts::ARCH,
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        protocol: "portlayer.v1",
        daemon: daemon(context).await,
    };
    let mut lines: Vec<(String, Vec<u8>)> = [
        ("version", version.version),
        ("target", version.target),
        ("profile", version.profile),
        ("protocol", version.protocol),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into();
    if let Some(daemon) = &version.daemon {
        let text = format!("{} ({})", daemon.version, daemon.endpoint);
        lines.push(("daemon".to_owned(), text.into()));
    }
    context
        .out(args.output)
        .one(&version, version.version, &lines)?;
    Ok(Exit::OK)
}

/// The daemon's, if one answers: our own version is worth showing without one.
async fn daemon(context: &Context) -> Option<Daemon> {
    let client = context.daemon().await.ok()??;
    let info = client.info(false).await.ok()?;
    Some(Daemon {
        version: info.version,
        endpoint: client.endpoint().to_owned(),
    })
}
