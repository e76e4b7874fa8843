//! `portlayer version`.

use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::output::OutputArgs;

/// Show the version of this program
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
}

pub(crate) fn run(args: &VersionArgs, context: &Context) -> Outcome {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: std::env::consts::ARCH,
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    };
    let lines = [
        ("version", version.version),
        ("target", version.target),
        ("profile", version.profile),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()));
    context
        .out(args.output)
        .one(&version, version.version, &lines)?;
    Ok(Exit::OK)
}
